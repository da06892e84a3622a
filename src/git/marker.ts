import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { kill, pid } from 'node:process';
import { GitError } from '../errors.ts';

/** In the repository while its rootfs is being changed: who does it. */
const name = 'dlrootfs-checkout';

/** Whether a checkout began and did not end. */
export function isInterrupted(gitDirectory: string): boolean {
  return existsSync(path.join(gitDirectory, name));
}

/**
 * Says that the rootfs is between two layers, until `unmark`.
 *
 * @returns whether an earlier checkout had left it so
 * @throws GitError when another process is at it
 */
export function mark(gitDirectory: string): boolean {
  const marker = path.join(gitDirectory, name);
  const interrupted = existsSync(marker);
  if (interrupted) {
    const other = Number.parseInt(readFileSync(marker, 'utf8'), 10);
    if (other > 0 && other !== pid && isAlive(other)) {
      throw new GitError(`process ${other} is checking out another layer`, {
        code: 'GIT_BUSY',
        hint: 'wait until it is done',
      });
    }
    // What the killed git would have removed.
    for (const lock of ['index.lock', 'HEAD.lock', 'info/exclude.lock']) {
      rmSync(path.join(gitDirectory, lock), { force: true });
    }
  }
  writeFileSync(marker, `${pid}\n`, { flag: interrupted ? 'w' : 'wx', mode: 0o644 });
  return interrupted;
}

export function unmark(gitDirectory: string): void {
  rmSync(path.join(gitDirectory, name), { force: true });
}

function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code !== 'ESRCH';
  }
}
