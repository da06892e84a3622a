import { ANOTHER_DIRECTORY, DestinationError, GitError, printable } from '../errors.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';

/** Returns the error for a content that arrived out of order. */
export function outOfStep(found: number, expected: number, cause?: unknown): GitError {
  return new GitError(`content ${found} of a file came instead of content ${expected}`, {
    code: 'GIT_CHANGES',
    hint: 'pull it without -g, and report this with the name of the image',
    cause,
  });
}
/**
 * Turns an error of the system or of another module into a GitError.
 *
 * @param what failed: a sentence
 */
export function asGitError(error: unknown, what: string): Error {
  if (error instanceof DestinationError || error instanceof GitError) return error;
  const os = osErrorOf(error);
  const text = os ? reasonOf(error) : printable(oneLine(error), 300);
  const isFull = os?.disk === 'is full';
  const reason = os && !isFull ? text : isFull || text === '' ? what : `${what}: ${text}`;
  return new GitError(os?.disk === undefined ? reason : `the disk ${os.disk}: ${reason}`, {
    code: os?.code ?? 'GIT_FAILED',
    hint: os && (os.hint(ANOTHER_DIRECTORY) ?? ANOTHER_DIRECTORY),
    cause: error,
  });
}

/** Returns the message in one line. */
function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().replaceAll(/\s*\n\s*/g, '; ');
}
