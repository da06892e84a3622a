import { closeSync, mkdirSync, openSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { argv, stdout } from 'node:process';
import { findCache, prepareCache } from '../../src/blob/cache-directory.ts';
import { Destination } from '../../src/rootfs/destination.ts';
import { OpenDirectory } from '../../src/sys/open-directory.ts';
import { systemCalls } from '../../src/sys/system-calls.ts';

// Opens directories with ever more free descriptors until it succeeds, and prints each failure as a line of
// JSON. It is run with a low limit of open files.

const base = argv[2]!;
const make = 0o755;

/** The ways to open a directory; each closes what it has opened. */
const ways: Readonly<Record<string, () => unknown>> = {
  'an existing directory': () => OpenDirectory.open(join(base, 'here/below')).close(),
  'new levels': () => OpenDirectory.open(join(base, 'a/b/c'), { make }).close(),
  'new levels behind a link': () => OpenDirectory.open(join(base, 'link/b/c'), { make }).close(),
  'the parent of new levels': () => OpenDirectory.openParent(join(base, 'a/b/c'), { make }).directory.close(),
  'the parent of what two dots lead to': () =>
    OpenDirectory.openParent(join(base, 'here/below/..')).directory.close(),
  'the parent of the root': () => OpenDirectory.openParent('/').directory.close(),
  'a new destination': async () => await discarded(await Destination.open(join(base, 'a/b/c'))),
  'an empty destination': async () => await discarded(await Destination.open(join(base, 'here/below'))),
  'a cache': async () => {
    for (const folder of (await findCache(join(base, 'cache')))!.values()) folder.close();
  },
};

async function discarded(destination: Destination): Promise<void> {
  await destination.discard();
  destination[Symbol.dispose]();
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function paths(): string {
  return readdirSync(base, { recursive: true, encoding: 'utf8' }).toSorted().join(' ');
}

/** Calls `open` while only `free` descriptors are left, and returns the code of its error. */
async function attempt(open: () => unknown, free: number): Promise<string | undefined> {
  const taken: number[] = [];
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch {
    for (const descriptor of taken.splice(0, free)) closeSync(descriptor);
  }
  try {
    await open();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    for (const descriptor of taken) closeSync(descriptor);
  }
}

/** Removes the levels that a success has made. */
function restore(): void {
  for (const made of ['a', 'here/b']) rmSync(join(base, made), { recursive: true, force: true });
  mkdirSync(join(base, 'here/below'), { recursive: true });
}

restore();
symlinkSync('here', join(base, 'link'));
for (const folder of (await prepareCache(join(base, 'cache'))).values()) folder.close();
// Loaded before the descriptors are used up.
systemCalls();

for (const [way, open] of Object.entries(ways)) {
  const [descriptors, before] = [openDescriptors(), paths()];
  for (let free = 0; ; free += 1) {
    const code = await attempt(open, free);
    if (code === undefined) break;
    const [leaked, after] = [openDescriptors() - descriptors, paths()];
    stdout.write(`${JSON.stringify({ way, free, code, leaked, left: after === before ? '' : after })}\n`);
    restore();
  }
  restore();
}
