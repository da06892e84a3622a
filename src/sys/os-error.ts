import { readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { DestinationError, printable } from '../errors.ts';

/** Words and a hint for an errno. */
interface ErrnoRow {
  /** Words that replace Node's. */
  readonly words?: string;
  /**
   * Makes the hint; `elsewhere` is an imperative that names another place, if there is one: `choose another
   * directory with -d`.
   */
  readonly hint?: (elsewhere: string | undefined) => string;
  /** The state of the disk. */
  readonly disk?: 'is full' | 'fails';
}

/** Joins an imperative that works anywhere with the one that names another place. */
function or(first: string, elsewhere: string | undefined, where = ''): string {
  return elsewhere === undefined ? first : `${first}, or ${elsewhere}${where}`;
}

const ANOTHER_DISK = ', on another disk';

const full = {
  disk: 'is full',
  hint: (elsewhere: string | undefined) => or('free some space', elsewhere, ANOTHER_DISK),
} as const;
const failing = {
  disk: 'fails',
  hint: (elsewhere: string | undefined) =>
    or('see what the kernel says of that disk (dmesg)', elsewhere, ANOTHER_DISK),
} as const;
const ANOTHER = 'use another directory';
const unfit = {
  hint: (elsewhere = ANOTHER) =>
    `the file system cannot hold what an image has: ${elsewhere}, on ext4, xfs or the like`,
};

/** One row per errno(3) that needs more than Node's words. */
const ERRNO_ROWS: Readonly<Record<string, ErrnoRow>> = {
  EACCES: { hint: (elsewhere) => (elsewhere === undefined ? 'run as root' : `${elsewhere}, or run as root`) },
  // The errors of ext4 and xfs for a wrong checksum and other damage.
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
  // Also the answer of file systems without links, vfat and exfat: link(2), symlink(2).
  EPERM: { hint: (elsewhere = ANOTHER) => `${elsewhere}, on a disk that takes links, or run as root` },
  ESTALE: { words: 'stale file handle' },
};

/** An errno(3) of Linux that Node has no name for. */
const EUCLEAN = 117;

/** An error of the operating system. */
export interface OsError {
  /** The errno(3), positive. */
  readonly errno: number;
  /** Such as `EIO`. */
  readonly code: string;
  /** Such as `i/o error`. */
  readonly words: string | undefined;
  /** Such as `i/o error (EIO)`; only the code if no words are known. */
  readonly text: string;
  readonly disk: 'is full' | 'fails' | undefined;
  /** A hint that fits any action; see `ErrnoRow.hint`. */
  readonly hint: (elsewhere: string | undefined) => string | undefined;
}

/** Describes an errno(3), negated or not. */
export function osError(errno: number): OsError {
  const number = Math.abs(errno);
  const known = getSystemErrorMap().get(-number);
  const name =
    number === EUCLEAN
      ? 'EUCLEAN'
      : Object.entries(constants.errno).find(([, value]) => value === number)?.[0];
  const code = known?.[0] ?? name ?? `errno ${number}`;
  const row = ERRNO_ROWS[code] ?? {};
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

/** Describes an error by a code such as `ECONNRESET`; undefined for codes of other origin. */
export function osErrorByCode(code: string): OsError | undefined {
  const errno = Object.entries(constants.errno).find(([name]) => name === code)?.[1];
  return errno === undefined ? undefined : osError(errno);
}

/** A failed system call, with its errno and the action. */
export class SyscallError extends Error {
  readonly errno: number;
  /** A verb and its object, after "cannot". */
  readonly action: string;

  /** @param errno may be negated */
  constructor(errno: number, action: string) {
    super(`cannot ${action}: ${osError(errno).text}`);
    this.errno = Math.abs(errno);
    this.action = action;
  }
}

/**
 * Describes a thrown error of the operating system: one of Node with an errno, or a SyscallError; undefined
 * for any other.
 */
export function osErrorOf(error: unknown): OsError | undefined {
  if (error instanceof SyscallError) return osError(error.errno);
  if (!(error instanceof Error) || !('syscall' in error) || !('errno' in error)) return undefined;
  return typeof error.errno === 'number' ? osError(error.errno) : undefined;
}

/** Verbs for calls whose names are no verbs. */
const VERBS: Readonly<Record<string, string>> = {
  access: 'use',
  fstat: 'read',
  ftruncate: 'cut',
  lstat: 'read',
  mkdir: 'make',
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
 * Returns the printable reason in an error, in this program's words: `cannot make /srv/x: permission denied
 * (EACCES)` for Node's `EACCES: permission denied, mkdir '/srv/x'`.
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

/** Replaces a descriptor in a path by the directory's name: proc_pid_fd(5). */
function namedPath(path: string): string {
  const [whole, directory, rest = ''] = /^(\/proc\/self\/fd\/\d+)(\/.*)?$/s.exec(path) ?? [];
  if (whole === undefined) return path;
  try {
    return `${readlinkSync(directory!)}${rest}`;
  } catch {
    return path;
  }
}

/** True if a system call failed with one of these: `hasErrno(error, ENOENT)`. */
export function hasErrno(error: unknown, ...errnos: readonly number[]): boolean {
  return error instanceof SyscallError && errnos.includes(error.errno);
}

/** True if an error has one of these codes: `hasCode(error, 'ENOENT', 'ENOTDIR')`. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/**
 * Returns `cannot ACTION: REASON` as a DestinationError for an error of the operating system; any other error
 * unchanged.
 *
 * @param action verb and object, printable: `write /srv/x`
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
