import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { DestinationError } from '../errors.ts';

/** Words for an errno that are better than Node's. */
interface Row {
  /** Words that replace Node's. */
  readonly words?: string;
  /** What a person can do; `elsewhere` is an imperative that names another place, such as `choose another directory with -d`. */
  readonly hint?: (elsewhere: string) => string;
  /** The state of the disk. */
  readonly disk?: 'is full' | 'fails';
}

const full = { disk: 'is full', hint: (elsewhere: string) => `free some space, or ${elsewhere}` } as const;
const unfit = {
  hint: (elsewhere: string) =>
    `the file system cannot hold what an image has: ${elsewhere}, on ext4, xfs or the like`,
};

/** One row per errno(3) that says more than its name. */
const ROWS: Readonly<Record<string, Row>> = {
  EACCES: { hint: (elsewhere) => `${elsewhere}, or run as root` },
  EDQUOT: { words: 'disk quota exceeded', ...full },
  EFBIG: { hint: (elsewhere) => `the file system takes no files of that size: ${elsewhere}` },
  EILSEQ: unfit,
  EIO: {
    disk: 'fails',
    hint: (elsewhere) => `see what the kernel says of that disk (dmesg), or ${elsewhere}`,
  },
  EMFILE: { hint: () => 'raise the limit of open files (ulimit -n)' },
  EMLINK: { hint: (elsewhere) => `the file system takes no more names for one file: ${elsewhere}` },
  ENAMETOOLONG: { hint: (elsewhere) => `the file system takes no names of that length: ${elsewhere}` },
  ENFILE: { hint: () => 'the system has too many open files: try again later' },
  ENOSPC: full,
  ENOSYS: unfit,
  ENOTEMPTY: { hint: (elsewhere) => `move it away, or ${elsewhere}` },
  EOPNOTSUPP: unfit,
  // Also what file systems without links answer, vfat and exfat: link(2), symlink(2).
  EPERM: { hint: (elsewhere) => `${elsewhere}, on a disk that takes links, or run as root` },
  ESTALE: { words: 'stale file handle' },
};

/** An error of the operating system. */
export interface OsError {
  /** As errno(3), above zero. */
  readonly errno: number;
  /** Such as `EIO`. */
  readonly code: string;
  /** Such as `i/o error (EIO)`. */
  readonly text: string;
  readonly disk: 'is full' | 'fails' | undefined;
  /** What a person can do, where that does not depend on what was tried; see `Row.hint`. */
  readonly hint: (elsewhere: string) => string | undefined;
}

/** All that is known of an errno(3), negated or not. */
export function osError(errno: number): OsError {
  const number = Math.abs(errno);
  const known = getSystemErrorMap().get(-number);
  const name = Object.entries(constants.errno).find(([, value]) => value === number)?.[0];
  const code = known?.[0] ?? name ?? `errno ${number}`;
  const row = ROWS[code] ?? {};
  return {
    errno: number,
    code,
    text: `${row.words ?? known?.[1] ?? 'unknown error'} (${code})`,
    disk: row.disk,
    hint: (elsewhere) => row.hint?.(elsewhere),
  };
}

/** A system call failed; its errno and what was being done. */
export class SyscallError extends Error {
  readonly errno: number;
  /** What was not possible, as in "cannot …": a verb and its object. */
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

/** Whether a system call failed with one of these: `hasErrno(error, ENOENT)`. */
export function hasErrno(error: unknown, ...errnos: readonly number[]): boolean {
  return error instanceof SyscallError && errnos.includes(error.errno);
}

/** Whether an error has one of these codes: `hasCode(error, 'ENOENT', 'ENOTDIR')`. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/** For `promise.catch(unlessCode('ENOENT'))`: undefined for these codes; throws any other error. */
export function unlessCode(...codes: readonly string[]): (error: unknown) => undefined {
  return (error) => {
    if (!hasCode(error, ...codes)) throw error;
  };
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
