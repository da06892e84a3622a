import { DestinationError, IntegrityError, printable } from '../errors.ts';
import { SyscallError, osError } from '../sys/os-error.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';

/** `result` where it is no error, else a SyscallError of `action`. */
export function granted(result: number, action: string): number {
  if (result < 0) throw new SyscallError(result, action);
  return result;
}

/** The error for what a layer asks and no system can do, told in the words of the system. */
export function impossible(errno: number, action: string): IntegrityError {
  const { code, text } = osError(errno);
  return new IntegrityError(`cannot ${action}: ${text}`, {
    code,
    hint: 'the layer is malformed, ask whoever built the image',
  });
}

const ELSEWHERE = 'choose a directory on another disk with -d';

/**
 * The error a user sees for a failed system call.
 *
 * @param where what was being written, fit for a terminal: a layer and the path of an entry; undefined: nothing in particular
 */
export function explain(
  failure: SyscallError,
  where: string | undefined,
  destination: string,
): DestinationError {
  const { code, text, disk, hint } = osError(failure.errno);
  const place = disk
    ? `the disk of ${printable(destination)} ${disk}`
    : where
      ? undefined
      : printable(destination);
  const parts = [place, where, `cannot ${failure.action}: ${text}`];
  return new DestinationError(parts.filter((part) => part !== undefined).join(': '), {
    code,
    hint: hint(ELSEWHERE),
    cause: failure,
  });
}

/** A path from an archive as people read it: as UTF-8, and fit for a terminal. */
export function shown(path: string): string {
  return displayPath(path as BytePath);
}
