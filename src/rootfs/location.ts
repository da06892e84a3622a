import type { BigIntStats, Stats } from 'node:fs';
import { lstat, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { unlessCode } from '../sys/os-error.ts';
import { osPath, pathBytes, pathText } from '../sys/os-path.ts';
import { trustedPath } from '../sys/trusted-path.ts';
import type { BytePath } from '../tar/entry.ts';

const unlessMissing = unlessCode('ENOENT');

/** Where a DIR is, symlinks followed. */
export interface Location {
  readonly path: string;
  /** Of the directory that is there; undefined when nothing is. */
  readonly stat: Stats | undefined;
  /** An empty directory there may be replaced by a new one of the same owner with rename(2). */
  readonly replaceable: boolean;
}

/**
 * Finds the place that `directory` names. Its parents need not exist.
 *
 * @throws DestinationError for something that is no directory, for the root of the running system, and for a symlink that the kernel would
 * not follow; the system's errors
 */
export async function locate(directory: string): Promise<Location> {
  if (directory === '') throw new DestinationError('the name of the directory is empty', { code: 'ENOENT' });
  const found = await trustedPath(directory);
  const there = await lstat(osPath(found)).catch(unlessMissing);
  if (there === undefined) return { path: found, stat: undefined, replaceable: true };
  if (!there.isDirectory()) {
    throw new DestinationError(`${printable(directory)} is not a directory`, {
      code: 'ENOTDIR',
      hint: 'move it away, or choose another directory with -d',
    });
  }
  const mounts = await readMounts();
  await refuseMismatch(directory, found);
  await refuseRunningSystem(directory, found, mounts);
  return { path: found, stat: there, replaceable: await isReplaceable(found, there, mounts) };
}

/** How often two names of one directory may be seen as two directories before they are. */
const LOOKS = 10;

/** The links of /proc lead to other places than their text says, and so does a working directory that something was mounted over. */
async function refuseMismatch(directory: string, found: string): Promise<void> {
  // Another run may replace the directory between two looks.
  for (let looks = 0; looks < LOOKS; looks += 1) {
    const meant = await identity(directory);
    if (meant === undefined || meant === (await identity(found))) return;
  }
  if (!directory.startsWith('/') && (await identity('.')) !== (await identity(await trustedPath('.')))) {
    throw new DestinationError(
      `cannot use ${printable(directory)}: something was mounted over the working directory`,
      { code: 'UNREACHABLE', hint: 'enter it again (cd "$PWD"), or choose another directory with -d' },
    );
  }
  throw new DestinationError(`cannot use ${printable(directory)}: it has no path of its own here`, {
    code: 'UNREACHABLE',
    hint: 'it leads through a link of /proc: choose another directory with -d',
  });
}

/** The root of this process, or of the host's first one, under any name or mount. */
async function refuseRunningSystem(
  directory: string,
  found: string,
  mounts: readonly Mount[],
): Promise<void> {
  const [root, mounted] = ['/', found].map((point) => mounts.findLast((mount) => mount.point === point));
  const roots = [await identity('/'), await identity('/proc/1/root')];
  const isRoot = roots.includes(await identity(found)) || (root !== undefined && root.id === mounted?.id);
  if (!isRoot) return;
  throw new DestinationError(`cannot use ${printable(directory)}: it is the root of the running system`, {
    code: 'RUNNING_SYSTEM',
    hint: 'choose another directory with -d',
  });
}

/** Device and inode of a directory, links followed; undefined where it may not be seen. */
async function identity(directory: string): Promise<string | undefined> {
  const there = await stat(osPath(directory), { bigint: true }).catch(
    (): BigIntStats | undefined => undefined,
  );
  return there && `${there.dev}:${there.ino}`;
}

export interface Mount {
  /** Device, and the directory of it that is mounted: the same for two mounts of the same directory. */
  readonly id: string;
  readonly point: string;
}

/** proc_pid_mountinfo(5); later lines lie over earlier ones. Empty where /proc is not mounted. */
export async function readMounts(): Promise<Mount[]> {
  const text = await readFile('/proc/self/mountinfo', 'latin1').catch(() => '');
  return text.split('\n').map((line) => {
    const [, , device = '', root = '', point = ''] = line.split(' ');
    return { id: `${device} ${root}`, point: pathText(Buffer.from(unescape(point), 'latin1')) };
  });
}

/** The paths below a directory, relative to it, at which something is mounted; its own symlinks are followed. */
export async function mountPointsBelow(directory: string): Promise<ReadonlySet<BytePath>> {
  const found = pathText(await realpath(osPath(directory), { encoding: 'buffer' }));
  const start = found === '/' ? found : `${found}/`;
  const points = (await readMounts()).map(({ point }) => point);
  const below = points.filter((point) => point.length > start.length && point.startsWith(start));
  return new Set(below.map((point) => pathBytes(point.slice(start.length)).toString('latin1') as BytePath));
}

/** Blanks, tabs, newlines and backslashes are octal in mountinfo. */
function unescape(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

async function isReplaceable(found: string, there: Stats, mounts: readonly Mount[]): Promise<boolean> {
  // Processes that work in it would be left in a directory that is gone.
  if ((await identity('.')) === (await identity(found))) return false;
  const above = path.dirname(found);
  if ((await lstat(osPath(above))).dev !== there.dev) return false;
  if (mounts.some(({ point }) => point === found)) return false;
  // The new one gets the owner of the old one, which only root can give away.
  return geteuid!() === 0 || (there.uid === geteuid!() && there.gid === getegid!());
}
