import type { Key } from 'node:readline';
import { addAbortSignal, type Readable, Writable } from 'node:stream';
import { InterruptedError, UsageError } from '../errors.ts';
import type { PullRequest } from '../requests.ts';
import type { GivenCredentials, GivenToken, RegistryOptions } from '../registry/registry-options.ts';
import { runtimes, virtualMachines } from '../runtime/config-files.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';
import { isInUserNamespace } from '../sys/privileges.ts';
import type { FlagValues } from './commands.ts';
import type { CliContext } from './context.ts';
import type { Invocation } from './program.ts';

/**
 * Makes the request from flags and environment. Members of flags that are not given are undefined: options.ts
 * has the defaults.
 *
 * @throws UsageError
 */
export async function pullRequest(invocation: Invocation, context: CliContext): Promise<PullRequest> {
  const { command, values, words } = invocation;
  const image = words[0]!;
  const images = command === 'diff' ? words : [image];
  // One by one, so that a credential gets only into `registry`.
  return {
    image,
    destination: values.destination,
    git: values.git,
    layerInfo: values.layerInfo,
    platform: values.platform,
    layers: values.layers?.at(-1),
    paths: values.paths,
    excludes: values.excludes,
    add: values.add,
    addOwner: values.addOwner,
    diskSize: values.diskSize,
    diskCompression: values.diskCompression,
    replace: values.replace,
    merge: values.merge,
    force: values.force,
    prepare: values.prepare,
    runtimes: runtimes.filter((name) => values.for?.includes(name)),
    virtualMachines: virtualMachines.filter((name) => values.for?.includes(name)),
    terminal: context.stdin.isTTY === true && context.stdout.isTTY === true,
    ...(await rootlessOf(values, context)),
    jobs: values.jobs,
    cache: values.cache,
    cacheDirectory: values.cacheDirectory,
    cacheSize: values.cacheSize,
    offline: values.offline,
    registry: { ...registryOptions(values), ...(await readCredentials(invocation, context)) },
    signers: {
      verifyKeys: values.verifyKeys,
      certificateIdentity: values.certificateIdentity,
      certificateIdentityRegexp: values.certificateIdentityRegexp,
      certificateOidcIssuer: values.certificateOidcIssuer,
      certificateOidcIssuerRegexp: values.certificateOidcIssuerRegexp,
      trustedRoot: values.trustedRoot,
    },
    policy: policyOf(values),
    stdin: images.some((name) => name === '-' || name.startsWith('-:')) ? openStdin(context) : undefined,
    environment: context.environment,
    secrets: context.secrets,
    signal: context.signal,
  };
}

/** @throws UsageError for both flags */
function policyOf({ policy, insecurePolicy }: FlagValues): PullRequest['policy'] {
  if (policy !== undefined && insecurePolicy === true)
    throw new UsageError('--insecure-policy contradicts --policy', { hint: 'leave one of them out' });
  return insecurePolicy === true ? false : policy;
}

/** Returns the options of `registry` except credentials. */
function registryOptions(values: FlagValues): PullRequest['registry'] {
  return {
    tlsVerify: values.tlsVerify,
    plainHttp: values.plainHttp,
    certDir: values.certDir,
    caFile: values.caFile,
    certFile: values.certFile,
    keyFile: values.keyFile,
    mirrors: values.mirrors,
    registryVersion: values.registryVersion,
    retry: values.retry,
    retryDelay: values.retryDelay,
  };
}

/** @throws UsageError for a terminal */
function openStdin({ stdin }: CliContext): CliContext['stdin'] {
  if (stdin.isTTY === true)
    throw new UsageError('cannot read the archive from a terminal', {
      hint: 'pipe it in, as in docker save IMAGE | dlrootfs -',
    });
  return stdin;
}

/**
 * Returns the options for runc. Inside the user namespace of --userns the caller is root, but runc runs
 * without root.
 */
async function rootlessOf({ rootless, userns }: FlagValues, { environment }: CliContext) {
  if (userns !== true || !isInUserNamespace(environment)) return { rootless };
  const { ownMappings } = await import('./userns.ts');
  return { rootless: rootless ?? true, idMappings: ownMappings() };
}

/**
 * Returns the credentials of the command line and of the program's own variables; other sources are searched
 * later.
 *
 * @throws UsageError, also if a password is missing and no terminal can ask for it
 */
async function readCredentials(
  { values }: Invocation,
  context: CliContext,
): Promise<Pick<RegistryOptions, 'credentials' | 'registryToken' | 'noCredentials' | 'authFile'>> {
  const { user, passwordStdin = false, registryToken, authFile } = values;
  const noCredentials = values.creds === false;
  if (noCredentials && (user !== undefined || passwordStdin))
    throw new UsageError('--no-creds contradicts -u and --password-stdin', { hint: 'leave one of them out' });
  const others = [
    ...(user ? ['-u'] : []),
    ...(passwordStdin ? ['--password-stdin'] : []),
    ...(noCredentials ? ['--no-creds'] : []),
  ];
  if (registryToken && others.length > 0)
    throw new UsageError(`--registry-token contradicts ${others.join(' and ')}`);
  return {
    credentials: noCredentials ? undefined : await usernameAndPassword(user, passwordStdin, context),
    registryToken: tokenOf(registryToken, others.length > 0 || authFile !== undefined, context),
    noCredentials,
    authFile,
  };
}

/** Returns the token of the flag, else, without another flag for credentials, of DLROOTFS_REGISTRY_TOKEN. */
function tokenOf(
  flag: string | undefined,
  otherFlags: boolean,
  { environment }: CliContext,
): GivenToken | undefined {
  if (flag) return { token: flag, source: '--registry-token' };
  const token = environment['DLROOTFS_REGISTRY_TOKEN'];
  return token && !otherFlags ? { token, source: 'DLROOTFS_REGISTRY_TOKEN' } : undefined;
}

/**
 * Parses `USER:PASSWORD`, split at the first colon; with `USER` alone it reads the password from standard
 * input or the terminal.
 */
async function usernameAndPassword(
  flag: string | undefined,
  passwordStdin: boolean,
  context: CliContext,
): Promise<GivenCredentials | undefined> {
  const text = flag ?? (context.environment['DLROOTFS_CREDS'] || undefined);
  if (text === undefined || (flag === '' && !passwordStdin)) {
    if (passwordStdin) throw new UsageError('--password-stdin needs a user name', { hint: 'add -u USER' });
    return undefined;
  }
  const source = flag === undefined ? 'DLROOTFS_CREDS' : '-u';
  const written = (value: string): string =>
    flag === undefined ? `${source}=${value}` : `${source} ${value}`;
  // `-u "$USER:$PASSWORD"` with neither set: anonymous, as in the original.
  if (text === ':' && !passwordStdin) return { username: '', password: '', source };
  const colon = text.indexOf(':');
  const username = colon < 0 ? text : text.slice(0, colon);
  const password = colon < 0 ? '' : text.slice(colon + 1);
  if (username === '')
    throw new UsageError(`${source} has no user name`, { hint: `write ${written('USER:PASSWORD')}` });
  if (passwordStdin) {
    if (colon >= 0)
      throw new UsageError(`${source} has a password already, and --password-stdin reads another`, {
        hint: `write ${written('USER')}, or leave out --password-stdin`,
      });
    return {
      username,
      password: await readPassword(context.stdin, context.signal),
      source: '--password-stdin',
    };
  }
  if (password !== '') return { username, password, source };
  const { stdin: input, stderr: output, signal } = context;
  if (input.isTTY !== true || output.isTTY !== true) {
    throw new UsageError(`${source} has no password, and this is not a terminal to ask for it`, {
      hint: 'pipe the password to --password-stdin, or set DLROOTFS_CREDS=USER:PASSWORD',
    });
  }
  return {
    username,
    password: await promptPassword({ input, output }, `Password for ${username}: `, signal),
    source,
  };
}

const MAX_PASSWORD_BYTES = 64 * 1024;

async function readPassword(stdin: Readable, signal: AbortSignal): Promise<string> {
  const hint = 'pipe the password in, as in --password-stdin < FILE';
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of addAbortSignal(signal, stdin) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_PASSWORD_BYTES) break;
    }
  } catch (error) {
    signal.throwIfAborted();
    const reason = osErrorOf(error)?.text ?? reasonOf(error);
    const message = `cannot read the password from standard input: ${reason}`;
    throw new UsageError(message, { hint, cause: error });
  }
  if (length > MAX_PASSWORD_BYTES)
    throw new UsageError('the password on standard input is longer than 64 KiB', { hint: 'check the file' });
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (password === '') throw new UsageError('cannot read the password: standard input is empty', { hint });
  return password;
}

/** The terminal of a user. */
export interface Terminal {
  readonly input: Readable & { setRawMode?(raw: boolean): unknown };
  readonly output: Writable;
}

/**
 * Reads a password from the terminal without echo.
 *
 * @throws InterruptedError for Ctrl-C, UsageError for Ctrl-D or a closed terminal, and the signal's reason
 */
export async function promptPassword(
  { input, output }: Terminal,
  question: string,
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const { createInterface } = await import('node:readline');
  const answer = Promise.withResolvers<string>();
  const nothing = (): void =>
    answer.reject(
      new UsageError('no password was typed', { hint: 'pipe it in with --password-stdin, or type it' }),
    );
  const onKey = (_text: unknown, { ctrl, name }: Key): void => {
    if (ctrl === true && name === 'd') nothing();
  };
  const onAbort = (): void => answer.reject(signal.reason);
  // Drops what readline would echo.
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  // Before the question: else a key typed at once would be echoed, or Ctrl-D be lost in the terminal's line.
  const lines = createInterface({ input, output: nowhere, terminal: true, historySize: 0 });
  lines
    .once('line', answer.resolve)
    .once('SIGINT', () => answer.reject(new InterruptedError('SIGINT')))
    .once('close', nothing);
  input.on('keypress', onKey).once('error', nothing);
  signal.addEventListener('abort', onAbort);
  output.write(question);
  try {
    return await answer.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
    input.off('keypress', onKey).off('error', nothing);
    lines.close();
    output.write('\n');
  }
}
