import { existsSync } from 'node:fs';
import { arch, platform } from 'node:os';
import { loadKoffi } from './koffi.ts';

type Address = number;

/** The functions of libc that the Linux back end calls. Addresses are numbers; `errno` tells why the last call answered -1. */
export interface Libc {
  address(memory: Uint8Array): Address;
  errno(): number;
  open(path: Address, flags: number): number;
  openat(directory: number, path: Address, flags: number, mode: number): number;
  close(file: number): number;
  mkdirat(directory: number, path: Address, mode: number): number;
  symlinkat(target: Address, directory: number, path: Address): number;
  linkat(oldDirectory: number, oldPath: Address, directory: number, path: Address, flags: number): number;
  renameat(oldDirectory: number, oldPath: Address, directory: number, path: Address): number;
  unlinkat(directory: number, path: Address, flags: number): number;
  readlinkat(directory: number, path: Address, buffer: Address, size: number): number;
  statx(directory: number, path: Address, flags: number, mask: number, buffer: Address): number;
  fstatfs(file: number, buffer: Address): number;
  fchownat(directory: number, path: Address, uid: number, gid: number, flags: number): number;
  fchown(file: number, uid: number, gid: number): number;
  chmod(path: Address, mode: number): number;
  fchmod(file: number, mode: number): number;
  utimensat(directory: number, path: Address, times: Address, flags: number): number;
  futimens(file: number, times: Address): number;
  lsetxattr(path: Address, name: Address, value: Uint8Array, size: number, flags: number): number;
  fsetxattr(file: number, name: Address, value: Uint8Array, size: number, flags: number): number;
  lgetxattr(path: Address, name: Address, value: Address, size: number): number;
  llistxattr(path: Address, buffer: Address, size: number): number;
  lremovexattr(path: Address, name: Address): number;
  fremovexattr(file: number, name: Address): number;
  pwrite(file: number, bytes: Uint8Array, size: number, position: number): number;
  ftruncate(file: number, size: number): number;
  flock(file: number, operation: number): number;
  /** mknodat(2), getdents64(2) and fchmodat2(2): not in every libc. */
  syscall(call: number, directory: number, path: Address, third: number, fourth: number): number;
}

const prototypes = [
  'int open(intptr_t path, int flags)',
  'int openat(int directory, intptr_t path, int flags, unsigned int mode)',
  'int close(int file)',
  'int mkdirat(int directory, intptr_t path, unsigned int mode)',
  'int symlinkat(intptr_t target, int directory, intptr_t path)',
  'int linkat(int old_directory, intptr_t old_path, int directory, intptr_t path, int flags)',
  'int renameat(int old_directory, intptr_t old_path, int directory, intptr_t path)',
  'int unlinkat(int directory, intptr_t path, int flags)',
  'intptr_t readlinkat(int directory, intptr_t path, intptr_t buffer, size_t size)',
  'int statx(int directory, intptr_t path, int flags, unsigned int mask, intptr_t buffer)',
  'int fstatfs(int file, intptr_t buffer)',
  'int fchownat(int directory, intptr_t path, unsigned int uid, unsigned int gid, int flags)',
  'int fchown(int file, unsigned int uid, unsigned int gid)',
  'int chmod(intptr_t path, unsigned int mode)',
  'int fchmod(int file, unsigned int mode)',
  'int utimensat(int directory, intptr_t path, intptr_t times, int flags)',
  'int futimens(int file, intptr_t times)',
  'int lsetxattr(intptr_t path, intptr_t name, const void *value, size_t size, int flags)',
  'int fsetxattr(int file, intptr_t name, const void *value, size_t size, int flags)',
  'intptr_t lgetxattr(intptr_t path, intptr_t name, intptr_t value, size_t size)',
  'intptr_t llistxattr(intptr_t path, intptr_t buffer, size_t size)',
  'int lremovexattr(intptr_t path, intptr_t name)',
  'int fremovexattr(int file, intptr_t name)',
  'intptr_t pwrite(int file, const void *bytes, size_t size, int64_t position)',
  'int ftruncate(int file, int64_t size)',
  'int flock(int file, int operation)',
  'intptr_t syscall(intptr_t call, intptr_t directory, intptr_t path, intptr_t third, intptr_t fourth)',
] as const;

/**
 * libc of this process, or undefined where it cannot be called: not Linux on x64 or arm64, no koffi for it, or no /proc, through
 * which the modes and attributes of links and directories are set.
 */
export function loadLibc(): Libc | undefined {
  if (platform() !== 'linux' || (arch() !== 'x64' && arch() !== 'arm64')) return undefined;
  if (!existsSync('/proc/self/fd')) return undefined;
  try {
    const koffi = loadKoffi();
    const library = koffi.load(null);
    const functions = prototypes.map((prototype) => library.func(prototype));
    return Object.assign(
      {
        address: (memory: Uint8Array) => Number(koffi.address(memory)),
        errno: () => koffi.errno(),
      },
      Object.fromEntries(functions.map((call) => [call.info.name, call])),
    ) as unknown as Libc;
  } catch {
    return undefined;
  }
}
