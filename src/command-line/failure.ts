import { DlrootfsError, ExitCode, InterruptedError, printable } from '../errors.ts';

export interface Failure {
  readonly exitCode: number;
  /** What standard error says, newline included. */
  readonly text: string;
}

/** What helps with most failures of a kind, where the error itself knows nothing better. */
const generalHints: Readonly<Record<number, string>> = {
  [ExitCode.usage]: 'dlrootfs --help shows what goes where',
  [ExitCode.notFound]: 'check the spelling of image and tag; dlrootfs tags IMAGE lists the tags',
  [ExitCode.unauthorized]: 'give credentials with -u, or log in with docker, podman or skopeo',
  [ExitCode.network]: 'check the address and the network; -v shows the requests',
  [ExitCode.integrity]: 'try again; if it stays so, the image is broken: tell its publisher',
  [ExitCode.destination]: 'choose another directory with -d',
  [ExitCode.rateLimit]: 'log in for a larger quota, use a mirror (--mirror), or try again later',
};

/**
 * How a run that threw ends: a DlrootfsError as `error:` and, last, `hint:`; anything else is a bug and shows its
 * stack. Messages come with outside text made printable already; the exit codes are those of the README.
 */
export function describeFailure(error: unknown, asJson = false): Failure {
  if (asJson) return jsonFailure(error);
  if (error instanceof InterruptedError && error.signal === 'SIGPIPE') {
    // `| head` is no failure to anybody who reads; programs that the signal ends say nothing either.
    return { exitCode: error.exitCode, text: '' };
  }
  if (error instanceof DlrootfsError) {
    const hint = error.hint ?? generalHints[error.exitCode];
    const hintLine = hint === undefined ? '' : `hint: ${hint}\n`;
    return { exitCode: error.exitCode, text: `error: ${error.message}\n${hintLine}` };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : printable(String(error));
  return {
    exitCode: ExitCode.bug,
    text: `${stack}\nerror: this is a bug in dlrootfs\nhint: please report it with the lines above\n`,
  };
}

/** With `--progress json` every line on standard error is an object, this one too. */
function jsonFailure(error: unknown): Failure {
  const { exitCode, text } = describeFailure(error);
  const details =
    error instanceof DlrootfsError
      ? { code: error.code, message: error.message, hint: error.hint ?? generalHints[exitCode] }
      : { code: 'BUG', message: text };
  return { exitCode, text: `${JSON.stringify({ type: 'error', exitCode, ...details })}\n` };
}
