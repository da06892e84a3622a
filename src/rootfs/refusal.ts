import { constants } from 'node:os';
import { DestinationError, IntegrityError, printable, seeKernelLog, systemError } from '../errors.ts';
import type { BytePath } from '../tar/entry.ts';
import { displayPath } from '../tar/byte-path.ts';

const {
  EACCES,
  EDQUOT,
  EFBIG,
  EILSEQ,
  EIO,
  EMFILE,
  EMLINK,
  ENAMETOOLONG,
  ENFILE,
  ENOSPC,
  ENOSYS,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
} = constants.errno;

/** The system said no: thrown inside the rootfs room, told to people by `explain`. */
export class Refusal extends Error {
  readonly errno: number;
  /** What was not possible, as in "cannot ...": a verb and its object. */
  readonly action: string;

  /** `errno` may be negated, as a Filesystem answers it. */
  constructor(errno: number, action: string) {
    super(`cannot ${action}: ${systemError(errno).text}`);
    this.errno = Math.abs(errno);
    this.action = action;
  }
}

/** `result` where it is no error, else a Refusal of `action`. */
export function granted(result: number, action: string): number {
  if (result < 0) throw new Refusal(result, action);
  return result;
}

/** The error for what a layer asks and no system can do, told in the words of the system. */
export function impossible(errno: number, action: string): IntegrityError {
  const { code, text } = systemError(errno);
  return new IntegrityError(`cannot ${action}: ${text}`, {
    code,
    hint: 'the layer is malformed, ask whoever built the image',
  });
}

const elsewhere = 'choose a directory on another disk with -d';
const unfit =
  'the file system cannot hold what an image has, choose a directory on ext4, xfs or the like with -d';
const hints: ReadonlyMap<number, string> = new Map([
  [ENOSPC, `free some space, or ${elsewhere}`],
  [EDQUOT, `free some space, or ${elsewhere}`],
  [EIO, `${seeKernelLog}, or ${elsewhere}`],
  [EACCES, 'choose a directory that you may write with -d, or run as root'],
  // Also what file systems without links answer, vfat and exfat: link(2), symlink(2).
  [EPERM, 'choose a directory with -d that you may write, on a disk that takes links, or run as root'],
  [ENOSYS, unfit],
  [EOPNOTSUPP, unfit],
  [EILSEQ, unfit],
  [ENAMETOOLONG, `the file system takes no names of that length, ${elsewhere}`],
  [EFBIG, `the file system takes no files of that size, ${elsewhere}`],
  [EMLINK, `the file system takes no more names for one file, ${elsewhere}`],
  [ENOTEMPTY, 'move it away, or choose an empty directory with -d'],
  [EMFILE, 'raise the limit of open files (ulimit -n)'],
  [ENFILE, 'the system has too many open files, try again later'],
]);

/**
 * The error a user sees for a refusal.
 *
 * @param where what was being written, fit for a terminal: a layer and the path of an entry; undefined: nothing in particular
 */
export function explain(refusal: Refusal, where: string | undefined, destination: string): DestinationError {
  const { code, text } = systemError(refusal.errno);
  const { errno } = refusal;
  const disk = errno === EIO ? 'fails' : errno === ENOSPC || errno === EDQUOT ? 'is full' : undefined;
  const place = disk
    ? `the disk of ${printable(destination)} ${disk}`
    : where
      ? undefined
      : printable(destination);
  const parts = [place, where, `cannot ${refusal.action}: ${text}`];
  return new DestinationError(parts.filter((part) => part !== undefined).join(': '), {
    code,
    hint: hints.get(refusal.errno),
    cause: refusal,
  });
}

/** A path from an archive as people read it: as UTF-8, and fit for a terminal. */
export function shown(path: string): string {
  return displayPath(path as BytePath);
}
