import type { Readable, Writable } from 'node:stream';
import type { Environment } from '../options.ts';
import { DestinationError } from '../errors.ts';
import { version } from '../version.ts';
import { parseArguments } from './parse.ts';

/** What a command may use of the process. */
export interface CliContext {
  readonly environment: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  /** The program was started without a standard output. */
  readonly stdoutIsClosed: () => boolean;
  /** It was not removed. */
  readonly workingDirectoryExists: () => boolean;
  readonly signal: AbortSignal;
}

/** Runs one command line to its end, and loads no more than that command's code; returns the exit code, throws what `describeFailure` describes. */
export async function runCommand(argv: readonly string[], context: CliContext): Promise<number> {
  const invocation = parseArguments(argv);
  switch (invocation.command) {
    case 'version':
      context.stdout.write(`${version}\n`);
      return 0;
    case 'completion':
      context.stdout.write((await import('./completion.ts')).completionScript(invocation.words[0]!));
      return 0;
    case 'help':
      context.stdout.write((await import('./help.ts')).helpText(invocation.words[0]));
      return 0;
    default:
  }
  if (!context.workingDirectoryExists()) {
    throw new DestinationError('the working directory does not exist any more', {
      hint: 'cd to another directory',
    });
  }
  switch (invocation.command) {
    case 'cache':
      return await (await import('./run-cache.ts')).runCache(invocation, context);
    case 'checkout':
      return await (await import('./run-checkout.ts')).runCheckout(invocation, context);
    case 'inspect':
      return await (await import('./run-inspect.ts')).runInspect(invocation, context);
    case 'tags':
      return await (await import('./run-inspect.ts')).runTags(invocation, context);
    default:
      return await (await import('./run-pull.ts')).runPull(invocation, context);
  }
}
