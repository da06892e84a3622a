import { constants } from 'node:os';
import type { Koffi, Library } from './native.ts';

/** flock(2) without waiting. `unsupported`: the file system has no locks. */
export type LockFile = (
  descriptor: number,
  mode: 'exclusive' | 'shared',
) => 'locked' | 'busy' | 'unsupported';

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Throws where the function cannot be found. */
export function nativeLock(koffi: Koffi, library: Library): LockFile {
  const flock = library.func('int flock(int file, int operation)') as (
    file: number,
    operation: number,
  ) => number;
  return (descriptor, mode) => {
    if (flock(descriptor, (mode === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return 'locked';
    return koffi.errno() === constants.errno.EWOULDBLOCK ? 'busy' : 'unsupported';
  };
}
