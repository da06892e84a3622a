import type { Readable, Writable } from 'node:stream';
import type { Environment } from '../options.ts';
import { version } from '../version.ts';
import { completionScript } from './completion.ts';
import { helpText } from './help.ts';
import { parseArguments } from './parse.ts';
import { runCache } from './run-cache.ts';
import { runCheckout } from './run-checkout.ts';
import { runInspect, runTags } from './run-inspect.ts';
import { runPull } from './run-pull.ts';

/** What a command may use of the process. */
export interface Surroundings {
  readonly environment: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly signal: AbortSignal;
}

/** Runs one command line to its end; returns the exit code, throws what `describeFailure` describes. */
export async function runCommand(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const invocation = parseArguments(argv);
  switch (invocation.command) {
    case 'version':
      surroundings.stdout.write(`${version}\n`);
      return 0;
    case 'checkout':
      return await runCheckout(invocation, surroundings);
    case 'completion':
      surroundings.stdout.write(completionScript(invocation.words[0]!));
      return 0;
    case 'help':
      surroundings.stdout.write(helpText(invocation.words[0]));
      return 0;
    case 'cache':
      return await runCache(invocation, surroundings);
    case 'inspect':
      return await runInspect(invocation, surroundings);
    case 'tags':
      return await runTags(invocation, surroundings);
    default:
      return await runPull(invocation, surroundings);
  }
}
