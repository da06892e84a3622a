import { constants } from 'node:os';
import type { Native } from './native.ts';
import { O_CLOEXEC } from './os-path.ts';

const { EAGAIN, EBADF, EINTR, EIO, ETIMEDOUT } = constants.errno;

/**
 * Makes a system call with up to five arguments. Returns the kernel's result, or the negated errno; never -0.
 */
type Enter<Second = number, Third = number> = (
  number: number,
  first: number,
  second: Second,
  third: Third,
  fourth: number,
  fifth: number,
) => number;

/** Functions that make system calls. */
export interface KernelEntry {
  readonly call: Enter;
  /** The second argument is the address of bytes. */
  readonly callBytes2: Enter<Uint8Array>;
  /** The third argument is the address of bytes. */
  readonly callBytes3: Enter<number, Uint8Array>;
  /**
   * Calls close(2) exactly once: after the first call the number may be another file's. The file is closed
   * even after an error.
   */
  readonly close: (file: number) => number;
}

/** The supported processors. */
export type Architecture = 'x64' | 'arm64';

const WORD = 'intptr_t';
const PARAMETERS = {
  call: [WORD, WORD, WORD, WORD, WORD, WORD],
  callBytes2: [WORD, WORD, 'const void *', WORD, WORD, WORD],
  callBytes3: [WORD, WORD, WORD, 'const void *', WORD, WORD],
} satisfies Record<string, string[]>;
type CallName = keyof typeof PARAMETERS;

/**
 * Opens a way to make system calls without losing errno. koffi reads errno by a second call; before that, V8
 * may take a contended lock, whose futex leaves EAGAIN, EINTR, ETIMEDOUT or 0 there. A machine-code routine
 * returns the kernel's answer instead. If the system forbids such a routine, libc's `syscall` is used, and a
 * failing call is repeated until its errno is certain.
 *
 * @throws if koffi or libc lack a function
 */
export function openKernelEntry(native: Native, machine: Architecture, closeNumber: number): KernelEntry {
  try {
    const entry = routineEntry(native, machine, closeNumber);
    if (entry) return entry;
  } catch {
    // This libc has no memfd_create(3).
  }
  return libcEntry(native);
}

/**
 * Machine code of `intptr_t routine(number, a1, a2, a3, a4, a5)`, by architecture. It moves the arguments
 * from the registers of a function call to those of a system call, as libc's `syscall` does, and returns the
 * kernel's result register unchanged.
 */
const ROUTINES = {
  // endbr64; mov rax,rdi; mov r10,r8; mov rdi,rsi; mov r8,r9; mov rsi,rdx; mov rdx,rcx; syscall; ret
  x64: 'f30f1efa4889f84d89c24889f74d89c84889d64889ca0f05c3',
  // bti c; mov x8,x0; mov x0,x1; mov x1,x2; mov x2,x3; mov x3,x4; mov x4,x5; svc #0; ret
  arm64: '5f2403d5e80300aae00301aae10302aae20303aae30304aae40305aa010000d4c0035fd6',
} as const;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const F_ADD_SEALS = 1033;
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE: the file can no longer be changed. */
const ALL_SEALS = 1 | 2 | 4 | 8;
const PROT_READ_EXEC = 1 | 4;
const MAP_SHARED = 1;

/**
 * Maps the routine; undefined if the system refuses (SELinux, seccomp). Its bytes are in a sealed memfd,
 * mapped shared from a read-only descriptor: it is never writable, and mprotect(2) cannot change that. It
 * takes one page per thread, until the process ends.
 */
export function routineEntry(
  native: Native,
  machine: Architecture,
  closeNumber: number,
): KernelEntry | undefined {
  const { koffi, library } = native;
  const memfd_create = library.func('int memfd_create(const char *name, unsigned int flags)');
  const write = library.func('intptr_t write(int file, const void *bytes, size_t size)');
  const fcntl = library.func('int fcntl(int file, int command, int argument)');
  const open = library.func('int open(const char *path, int flags)');
  const close = library.func('int close(int file)');
  const mmap = library.func(
    'intptr_t mmap(intptr_t address, size_t size, int protection, int flags, int file, int64_t offset)',
  );
  const bytes = Buffer.from(ROUTINES[machine], 'hex');

  let file = memfd_create('dlrootfs', MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  // Linux before 6.3 lacks the flag that forbids executing the file.
  if (file < 0) file = memfd_create('dlrootfs', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return undefined;
  let mapped = -1;
  if (write(file, bytes, bytes.length) === bytes.length && fcntl(file, F_ADD_SEALS, ALL_SEALS) === 0) {
    const readOnly = open(`/proc/self/fd/${file}`, O_CLOEXEC);
    if (readOnly >= 0) {
      mapped = mmap(0, bytes.length, PROT_READ_EXEC, MAP_SHARED, readOnly, 0);
      close(readOnly);
    }
  }
  close(file);
  if (mapped === -1) return undefined;

  const routine = <S extends CallName>(callName: S): KernelEntry[S] =>
    koffi.decode(mapped, koffi.proto(WORD, PARAMETERS[callName])) as KernelEntry[S];
  const call = routine('call');
  const entry = {
    call,
    callBytes2: routine('callBytes2'),
    callBytes3: routine('callBytes3'),
    close: (descriptor: number) => call(closeNumber, descriptor, 0, 0, 0, 0),
  };
  return entry.close(-1) === -EBADF ? entry : undefined;
}

/** Uses libc's `syscall`, with errno read by koffi: see `callUntilCertain`. */
export function libcEntry({ koffi, library }: Native): KernelEntry {
  const answering = (callName: CallName): ((...given: unknown[]) => number) => {
    const call = library.func('syscall', WORD, PARAMETERS[callName]) as (...given: unknown[]) => number;
    return (...given) =>
      callUntilCertain(
        () => call(...given),
        () => koffi.errno(),
      );
  };
  const close = library.func('int close(int file)') as (file: number) => number;
  return {
    call: answering('call'),
    callBytes2: answering('callBytes2'),
    callBytes3: answering('callBytes3'),
    close(file) {
      if (close(file) === 0) return 0;
      const errno = koffi.errno();
      return DOUBTFUL.has(errno) ? -EIO : -errno;
    },
  };
}

/** Values of errno that a futex of V8 may leave. */
const DOUBTFUL: ReadonlySet<number> = new Set([0, EAGAIN, EINTR, ETIMEDOUT]);
const DOUBTFUL_AGREEMENT = 8;
const AGREEMENT = 2;
/** Limit on repeated calls; no failure changed its errno so often. */
const MAX_CALLS = 200;

/**
 * Returns the result of `call`, or the negated errno, although errno may change before it is read. A failing
 * call is repeated until its errno is the same twice in a row, eight times for a value that a futex leaves.
 * That is safe for the calls of this program, since a failed call has changed nothing:
 * - openat with O_EXCL, mkdirat, mknodat, symlinkat, linkat: a later success is this process's own, as if it
 *   had been the first.
 * - renameat, unlinkat: a failed call moved or removed nothing. A network file system that did it all the same
 *   answers ENOENT then, which for unlinkat is as good as success.
 * - pwrite, ftruncate, fchmod, fchown, utimensat, calls for extended attributes: twice is the same as once.
 * - flock with LOCK_NB: EWOULDBLOCK is EAGAIN, so it is called eight times. A success is a lock that is held.
 * - landlock_create_ruleset, landlock_add_rule, landlock_restrict_self, prctl: a failed call made no ruleset,
 *   no rule and no restriction.
 * - getdents64: a failure does not move the position. lseek with SEEK_DATA finds the same place again.
 * - close is the exception: see `KernelEntry.close`.
 */
export function callUntilCertain(call: () => number, errnoNow: () => number): number {
  let last = -1;
  let agreed = 0;
  for (let calls = 0; calls < MAX_CALLS; calls += 1) {
    const result = call();
    if (result >= 0) return result;
    const errno = errnoNow();
    agreed = errno === last ? agreed + 1 : 1;
    last = errno;
    if (errno !== 0 && agreed >= (DOUBTFUL.has(errno) ? DOUBTFUL_AGREEMENT : AGREEMENT)) return -errno;
  }
  return -EIO;
}
