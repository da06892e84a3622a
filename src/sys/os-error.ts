import { readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { DestinationError, printable } from '../errors.ts';

/** Words for an errno that are better than Node's. */
interface ErrnoRow {
  /** Words that replace Node's. */
  readonly words?: string;
  /** Advice; `elsewhere` is an imperative that names another place, where there is one: `choose another directory with -d`. */
  readonly hint?: (elsewhere: string | undefined) => string;
  /** The state of the disk. */
  readonly disk?: 'is full' | 'fails';
}

/** An imperative that works anywhere, and the one that names another place. */
function or(first: string, elsewhere: string | undefined): string {
  return elsewhere === undefined ? first : `${first}, or ${elsewhere}`;
}

const full = {
  disk: 'is full',
  hint: (elsewhere: string | undefined) => or('free some space', elsewhere),
} as const;
const failing = {
  disk: 'fails',
  hint: (elsewhere: string | undefined) => or('see what the kernel says of that disk (dmesg)', elsewhere),
} as const;
const ANOTHER = 'use another directory';
const unfit = {
  hint: (elsewhere = ANOTHER) =>
    `the file system cannot hold what an image has: ${elsewhere}, on ext4, xfs or the like`,
};

/** One row per errno(3) that says more than its name. */
const ROWS: Readonly<Record<string, ErrnoRow>> = {
  EACCES: { hint: (elsewhere) => (elsewhere === undefined ? 'run as root' : `${elsewhere}, or run as root`) },
  // What ext4 and xfs call a wrong checksum, and other damage.
  EBADMSG: { words: 'the file system is corrupt', ...failing },
  EUCLEAN: { words: 'the file system is corrupt', ...failing },
  ECONNABORTED: { words: 'connection aborted' },
  EDQUOT: { words: 'disk quota exceeded', ...full },
  EFBIG: { hint: (elsewhere = ANOTHER) => `raise the limit of file sizes (ulimit -f), or ${elsewhere}` },
  EHOSTUNREACH: { words: 'no route to host' },
  EILSEQ: unfit,
  EIO: failing,
  EMFILE: { hint: () => 'raise the limit of open files (ulimit -n)' },
  EMLINK: { hint: (elsewhere = ANOTHER) => `the file system takes no more names for one file: ${elsewhere}` },
  ENAMETOOLONG: {
    hint: (elsewhere = ANOTHER) => `the file system takes no names of that length: ${elsewhere}`,
  },
  ENFILE: { hint: () => 'the system has too many open files: try again later' },
  ENOLCK: { words: 'no locks available' },
  ENOSPC: full,
  ENOSYS: unfit,
  ENOTEMPTY: { hint: (elsewhere) => or('move it away', elsewhere) },
  EOPNOTSUPP: unfit,
  // Also what file systems without links answer, vfat and exfat: link(2), symlink(2).
  EPERM: { hint: (elsewhere = ANOTHER) => `${elsewhere}, on a disk that takes links, or run as root` },
  ESTALE: { words: 'stale file handle' },
};

/** errno(3) of Linux, which Node has no name for. */
const EUCLEAN = 117;

/** An error of the operating system. */
export interface OsError {
  /** As errno(3), above zero. */
  readonly errno: number;
  /** Such as `EIO`. */
  readonly code: string;
  /** Such as `i/o error`. */
  readonly words: string | undefined;
  /** Such as `i/o error (EIO)`; the code alone where there are no words for it. */
  readonly text: string;
  readonly disk: 'is full' | 'fails' | undefined;
  /** Advice that does not depend on what was tried; see `ErrnoRow.hint`. */
  readonly hint: (elsewhere: string | undefined) => string | undefined;
}

/** All that is known of an errno(3), negated or not. */
export function osError(errno: number): OsError {
  const number = Math.abs(errno);
  const known = getSystemErrorMap().get(-number);
  const name =
    number === EUCLEAN
      ? 'EUCLEAN'
      : Object.entries(constants.errno).find(([, value]) => value === number)?.[0];
  const code = known?.[0] ?? name ?? `errno ${number}`;
  const row = ROWS[code] ?? {};
  const words = row.words ?? known?.[1];
  return {
    errno: number,
    code,
    words,
    text: words === undefined ? code : `${words} (${code})`,
    disk: row.disk,
    hint: (elsewhere) => row.hint?.(elsewhere),
  };
}

/** As `osError`, by a code such as `ECONNRESET`; undefined for codes of other origin. */
export function osErrorByCode(code: string): OsError | undefined {
  const errno = Object.entries(constants.errno).find(([name]) => name === code)?.[1];
  return errno === undefined ? undefined : osError(errno);
}

/** A system call failed; its errno and what was being done. */
export class SyscallError extends Error {
  readonly errno: number;
  /** A verb and its object, as in "cannot …". */
  readonly action: string;

  /** `errno` may be negated. */
  constructor(errno: number, action: string) {
    super(`cannot ${action}: ${osError(errno).text}`);
    this.errno = Math.abs(errno);
    this.action = action;
  }
}

/**
 * What the operating system said, by what was thrown: by Node, or a SyscallError. Undefined for any other error, also of the
 * operating system's network, whose calls have names of their own (`getaddrinfo`).
 */
export function osErrorOf(error: unknown): OsError | undefined {
  if (error instanceof SyscallError) return osError(error.errno);
  if (!(error instanceof Error) || !('syscall' in error) || !('errno' in error)) return undefined;
  return typeof error.errno === 'number' ? osError(error.errno) : undefined;
}

/** Verbs for the calls whose names are none. */
const VERBS: Readonly<Record<string, string>> = {
  access: 'use',
  copyfile: 'copy',
  fstat: 'read',
  ftruncate: 'cut',
  lstat: 'read',
  mkdir: 'make',
  mkdtemp: 'make',
  opendir: 'read',
  readlink: 'read',
  realpath: 'find',
  rm: 'remove',
  rmdir: 'remove',
  scandir: 'read',
  stat: 'read',
  statfs: 'read',
  unlink: 'remove',
};

/**
 * What an error says of itself, fit for a terminal and in this program's words: `cannot make /srv/x: permission denied (EACCES)` where Node says
 * `EACCES: permission denied, mkdir '/srv/x'`.
 */
export function reasonOf(error: unknown): string {
  const os = osErrorOf(error);
  if (!os || error instanceof SyscallError) {
    return printable(error instanceof Error ? error.message : String(error));
  }
  const { syscall, path = '' } = error as NodeJS.ErrnoException;
  const action = VERBS[syscall!] ?? syscall!;
  return `cannot ${path === '' ? action : `${action} ${printable(namedPath(path))}`}: ${os.text}`;
}

/** The path of a name that was resolved from a descriptor: proc_pid_fd(5). */
function namedPath(path: string): string {
  const [whole, directory, rest = ''] = /^(\/proc\/self\/fd\/\d+)(\/.*)?$/s.exec(path) ?? [];
  if (whole === undefined) return path;
  try {
    return `${readlinkSync(directory!)}${rest}`;
  } catch {
    return path;
  }
}

/** Whether a system call failed with one of these: `hasErrno(error, ENOENT)`. */
export function hasErrno(error: unknown, ...errnos: readonly number[]): boolean {
  return error instanceof SyscallError && errnos.includes(error.errno);
}

/** Whether an error has one of these codes: `hasCode(error, 'ENOENT', 'ENOTDIR')`. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/**
 * `cannot ACTION: REASON` for an error of the operating system; any other error as it is.
 *
 * @param action verb and object, fit for a terminal: `write /srv/x`
 * @param elsewhere an imperative that names another place: `choose another directory with -d`
 */
export function explainOsError(error: unknown, action: string, elsewhere: string): unknown {
  const os = osErrorOf(error);
  if (!os) return error;
  const { code, text, disk } = os;
  return new DestinationError(`cannot ${action}: ${disk === 'fails' ? 'the disk fails: ' : ''}${text}`, {
    code,
    hint: os.hint(elsewhere) ?? elsewhere,
    cause: error,
  });
}
