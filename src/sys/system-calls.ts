import { existsSync } from 'node:fs';
import { arch, constants, platform } from 'node:os';
import { certain, openKernelEntry, type KernelEntry, type Machine } from './kernel-entry.ts';
import { loadNative, type Native } from './native.ts';

/** The address of bytes that do not move: the caller keeps them referenced until the call has returned. */
export type Address = number;

/**
 * Linux's system calls, each by the name of its manual page. Each returns the kernel's result, or the negated errno.
 */
export interface SystemCalls {
  address(memory: Uint8Array): Address;
  openat(directory: number, path: Address, flags: number, mode: number): number;
  /** Closes the descriptor also when it returns an error. */
  close(file: number): number;
  mkdirat(directory: number, path: Address, mode: number): number;
  mknodat(directory: number, path: Address, mode: number, device: number): number;
  symlinkat(target: Address, directory: number, path: Address): number;
  linkat(oldDirectory: number, oldPath: Address, directory: number, path: Address): number;
  renameat(oldDirectory: number, oldPath: Address, directory: number, path: Address): number;
  renameat2(oldDirectory: number, oldPath: Address, directory: number, path: Address, flags: number): number;
  unlinkat(directory: number, path: Address, flags: number): number;
  readlinkat(directory: number, path: Address, buffer: Address, size: number): number;
  statx(directory: number, path: Address, flags: number, mask: number, buffer: Address): number;
  fstatfs(file: number, buffer: Address): number;
  getdents64(directory: number, buffer: Address, size: number): number;
  fchownat(directory: number, path: Address, uid: number, gid: number, flags: number): number;
  fchown(file: number, uid: number, gid: number): number;
  chmod(path: Address, mode: number): number;
  fchmod(file: number, mode: number): number;
  fchmodat2(directory: number, path: Address, mode: number, flags: number): number;
  utimensat(directory: number, path: Address, times: Address, flags: number): number;
  futimens(file: number, times: Address): number;
  lsetxattr(path: Address, name: Address, value: Uint8Array, size: number): number;
  fsetxattr(file: number, name: Address, value: Uint8Array, size: number): number;
  lgetxattr(path: Address, name: Address, value: Address, size: number): number;
  llistxattr(path: Address, buffer: Address, size: number): number;
  listxattrat(directory: number, path: Address, flags: number, buffer: Address, size: number): number;
  lremovexattr(path: Address, name: Address): number;
  fremovexattr(file: number, name: Address): number;
  pwrite(file: number, bytes: Uint8Array, size: number, position: number): number;
  ftruncate(file: number, size: number): number;
  lseek(file: number, position: number, whence: number): number;
  flock(file: number, operation: number): number;
  ioctl(file: number, request: number, argument: Address): number;
}

// Numbers of Linux's headers that Node does not have: the same on x64 and arm64.
export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_REMOVEDIR = 0x200;
export const O_CLOEXEC = 0o2_000_000;
export const O_PATH = 0o10_000_000;
export const RENAME_EXCHANGE = 2;
export const FS_IOC_GETFLAGS = 0x8008_6601;
export const FS_IOC_SETFLAGS = 0x4008_6602;
/** Attributes of inodes: immutable, append only (ioctl_iflags(2)). */
export const FS_PROTECTED = 0x30;
export const SEEK_DATA = 3;
export const STATX_BASIC_STATS = 0x7ff;

/** Numbers of the calls on x64 and arm64: syscall_64.tbl and asm-generic/unistd.h of Linux. */
const NUMBERS = {
  close: [3, 57],
  fchmod: [91, 52],
  fchmodat: [268, 53],
  fchmodat2: [452, 452],
  fchown: [93, 55],
  fchownat: [260, 54],
  flock: [73, 32],
  fremovexattr: [199, 16],
  fsetxattr: [190, 7],
  fstatfs: [138, 44],
  ftruncate: [77, 46],
  getdents64: [217, 61],
  ioctl: [16, 29],
  lgetxattr: [192, 9],
  linkat: [265, 37],
  listxattrat: [465, 465],
  llistxattr: [195, 12],
  lremovexattr: [198, 15],
  lseek: [8, 62],
  lsetxattr: [189, 6],
  mkdirat: [258, 34],
  mknodat: [259, 33],
  openat: [257, 56],
  pwrite64: [18, 68],
  readlinkat: [267, 78],
  renameat: [264, 38],
  renameat2: [316, 276],
  statx: [332, 291],
  symlinkat: [266, 36],
  unlinkat: [263, 35],
  utimensat: [280, 88],
} as const;
type Numbers = Readonly<Record<keyof typeof NUMBERS, number>>;

let calls: { readonly found: SystemCalls | undefined } | undefined;

/**
 * The system calls, the same object for all of this thread. Undefined where they cannot be made: not Linux on x64 or arm64, no koffi for it,
 * or no /proc, through which the modes and attributes of links and directories are set.
 */
export function systemCalls(): SystemCalls | undefined {
  calls ??= { found: openSystemCalls(openKernelEntry) };
  return calls.found;
}

/** `systemCalls` with another way into the kernel, for tests. */
export function openSystemCalls(
  open: (native: Native, machine: Machine, closeNumber: number) => KernelEntry | undefined,
): SystemCalls | undefined {
  const machine = arch();
  if (platform() !== 'linux' || (machine !== 'x64' && machine !== 'arm64')) return undefined;
  if (!existsSync('/proc/self/fd')) return undefined;
  const native = loadNative();
  if (!native) return undefined;
  const entries = Object.entries(NUMBERS).map(([name, of]) => [name, of[machine === 'x64' ? 0 : 1]]);
  const numbers = Object.fromEntries(entries) as Numbers;
  try {
    const entry = open(native, machine, numbers.close);
    return entry && callsThrough(entry, numbers, (memory) => Number(native.koffi.address(memory)));
  } catch {
    return undefined;
  }
}

function callsThrough(
  { call, callBytes2, callBytes3, close }: KernelEntry,
  n: Numbers,
  address: (memory: Uint8Array) => number,
): SystemCalls {
  return {
    address,
    close,
    openat: (directory, path, flags, mode) => call(n.openat, directory, path, flags, mode, 0),
    mkdirat: (directory, path, mode) => call(n.mkdirat, directory, path, mode, 0, 0),
    mknodat: (directory, path, mode, device) => call(n.mknodat, directory, path, mode, device, 0),
    symlinkat: (target, directory, path) => call(n.symlinkat, target, directory, path, 0, 0),
    linkat: (oldDirectory, oldPath, directory, path) =>
      call(n.linkat, oldDirectory, oldPath, directory, path, 0),
    renameat: (oldDirectory, oldPath, directory, path) =>
      call(n.renameat, oldDirectory, oldPath, directory, path, 0),
    renameat2: (oldDirectory, oldPath, directory, path, flags) =>
      call(n.renameat2, oldDirectory, oldPath, directory, path, flags),
    unlinkat: (directory, path, flags) => call(n.unlinkat, directory, path, flags, 0, 0),
    readlinkat: (directory, path, buffer, size) => call(n.readlinkat, directory, path, buffer, size, 0),
    statx: (directory, path, flags, mask, buffer) => call(n.statx, directory, path, flags, mask, buffer),
    fstatfs: (file, buffer) => call(n.fstatfs, file, buffer, 0, 0, 0),
    getdents64: (directory, buffer, size) => call(n.getdents64, directory, buffer, size, 0, 0),
    fchownat: (directory, path, uid, gid, flags) => call(n.fchownat, directory, path, uid, gid, flags),
    fchown: (file, uid, gid) => call(n.fchown, file, uid, gid, 0, 0),
    chmod: (path, mode) => call(n.fchmodat, AT_FDCWD, path, mode, 0, 0),
    fchmod: (file, mode) => call(n.fchmod, file, mode, 0, 0, 0),
    fchmodat2: (directory, path, mode, flags) => call(n.fchmodat2, directory, path, mode, flags, 0),
    utimensat: (directory, path, times, flags) => call(n.utimensat, directory, path, times, flags, 0),
    futimens: (file, times) => call(n.utimensat, file, 0, times, 0, 0),
    lsetxattr: (path, name, value, size) => callBytes3(n.lsetxattr, path, name, value, size, 0),
    fsetxattr: (file, name, value, size) => callBytes3(n.fsetxattr, file, name, value, size, 0),
    lgetxattr: (path, name, value, size) => call(n.lgetxattr, path, name, value, size, 0),
    llistxattr: (path, buffer, size) => call(n.llistxattr, path, buffer, size, 0, 0),
    listxattrat: (directory, path, flags, buffer, size) =>
      call(n.listxattrat, directory, path, flags, buffer, size),
    lremovexattr: (path, name) => call(n.lremovexattr, path, name, 0, 0, 0),
    fremovexattr: (file, name) => call(n.fremovexattr, file, name, 0, 0, 0),
    pwrite: (file, bytes, size, position) => callBytes2(n.pwrite64, file, bytes, size, position, 0),
    ftruncate: (file, size) => call(n.ftruncate, file, size, 0, 0, 0),
    lseek: (file, position, whence) => call(n.lseek, file, position, whence, 0, 0),
    flock: (file, operation) => call(n.flock, file, operation, 0, 0, 0),
    ioctl: (file, request, argument) => call(n.ioctl, file, request, argument, 0, 0),
  };
}

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
