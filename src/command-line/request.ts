import { UsageError } from '../errors.ts';
import type { PullRequest } from '../options.ts';
import { runtimes, virtualMachines } from '../runtime/config-files.ts';
import { isInUserNamespace } from '../sys/privileges.ts';
import type { FlagValues } from './commands.ts';
import { readCredentials } from './credentials.ts';
import type { Invocation } from './program.ts';
import type { CliContext } from './execute.ts';

/**
 * Flags and environment → what to pull. Undefined for a flag that is not given: options.ts has the defaults.
 *
 * @throws UsageError
 */
export async function pullRequest(invocation: Invocation, context: CliContext): Promise<PullRequest> {
  const { command, values, words } = invocation;
  const image = words[0]!;
  const images = command === 'diff' ? words : [image];
  return {
    ...values,
    image,
    runtimes: runtimes.filter((name) => values.for?.includes(name)),
    virtualMachines: virtualMachines.filter((name) => values.for?.includes(name)),
    terminal: context.stdin.isTTY === true && context.stdout.isTTY === true,
    ...(await rootlessOf(values, context)),
    registry: { ...values, ...(await readCredentials(invocation, context)) },
    stdin: images.some((name) => name === '-' || name.startsWith('-:')) ? openStdin(context) : undefined,
    environment: context.environment,
    signal: context.signal,
  };
}

/** @throws UsageError if the program was started without one */
function openStdin({ stdin, isClosed }: CliContext): CliContext['stdin'] {
  if (!isClosed(0)) return stdin;
  throw new UsageError('cannot read the archive: standard input is closed', {
    hint: 'connect it, as in docker save IMAGE | dlrootfs -',
  });
}

/** Inside the user namespace of --userns the caller is root, but runc needs none. */
async function rootlessOf({ rootless, userns }: FlagValues, { environment }: CliContext) {
  if (userns !== true || !isInUserNamespace(environment)) return { rootless };
  const { ownMappings } = await import('./userns.ts');
  return { rootless: rootless ?? true, idMappings: ownMappings() };
}
