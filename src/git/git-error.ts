import { constants } from 'node:os';
import { DestinationError, GitError, printable } from '../errors.ts';
import { SyscallError, osError } from '../sys/os-error.ts';

const elsewhere = 'choose a directory on another disk with -d';

/** What simple-git, the system or another room threw, as an error a person can act on. */
export function asGitError(error: unknown, what: string, hint?: string): Error {
  if (error instanceof SyscallError) return asGitError(refused(error.action, error.errno), what, hint);
  const text = error instanceof Error ? error.message : String(error);
  const said = printable(text.trim().replaceAll(/\s*\n\s*/g, '; '), 300);
  const full = /no space left on device|disk quota exceeded|ENOSPC|EDQUOT|system error -122/i.test(text);
  const dead = /input\/output error|EIO/i.test(text);
  if (error instanceof DestinationError || (error instanceof GitError && !full && !dead)) return error;
  const disk = full ? 'the disk is full: ' : dead ? 'the disk fails: ' : '';
  return new GitError(`${disk}${full || said === '' ? what : `${what}: ${said}`}`, {
    code: full ? 'ENOSPC' : dead ? 'EIO' : 'GIT_FAILED',
    hint: full ? `free space, or ${elsewhere}` : dead ? osError(constants.errno.EIO).hint(elsewhere) : hint,
    cause: error,
  });
}

/** The error for a system call that failed. */
export function refused(action: string, errno: number): GitError {
  const { code, text, hint } = osError(errno);
  return new GitError(`cannot ${action}: ${text}`, { code, hint: hint('choose another directory with -d') });
}
