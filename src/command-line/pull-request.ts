import { UsageError, printable, reasonOf } from '../errors.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PullRequest } from '../options.ts';
import type { GivenToken } from '../registry/registry-options.ts';
import type { Runtime } from '../runtime/place.ts';
import { runtimes } from '../runtime/place.ts';
import { utf8Directory, utf8Path } from '../sys/os-path.ts';
import type { Credentials } from './credentials.ts';
import { readCredentials } from './credentials.ts';
import { parseBoolean } from './flags.ts';
import type { Invocation } from './parse.ts';
import { promptPassword } from './password-prompt.ts';
import { parseBytes, parseCount, parseDuration } from './quantities.ts';
import type { CliContext } from './run.ts';

/** Flags and environment → what to pull. Throws UsageError. */
export async function pullRequest(invocation: Invocation, context: CliContext): Promise<PullRequest> {
  const { values, words } = invocation;
  const text = (name: string) => values[name] as string | undefined;
  /** Undefined where the flag is not given: then options.ts has the default. */
  const parsed = <T>(name: string, parse: (value: string) => T): T | undefined => {
    const value = text(name);
    return value === undefined ? undefined : parse(value);
  };
  return {
    image: words[0]!,
    destination: text('dest'),
    git: values['git'] === true,
    layerInfo: values['layerInfo'] !== false,
    runtimes: runtimesOf((values['for'] as readonly string[] | undefined) ?? []),
    force: values['force'] === true,
    merge: values['merge'] === true,
    rootless: values['rootless'] === true ? true : undefined,
    prepare: values['prepare'] === true,
    platform: parsed('platform', parsePlatform),
    jobs: parsed('jobs', (jobs) => parseCount(jobs, '--jobs', 1)),
    cache: values['cache'] !== false,
    cacheDirectory: parsed('cacheDir', (name) => utf8Name(name, '--cache-dir', utf8Directory)),
    cacheSize: parsed('cacheSize', (size) => parseBytes(size, '--cache-size')),
    registry: {
      credentials: await credentials(invocation, context),
      registryToken: registryToken(invocation, context),
      noCredentials: values['creds'] === false,
      authFile: parsed('authfile', (name) => utf8Name(name, '--authfile')),
      tlsVerify: parseBoolean(text('tlsVerify') ?? 'true', '--tls-verify'),
      plainHttp: values['plainHttp'] === true,
      certDir: parsed('certDir', (name) => utf8Name(name, '--cert-dir')),
      caFile: parsed('caFile', (name) => utf8Name(name, '--ca-file')),
      certFile: parsed('certFile', (name) => utf8Name(name, '--cert-file')),
      keyFile: parsed('keyFile', (name) => utf8Name(name, '--key-file')),
      mirrors: (values['mirror'] as readonly string[] | undefined) ?? [],
      registryVersion: parsed('registryVersion', (version) => (version === '1' ? 1 : 2)),
      retry: parsed('retry', (retry) => parseCount(retry, '--retry', 0)),
      retryDelay: parsed('retryDelay', (delay) => parseDuration(delay, '--retry-delay')),
    },
    stdin: words[0] === '-' || words[0]!.startsWith('-:') ? context.stdin : undefined,
    environment: context.environment,
    signal: context.signal,
  };
}

/** The name of a file or directory for the library, which takes UTF-8; throws UsageError where it cannot be opened. */
export function utf8Name(name: string, flag: string, convert = utf8Path): string {
  try {
    return convert(name);
  } catch (error) {
    throw new UsageError(`cannot open ${printable(name)} for ${flag}: ${reasonOf(error)}`);
  }
}

/** Several flags, or one with commas. */
function runtimesOf(words: readonly string[]): Runtime[] {
  const names = new Set(words.flatMap((word) => word.split(',')));
  return [...names].map((name) => {
    const runtime = runtimes.find((known) => known === name);
    if (runtime !== undefined) return runtime;
    throw new UsageError(`--for does not know ${printable(name)}`, {
      hint: `it knows ${runtimes.join(', ')}`,
    });
  });
}

/** `--registry-token`, else, without any other flag for credentials, DLROOTFS_REGISTRY_TOKEN. */
function registryToken({ values }: Invocation, { environment }: CliContext): GivenToken | undefined {
  const flag = (values['registryToken'] as string | undefined) || undefined;
  const others = [
    ...(values['user'] ? ['-u'] : []),
    ...(values['passwordStdin'] === true ? ['--password-stdin'] : []),
    ...(values['creds'] === false ? ['--no-creds'] : []),
  ];
  if (flag !== undefined) {
    if (others.length > 0) throw new UsageError(`--registry-token contradicts ${others.join(' and ')}`);
    return { token: flag, source: '--registry-token' };
  }
  const token = environment['DLROOTFS_REGISTRY_TOKEN'] || undefined;
  if (token === undefined || others.length > 0 || values['authfile'] !== undefined) return undefined;
  return { token, source: 'DLROOTFS_REGISTRY_TOKEN' };
}

/** `-u`, else DLROOTFS_CREDS; the registry's own sources come after these. */
async function credentials(invocation: Invocation, context: CliContext): Promise<Credentials | undefined> {
  const flag = invocation.values['user'] as string | undefined;
  const text = flag ?? (context.environment['DLROOTFS_CREDS'] || undefined);
  const fromStdin = invocation.values['passwordStdin'] === true;
  if (invocation.values['creds'] === false) {
    if (flag !== undefined || fromStdin)
      throw new UsageError('--no-creds contradicts -u and --password-stdin', {
        hint: 'leave one of them out',
      });
    return undefined;
  }
  if (text === undefined || (flag === '' && !fromStdin)) {
    if (fromStdin) throw new UsageError('--password-stdin needs a user name', { hint: 'add -u username' });
    return undefined;
  }
  const { stdin, stderr, signal } = context;
  const terminal = stdin.isTTY === true && stderr.isTTY === true;
  return await readCredentials(text, flag === undefined ? 'DLROOTFS_CREDS' : '-u', {
    stdin: fromStdin ? stdin : undefined,
    signal,
    prompt: terminal
      ? (question) => promptPassword({ input: stdin, output: stderr }, question, signal)
      : undefined,
  });
}
