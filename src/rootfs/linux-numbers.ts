import { constants } from 'node:fs';
import { arch } from 'node:os';

// Numbers of Linux's headers that Node does not tell: the same on x64 and arm64, but for the calls.
export const O_CLOEXEC = 0o2_000_000;
export const O_PATH = 0o10_000_000;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_REMOVEDIR = 0x200;
export const STATX_BASIC_STATS = 0x7ff;
export const LOCK_EX_NB = 2 | 4;

/** For a descriptor that only names something. */
export const openPath = O_PATH | constants.O_NOFOLLOW | O_CLOEXEC;

/** Numbers of the calls that not every libc has a function for. */
export const calls =
  arch() === 'arm64'
    ? { mknodat: 33, getdents64: 61, fchmodat2: 452 }
    : { mknodat: 259, getdents64: 217, fchmodat2: 452 };
