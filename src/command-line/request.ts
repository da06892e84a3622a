import { UsageError, printable } from '../errors.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';
import type { PullRequest } from '../options.ts';
import { runtimes, virtualMachines } from '../runtime/config-files.ts';
import { utf8Directory, utf8Path } from '../sys/os-path.ts';
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
    image,
    destination: values.dest,
    git: values.git,
    layerInfo: values.layerInfo,
    runtimes: runtimes.filter((name) => values.for?.includes(name)),
    virtualMachines: virtualMachines.filter((name) => values.for?.includes(name)),
    force: values.force,
    replace: values.replace === 'touched' ? true : values.replace,
    merge: values.merge,
    terminal: context.stdin.isTTY === true && context.stdout.isTTY === true,
    ...(await rootlessOf(values, context)),
    prepare: values.prepare,
    paths: values.path,
    excludes: values.exclude,
    diskSize: values.size,
    platform: values.platform,
    jobs: values.jobs,
    cache: values.cache,
    cacheDirectory: cacheDirectory(values),
    cacheSize: values.cacheSize,
    offline: values.offline,
    registry: {
      ...(await readCredentials(invocation, context)),
      authFile: fileName(values.authfile, '--authfile'),
      tlsVerify: values.tlsVerify ?? true,
      plainHttp: values.plainHttp === true,
      certDir: fileName(values.certDir, '--cert-dir'),
      caFile: fileName(values.caFile, '--ca-file'),
      certFile: fileName(values.certFile, '--cert-file'),
      keyFile: fileName(values.keyFile, '--key-file'),
      mirrors: values.mirror ?? [],
      registryVersion: values.registryVersion && (values.registryVersion === '1' ? 1 : 2),
      retry: values.retry,
      retryDelay: values.retryDelay,
    },
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

export const cacheDirectory = ({ cacheDir }: FlagValues): string | undefined =>
  fileName(cacheDir, '--cache-dir', utf8Directory);

/**
 * The name of a file or directory for the library, which takes UTF-8.
 *
 * @throws UsageError if it cannot be opened
 */
function fileName(name: string | undefined, flag: string, convert = utf8Path): string | undefined {
  try {
    return name === undefined ? undefined : convert(name);
  } catch (error) {
    const reason = osErrorOf(error)?.text ?? reasonOf(error);
    throw new UsageError(`cannot open ${printable(name!)} for ${flag}: ${reason}`);
  }
}
