import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import { osError } from '../sys/os-error.ts';

const elsewhere = 'choose a directory on another disk with -d';

/** What simple-git threw, as an error a person can act on; what the signal threw, as it is. */
export function asGitError(error: unknown, what: string, hint?: string): Error {
  if (error instanceof GitError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const said = printable(text.trim().replaceAll(/\s*\n\s*/g, '; '), 300);
  const full = /no space left on device|disk quota exceeded|ENOSPC|EDQUOT|system error -122/i.test(text);
  const dead = /input\/output error|EIO/i.test(text);
  const disk = full ? 'the disk is full: ' : dead ? 'the disk fails: ' : '';
  return new GitError(`${disk}${full || said === '' ? what : `${what}: ${said}`}`, {
    code: full ? 'ENOSPC' : dead ? 'EIO' : 'GIT_FAILED',
    hint: full ? `free space, or ${elsewhere}` : dead ? osError(constants.errno.EIO).hint(elsewhere) : hint,
    cause: error,
  });
}
