import { lstatSync } from 'node:fs';
import { DestinationError, printable } from '../errors.ts';
import { writeFileAtomically } from '../sys/atomic-file.ts';
import { osError } from '../sys/os-error.ts';

/**
 * Throws DestinationError when something is at one of the paths: asked before a pull, so that nobody waits for a download
 * first.
 */
export function refuseExisting(paths: readonly string[]): void {
  const there = paths.filter((path) => exists(path));
  if (there.length > 0) throw existing(there);
}

function exists(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    const { code, text } = osError((error as { errno: number }).errno);
    throw new DestinationError(`cannot write ${printable(path)}: ${text}`, { code, cause: error });
  }
}

function existing(paths: readonly string[]): DestinationError {
  const names = paths.map((path) => printable(path)).join(' and ');
  return new DestinationError(`${names} ${paths.length === 1 ? 'is' : 'are'} there already`, {
    code: 'FILE_EXISTS',
    hint: 'add --force to replace it',
  });
}

/**
 * Puts a whole file at a path, at once. What is there is replaced only with `force`, and then itself: a symlink is not
 * followed. Throws DestinationError.
 */
export async function placeFile(path: string, text: string, force: boolean): Promise<void> {
  try {
    await writeFileAtomically(path, text, { mode: 0o644, replace: force });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw existing([path]);
    throw new DestinationError(`${printable(path)} cannot be written: ${message}`, {
      cause: error,
      hint: 'the rootfs is complete; make its parent directory writable and run the command again',
    });
  }
}
