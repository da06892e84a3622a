import type { Readable, Writable } from 'node:stream';
import type { Environment } from '../options.ts';
import { version } from '../version.ts';
import { parseArguments } from './parse.ts';

/** What a command may use of the process. */
export interface Surroundings {
  readonly environment: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly signal: AbortSignal;
}

/** Runs one command line to its end, and loads no more than that command's code; returns the exit code, throws what `describeFailure` describes. */
export async function runCommand(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const invocation = parseArguments(argv);
  switch (invocation.command) {
    case 'version':
      surroundings.stdout.write(`${version}\n`);
      return 0;
    case 'checkout':
      return await (await import('./run-checkout.ts')).runCheckout(invocation, surroundings);
    case 'completion':
      surroundings.stdout.write((await import('./completion.ts')).completionScript(invocation.words[0]!));
      return 0;
    case 'help':
      surroundings.stdout.write((await import('./help.ts')).helpText(invocation.words[0]));
      return 0;
    case 'cache':
      return await (await import('./run-cache.ts')).runCache(invocation, surroundings);
    case 'inspect':
      return await (await import('./run-inspect.ts')).runInspect(invocation, surroundings);
    case 'tags':
      return await (await import('./run-inspect.ts')).runTags(invocation, surroundings);
    default:
      return await (await import('./run-pull.ts')).runPull(invocation, surroundings);
  }
}
