import { constants } from 'node:os';
import { DestinationError, GitError, printable } from '../errors.ts';
import { osError, type OsError, osErrorOf, reasonOf } from '../sys/os-error.ts';

/** For a new rootfs, which can be anywhere. */
export const ELSEWHERE = 'choose a directory on another disk with -d';

/** What helps where a repository is damaged. */
export const PULL_AGAIN = 'the repository is damaged: pull the image again into another directory';

/** The error for a repository that is not as this program, or git, leaves one. @param what a sentence */
export function damaged(what: string): GitError {
  return new GitError(what, { code: 'GIT_DAMAGED', hint: PULL_AGAIN });
}

/** The texts of the system's errors in git's messages: strerror(3). */
const strerror: readonly (readonly [words: RegExp, errno: number])[] = [
  [/no space left on device/i, constants.errno.ENOSPC],
  [/disk quota exceeded/i, constants.errno.EDQUOT],
  [/input\/output error/i, constants.errno.EIO],
];

/**
 * Turns an error of git, the system or another module into one that a person can act on.
 *
 * @param what failed: a sentence
 * @param elsewhere an imperative that names another place; undefined where the user cannot choose one
 */
export function asGitError(error: unknown, what: string, elsewhere: string | undefined): Error {
  if (error instanceof DestinationError || error instanceof GitError) return error;
  const own = osErrorOf(error);
  const text = own ? reasonOf(error) : printable(oneLine(error), 300);
  const os = own ?? saidByGit(text);
  const isFull = os?.disk === 'is full';
  const reason = own && !isFull ? text : isFull || text === '' ? what : `${what}: ${text}`;
  return new GitError(os?.disk === undefined ? reason : `the disk ${os.disk}: ${reason}`, {
    code: os?.code ?? 'GIT_FAILED',
    hint: os && (os.hint(elsewhere) ?? elsewhere),
    cause: error,
  });
}

/** In one line. */
function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().replaceAll(/\s*\n\s*/g, '; ');
}

function saidByGit(text: string): OsError | undefined {
  const row = strerror.find(([words]) => words.test(text));
  return row && osError(row[1]);
}
