import { DestinationError, DlrootfsError, ExitCode, InterruptedError, printable } from '../errors.ts';
import { hasCode, osErrorByCode, osErrorOf, reasonOf } from '../sys/os-error.ts';

export interface FailureOutput {
  readonly exitCode: number;
  /** Lines for standard error. */
  readonly text: string;
}

/**
 * Returns exit code and message of an error: a DlrootfsError as `error:`, `hint:` and `kept:`; anything else
 * is a bug and shows its stack. Text from outside is made printable.
 *
 * @param asJson with `--progress json` every line on standard error is an object
 */
export function describeFailure(error: unknown, asJson = false): FailureOutput {
  const failure = error instanceof DlrootfsError ? error : explainFault(error);
  if (failure === undefined) {
    const { bug: exitCode } = ExitCode;
    const stack = error instanceof Error ? (error.stack ?? error.message) : printable(String(error));
    const text = `${stack}\nerror: this is a bug in dlrootfs\nhint: please report it with the lines above\n`;
    return { exitCode, text: asJson ? jsonLine({ exitCode, code: 'BUG', message: text }) : text };
  }
  const { exitCode, code, message, hint, kept } = failure;
  if (asJson)
    return { exitCode, text: jsonLine({ exitCode, code, message, hint, ...(kept && { kept: true }) }) };
  // Silent, as a program that SIGPIPE ends: `| head` is no failure.
  if (failure instanceof InterruptedError && failure.signal === 'SIGPIPE') return { exitCode, text: '' };
  const hintLine = hint === undefined ? '' : `hint: ${printable(hint, Infinity)}\n`;
  const keptLine = kept ? 'kept: run it again to resume the download\n' : '';
  return { exitCode, text: `error: ${printable(message, Infinity)}\n${hintLine}${keptLine}` };
}

const jsonLine = (details: object): string => `${JSON.stringify({ type: 'error', ...details })}\n`;

/**
 * Explains an error of the operating system that no module explained: limits, disks and permissions may fail
 * in any call. Undefined for other errors.
 */
function explainFault(error: unknown): DlrootfsError | undefined {
  if (hasCode(error, 'ERR_WORKER_INIT_FAILED')) return threadFailure(error as Error);
  const os = osErrorOf(error);
  // Such errors are bugs of dlrootfs.
  if (!os || ['EBADF', 'EFAULT', 'EINVAL'].includes(os.code)) return undefined;
  const isLimit = ['EMFILE', 'ENFILE', 'ENOMEM'].includes(os.code);
  return new DestinationError(isLimit ? `cannot continue: ${os.text}` : reasonOf(error), {
    code: os.code,
    hint: os.hint(undefined) ?? (isLimit ? 'raise the limits of this process (ulimit -a)' : undefined),
    cause: error,
  });
}

/** Explains Node's error, whose message is only the code of pthread_create(3). */
function threadFailure(error: Error): DestinationError {
  const reason = osErrorByCode(error.message)?.text ?? error.message;
  return new DestinationError(`cannot start a thread: ${reason}`, {
    code: 'LIMIT',
    hint: 'raise the limit of processes (ulimit -u; pids.max of the control group)',
    cause: error,
  });
}
