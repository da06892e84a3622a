import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { DestinationError, IntegrityError, printable } from '../errors.ts';
import type { DlrootfsError } from '../errors.ts';

const { EACCES, EDQUOT, EEXIST, EFBIG, EINVAL, EIO, EISDIR, ELOOP, EMFILE } = constants.errno;
const { ENAMETOOLONG, ENFILE, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM, EROFS } = constants.errno;

/** The system said no: thrown inside the rootfs room, told to people by `explain`. */
export class Refusal extends Error {
  readonly errno: number;
  /** What was not possible, as in "cannot ...": a verb and its object. */
  readonly action: string;

  /** `errno` may be negated, as a Filesystem answers it. */
  constructor(errno: number, action: string) {
    super(`${action}: errno ${Math.abs(errno)}`);
    this.errno = Math.abs(errno);
    this.action = action;
  }
}

/** `result` where it is no error, else a Refusal of `action`. */
export function granted(result: number, action: string): number {
  if (result < 0) throw new Refusal(result, action);
  return result;
}

/** A path from an archive as people read it: as UTF-8, and fit for a terminal. */
export function shown(path: string): string {
  return printable(Buffer.from(path, 'latin1').toString('utf8'));
}

const full = new Set([ENOSPC, EDQUOT]);
const disk = new Set([EIO, EROFS, EMFILE, ENFILE]);
const denied = new Set([EACCES, EPERM]);
const image = new Set([ELOOP, ENOTDIR, EISDIR, ENOENT, EEXIST, EINVAL]);

const hints = {
  full: 'free some space, or choose a directory on another disk with -d',
  denied: 'choose a directory that you may write with -d, or run as root',
  longName: 'this file system takes no names of that length, choose a directory on another one with -d',
  large: 'this file system takes no files of that size, choose a directory on another one with -d',
} as const;

/**
 * The error a user sees for a refusal: an IntegrityError where the layer asks for what no file system can do, else a
 * DestinationError.
 *
 * @param where what was being written: an entry's path and the layer's name, fit for a terminal
 */
export function explain(refusal: Refusal, where: string, destination: string): DlrootfsError {
  const { errno } = refusal;
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'unknown error'];
  const message = `${where}: cannot ${refusal.action}: ${text} (${name})`;
  const code = name;
  if (full.has(errno)) {
    return new DestinationError(`the disk of ${printable(destination)} is full: ${message}`, {
      code,
      hint: hints.full,
    });
  }
  if (image.has(errno)) {
    return new IntegrityError(message, { code, hint: 'the layer is malformed, ask whoever built the image' });
  }
  const hint = denied.has(errno)
    ? hints.denied
    : errno === ENAMETOOLONG
      ? hints.longName
      : errno === EFBIG
        ? hints.large
        : errno === ENOTEMPTY
          ? 'move it away, or choose an empty directory with -d'
          : disk.has(errno)
            ? undefined
            : undefined;
  return new DestinationError(message, { code, hint });
}
