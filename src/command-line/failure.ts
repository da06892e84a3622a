import { DlrootfsError, ExitCode, printable } from '../errors.ts';

export interface Failure {
  readonly exitCode: number;
  /** What standard error says, newline included. */
  readonly text: string;
}

/**
 * How a run that threw ends: a DlrootfsError as `error:` and, last, `hint:`; anything else is a bug and shows its
 * stack. Messages come with outside text made printable already; the exit codes are those of the README.
 */
export function describeFailure(error: unknown): Failure {
  if (error instanceof DlrootfsError) {
    const hint = error.hint === undefined ? '' : `hint: ${error.hint}\n`;
    return { exitCode: error.exitCode, text: `error: ${error.message}\n${hint}` };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : printable(String(error));
  return {
    exitCode: ExitCode.bug,
    text: `${stack}\nerror: this is a bug in dlrootfs\nhint: please report it with the lines above\n`,
  };
}
