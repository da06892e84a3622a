import { kill, pid } from 'node:process';
import { GitError } from '../errors.ts';
import type { RootfsFiles } from './rootfs-files.ts';

/** In the repository while its rootfs is being changed: who does it. */
const MARKER = '.git/dlrootfs-checkout';
/** In bytes. */
const LARGEST_MARKER = 4096;

/** Whether a checkout began and did not end. */
export function isInterrupted(files: RootfsFiles): boolean {
  return files.stat(MARKER) !== undefined;
}

/**
 * Says that the rootfs is between two layers, until `unmark`.
 *
 * @returns whether an earlier checkout had left it so
 * @throws GitError when another process is at it
 */
export function mark(files: RootfsFiles): boolean {
  const earlier = files.read(MARKER, LARGEST_MARKER);
  if (earlier) {
    const other = Number.parseInt(earlier.toString('latin1'), 10);
    if (other > 0 && other !== pid && isAlive(other)) {
      throw new GitError(`process ${other} is checking out another layer`, {
        code: 'GIT_BUSY',
        hint: `wait until it is done; if it is no dlrootfs, remove ${files.place(MARKER)}`,
      });
    }
    // What the killed run would have removed.
    for (const lock of ['index', 'HEAD', 'info/exclude']) files.remove(`.git/${lock}.lock`);
    files.remove(MARKER);
  }
  files.create(MARKER, Buffer.from(`${pid}\n`));
  return earlier !== undefined;
}

export function unmark(files: RootfsFiles): void {
  files.remove(MARKER);
}

function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code !== 'ESRCH';
  }
}
