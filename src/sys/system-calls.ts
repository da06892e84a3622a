import { existsSync } from 'node:fs';
import { arch, constants, platform } from 'node:os';
import { callUntilCertain, openKernelEntry, type KernelEntry, type Architecture } from './kernel-entry.ts';
import { loadNative, type Native } from './native.ts';

/** The address of bytes that do not move. The caller keeps them referenced until the call returns. */
export type Address = number;

// Numbers of Linux's headers that Node does not have: the same on x64 and arm64.
export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_REMOVEDIR = 0x200;
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const FS_IOC_GETFLAGS = 0x8008_6601;
export const FS_IOC_SETFLAGS = 0x4008_6602;
/** Attributes of inodes: immutable, append only (ioctl_iflags(2)). */
export const FS_PROTECTED = 0x30;
export const SEEK_DATA = 3;
export const STATX_BASIC_STATS = 0x7ff;

/** A system call: its numbers, and its arguments by their names in the manual page. */
interface Call<Arguments extends readonly unknown[]> {
  readonly numbers: readonly [x64: number, arm64: number];
  /** The argument that is bytes instead of their address. */
  readonly bytesAt: 2 | 3 | undefined;
  /** Only a type; never set. */
  readonly arguments?: Arguments;
}

function call<Arguments extends readonly unknown[]>(
  x64: number,
  arm64: number,
  bytesAt?: 2 | 3,
): Call<Arguments> {
  return { numbers: [x64, arm64], bytesAt };
}

type Path = [directory: number, path: Address];
type OldAndNew = [oldDirectory: number, oldPath: Address, directory: number, path: Address];

/** From syscall_64.tbl and asm-generic/unistd.h of Linux. */
const CALLS = {
  close: call<[file: number]>(3, 57),
  fchmod: call<[file: number, mode: number]>(91, 52),
  fchmodat: call<[...Path, mode: number]>(268, 53),
  fchmodat2: call<[...Path, mode: number, flags: number]>(452, 452),
  fchown: call<[file: number, uid: number, gid: number]>(93, 55),
  fchownat: call<[...Path, uid: number, gid: number, flags: number]>(260, 54),
  flock: call<[file: number, operation: number]>(73, 32),
  fremovexattr: call<[file: number, name: Address]>(199, 16),
  fsetxattr: call<[file: number, name: Address, value: Uint8Array, size: number]>(190, 7, 3),
  fstatfs: call<[file: number, buffer: Address]>(138, 44),
  ftruncate: call<[file: number, size: number]>(77, 46),
  getdents64: call<[directory: number, buffer: Address, size: number]>(217, 61),
  ioctl: call<[file: number, request: number, argument: Address]>(16, 29),
  landlock_add_rule: call<[ruleset: number, type: number, rule: Address, flags: number]>(445, 445),
  landlock_create_ruleset: call<[rights: Address, size: number, flags: number]>(444, 444),
  landlock_restrict_self: call<[ruleset: number, flags: number]>(446, 446),
  lgetxattr: call<[path: Address, name: Address, value: Address, size: number]>(192, 9),
  linkat: call<OldAndNew>(265, 37),
  listxattrat: call<[...Path, flags: number, buffer: Address, size: number]>(465, 465),
  llistxattr: call<[path: Address, buffer: Address, size: number]>(195, 12),
  lremovexattr: call<[path: Address, name: Address]>(198, 15),
  lseek: call<[file: number, position: number, whence: number]>(8, 62),
  lsetxattr: call<[path: Address, name: Address, value: Uint8Array, size: number]>(189, 6, 3),
  mkdirat: call<[...Path, mode: number]>(258, 34),
  mknodat: call<[...Path, mode: number, device: number]>(259, 33),
  openat: call<[...Path, flags: number, mode: number]>(257, 56),
  prctl: call<[option: number, value: number, third: 0, fourth: 0, fifth: 0]>(157, 167),
  pwrite: call<[file: number, bytes: Uint8Array, size: number, position: number]>(18, 68, 2),
  readlinkat: call<[...Path, buffer: Address, size: number]>(267, 78),
  renameat: call<OldAndNew>(264, 38),
  renameat2: call<[...OldAndNew, flags: number]>(316, 276),
  statx: call<[...Path, flags: number, mask: number, buffer: Address]>(332, 291),
  symlinkat: call<[target: Address, directory: number, path: Address]>(266, 36),
  unlinkat: call<[...Path, flags: number]>(263, 35),
  utimensat: call<[...Path, times: Address, flags: number]>(280, 88),
};

/** Linux's system calls. Each returns the kernel's result, or the negated errno. */
export type SystemCalls = {
  readonly [Name in keyof typeof CALLS]: (typeof CALLS)[Name] extends Call<infer Arguments>
    ? (...given: Arguments) => number
    : never;
} & {
  address(memory: Uint8Array): Address;
  /** Closes the descriptor, even if it returns an error. */
  close(file: number): number;
};

let calls: { readonly found: SystemCalls | undefined } | undefined;

/**
 * Returns the system calls, one object per thread. Undefined if they cannot be made: not Linux on x64 or
 * arm64, no koffi for it, or no /proc, through which modes and attributes of links and directories are set.
 */
export function systemCalls(): SystemCalls | undefined {
  calls ??= { found: openSystemCalls(openKernelEntry) };
  return calls.found;
}

/** Opens the system calls with another `KernelEntry`, for tests. */
export function openSystemCalls(
  open: (native: Native, machine: Architecture, closeNumber: number) => KernelEntry | undefined,
): SystemCalls | undefined {
  const machine = arch();
  if (platform() !== 'linux' || (machine !== 'x64' && machine !== 'arm64')) return undefined;
  if (!existsSync('/proc/self/fd')) return undefined;
  const native = loadNative();
  if (!native) return undefined;
  const column = machine === 'x64' ? 0 : 1;
  try {
    const entry = open(native, machine, CALLS.close.numbers[column]);
    if (!entry) return undefined;
    const entries = Object.entries(CALLS).map(([name, { numbers, bytesAt }]) => [
      name,
      throughEntry(entry, numbers[column], bytesAt),
    ]);
    return {
      ...(Object.fromEntries(entries) as SystemCalls),
      address: (memory) => Number(native.koffi.address(memory)),
      close: entry.close,
    };
  } catch {
    return undefined;
  }
}

function throughEntry(
  { call: enter, callBytes2, callBytes3 }: KernelEntry,
  number: number,
  bytesAt: 2 | 3 | undefined,
): unknown {
  if (bytesAt === 2)
    return (a: number, bytes: Uint8Array, c: number, d: number) => callBytes2(number, a, bytes, c, d, 0);
  if (bytesAt === 3)
    return (a: number, b: number, bytes: Uint8Array, d: number) => callBytes3(number, a, b, bytes, d, 0);
  return (a: number, b = 0, c = 0, d = 0, e = 0) => enter(number, a, b, c, d, e);
}

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * The result of locking a whole file without waiting; `unsupported`: the platform or the file system has no
 * locks.
 */
export type LockResult = 'locked' | 'busy' | 'unsupported';

/** Locks a file by flock(2) until the descriptor is closed, or the process ends in any way. */
export function lockFile(descriptor: number, mode: 'exclusive' | 'shared'): LockResult {
  const operation = (mode === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB;
  const direct = platform() === 'linux' ? systemCalls()?.flock(descriptor, operation) : undefined;
  const answer = direct ?? libcLock(descriptor, operation);
  if (answer >= 0) return 'locked';
  return answer === -constants.errno.EWOULDBLOCK ? 'busy' : 'unsupported';
}

let libcFlock: ((descriptor: number, operation: number) => number) | undefined;

/** Calls libc's flock: on macOS, and on processors that `systemCalls` does not support. */
function libcLock(descriptor: number, operation: number): number {
  const there = loadNative();
  if (!there) return -constants.errno.ENOSYS;
  libcFlock ??= there.library.func('int flock(int file, int operation)');
  const flock = libcFlock;
  return callUntilCertain(
    () => flock(descriptor, operation),
    () => there.koffi.errno(),
  );
}
