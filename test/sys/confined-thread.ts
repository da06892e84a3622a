/**
 * A thread that gives up the right to write. It answers each attempt with `ok` or with the kernel's error
 * code.
 */
import * as fs from 'node:fs';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { giveUpWriting } from '../../src/sys/landlock.ts';
import { hasCode } from '../../src/sys/os-error.ts';

/**
 * Writing stays allowed beneath `inside`; if undefined, nowhere. `open` is a file that is open for writing.
 */
export interface Attempts {
  readonly inside: string | undefined;
  readonly places: readonly string[];
  readonly open: number;
}

const { inside, places, open } = workerData as Attempts;

function outcome(work: () => unknown): string {
  try {
    work();
    return 'ok';
  } catch (error) {
    if (hasCode(error, 'EACCES', 'EXDEV')) return (error as NodeJS.ErrnoException).code!;
    throw error;
  }
}

/** Attempts in a directory that has `file`, `moved`, `empty/` and `sub/`. */
const attempts: Readonly<Record<string, (directory: string) => unknown>> = {
  'make a file': (directory) => fs.writeFileSync(`${directory}/made`, 'x'),
  'write a file': (directory) => fs.writeFileSync(`${directory}/file`, 'x', { flag: 'r+' }),
  'truncate a file': (directory) => fs.truncateSync(`${directory}/file`, 0),
  'make a directory': (directory) => fs.mkdirSync(`${directory}/directory`),
  'make a symlink': (directory) => fs.symlinkSync('x', `${directory}/symlink`),
  'link to another directory': (directory) => fs.linkSync(`${directory}/file`, `${directory}/sub/link`),
  rename: (directory) => fs.renameSync(`${directory}/moved`, `${directory}/renamed`),
  'remove a directory': (directory) => fs.rmdirSync(`${directory}/empty`),
  'remove a file': (directory) => fs.unlinkSync(`${directory}/file`),
  read: (directory) => fs.readdirSync(directory),
  'change a mode': (directory) => fs.chmodSync(directory, 0o755),
};

const confinement = giveUpWriting(inside === undefined ? undefined : fs.openSync(inside, 'r'));
const answers = places.map((place) =>
  Object.fromEntries(
    Object.entries(attempts).map(([name, attempt]) => [name, outcome(() => attempt(place))]),
  ),
);
const written = outcome(() => fs.writeSync(open, 'x'));
if (inside !== undefined) parentPort!.postMessage({ confinement, answers, written }, []);
else {
  // A thread that this one starts has the same limits.
  const code = `require('fs').writeFileSync(${JSON.stringify(`${places[0]!}/by-child`)}, '')`;
  new Worker(code, { eval: true }).once('error', (error: NodeJS.ErrnoException) =>
    parentPort!.postMessage({ confinement, answers, written, child: error.code }, []),
  );
}
