import type { Readable, Writable } from 'node:stream';
import type { TerminalStream } from '../report/bars.ts';
import type { Environment } from '../sys/os-path.ts';
import type { Secrets } from '../sys/secrets.ts';

/** The parts of the process that a command may use. */
export interface CliContext {
  readonly environment: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: TerminalStream & { readonly isTTY?: boolean };
  /** True if standard output and standard error are the same file. */
  readonly isSharedOutput: () => boolean;
  /** False if it was removed. */
  readonly workingDirectoryExists: () => boolean;
  /** Collects the secrets of the run. */
  readonly secrets: Secrets;
  readonly signal: AbortSignal;
}
