import { constants, platform } from 'node:os';
import { certain } from './kernel-entry.ts';
import { loadNative } from './native.ts';
import { systemCalls } from './system-calls.ts';

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** A lock of a whole open file, without waiting; `unsupported`: neither this platform nor the file system may have it. */
export type LockResult = 'locked' | 'busy' | 'unsupported';

/** flock(2): until the descriptor is closed, or the process ends, however it ends. */
export function lockFile(descriptor: number, mode: 'exclusive' | 'shared'): LockResult {
  const operation = (mode === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB;
  const answer = platform() === 'linux' ? systemCalls()?.flock(descriptor, operation) : undefined;
  return lockResult(answer ?? libcLock(descriptor, operation));
}

function lockResult(answer: number): LockResult {
  if (answer >= 0) return 'locked';
  return answer === -constants.errno.EWOULDBLOCK ? 'busy' : 'unsupported';
}

let libcFlock: ((descriptor: number, operation: number) => number) | undefined;

/** Where system calls are not made directly: macOS, and processors that `systemCalls` does not know. */
function libcLock(descriptor: number, operation: number): number {
  const there = loadNative();
  if (!there) return -constants.errno.ENOSYS;
  libcFlock ??= there.library.func('int flock(int file, int operation)');
  const flock = libcFlock;
  return certain(
    () => flock(descriptor, operation),
    () => there.koffi.errno(),
  );
}
