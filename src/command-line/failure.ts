import { DestinationError, DlrootfsError, ExitCode, InterruptedError, printable } from '../errors.ts';
import { hasCode, osErrorByCode, osErrorOf, reasonOf } from '../sys/os-error.ts';

export interface FailureOutput {
  readonly exitCode: number;
  /** Lines for standard error. */
  readonly text: string;
}

/**
 * The exit code and message for an error: a DlrootfsError as `error:`, `hint:` and, last, `kept:`; anything else is a bug and
 * shows its stack. Text from outside is made printable.
 */
export function describeFailure(error: unknown, asJson = false): FailureOutput {
  if (asJson) return jsonFailure(error);
  if (error instanceof InterruptedError && error.signal === 'SIGPIPE') {
    // As a program that SIGPIPE ends: `| head` is no failure.
    return { exitCode: error.exitCode, text: '' };
  }
  if (error instanceof DlrootfsError) {
    const hintLine = error.hint === undefined ? '' : `hint: ${printable(error.hint, Infinity)}\n`;
    const keptLine = error.kept ? 'kept: run it again to go on\n' : '';
    const text = `error: ${printable(error.message, Infinity)}\n${hintLine}${keptLine}`;
    return { exitCode: error.exitCode, text };
  }
  const explained = explainFault(error);
  if (explained !== undefined) return describeFailure(explained);
  const stack = error instanceof Error ? (error.stack ?? error.message) : printable(String(error));
  return {
    exitCode: ExitCode.bug,
    text: `${stack}\nerror: this is a bug in dlrootfs\nhint: please report it with the lines above\n`,
  };
}

/** For an error of the operating system that no module explained: a limit, a disk or a permission may fail in any call. */
function explainFault(error: unknown): DlrootfsError | undefined {
  if (hasCode(error, 'ERR_WORKER_INIT_FAILED')) return threadFailure(error as Error);
  const os = osErrorOf(error);
  // These are bugs of dlrootfs.
  if (!os || ['EBADF', 'EFAULT', 'EINVAL'].includes(os.code)) return undefined;
  const isLimit = ['EMFILE', 'ENFILE', 'ENOMEM'].includes(os.code);
  return new DestinationError(isLimit ? `cannot continue: ${os.text}` : reasonOf(error), {
    code: os.code,
    hint: os.hint(undefined) ?? (isLimit ? 'raise the limits of this process (ulimit -a)' : undefined),
    cause: error,
  });
}

/** Node's message is the code alone, of pthread_create(3). */
function threadFailure(error: Error): DestinationError {
  const reason = osErrorByCode(error.message)?.text ?? error.message;
  return new DestinationError(`cannot start a thread: ${reason}`, {
    code: 'LIMIT',
    hint: 'raise the limit of processes (ulimit -u; pids.max of the control group)',
    cause: error,
  });
}

/** With `--progress json` every line on standard error is an object. */
function jsonFailure(error: unknown): FailureOutput {
  const { exitCode, text } = describeFailure(error);
  const details =
    error instanceof DlrootfsError
      ? { code: error.code, message: error.message, hint: error.hint, ...(error.kept && { kept: true }) }
      : { code: 'BUG', message: text };
  return { exitCode, text: `${JSON.stringify({ type: 'error', exitCode, ...details })}\n` };
}
