import { addAbortSignal, type Readable, type Writable } from 'node:stream';
import { InterruptedError, UsageError } from '../errors.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';
import type { GivenCredentials, GivenToken } from '../registry/registry-options.ts';
import type { Invocation } from './program.ts';
import type { CliContext } from './execute.ts';

/** Credentials of the command line and of the program's own variables; the registry's other sources come after these. */
export interface CredentialOptions {
  readonly credentials: GivenCredentials | undefined;
  readonly registryToken: GivenToken | undefined;
  readonly noCredentials: boolean;
}

/** @throws UsageError, also if a password is missing and cannot be asked for on a terminal */
export async function readCredentials(
  { values }: Invocation,
  context: CliContext,
): Promise<CredentialOptions> {
  const noCredentials = values.creds === false;
  const flags = [
    ...(values.user ? ['-u'] : []),
    ...(values.passwordStdin === true ? ['--password-stdin'] : []),
  ];
  if (noCredentials && (values.user !== undefined || flags.length > 0))
    throw new UsageError('--no-creds contradicts -u and --password-stdin', { hint: 'leave one of them out' });
  const others = [...flags, ...(noCredentials ? ['--no-creds'] : [])];
  if (values.registryToken) {
    if (others.length > 0) throw new UsageError(`--registry-token contradicts ${others.join(' and ')}`);
  }
  return {
    credentials: noCredentials
      ? undefined
      : await usernameAndPassword(values.user, values.passwordStdin === true, context),
    registryToken: tokenOf(values.registryToken, others.length > 0 || values.authFile !== undefined, context),
    noCredentials,
  };
}

/** The flag, else, without any other flag for credentials, DLROOTFS_REGISTRY_TOKEN. */
function tokenOf(
  flag: string | undefined,
  otherFlags: boolean,
  { environment }: CliContext,
): GivenToken | undefined {
  if (flag) return { token: flag, source: '--registry-token' };
  const token = environment['DLROOTFS_REGISTRY_TOKEN'];
  return token && !otherFlags ? { token, source: 'DLROOTFS_REGISTRY_TOKEN' } : undefined;
}

/** `USER:PASSWORD`, cut at the first colon, or `USER` and the password from standard input or the terminal. */
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

/** Bytes of keys in raw mode. */
const CTRL_C = 3;
const CTRL_D = 4;
const BACKSPACE: ReadonlySet<number> = new Set([8, 127]);
const RETURN: ReadonlySet<number> = new Set([10, 13]);

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
  const answer = Promise.withResolvers<string>();
  let typed: number[] = [];
  const nothing = (): void =>
    answer.reject(
      new UsageError('no password was typed', { hint: 'pipe it in with --password-stdin, or type it' }),
    );
  const onKeys = (keys: Buffer): void => {
    for (const key of keys) {
      if (key === CTRL_C) answer.reject(new InterruptedError('SIGINT'));
      else if (key === CTRL_D) nothing();
      else if (RETURN.has(key)) answer.resolve(Buffer.from(typed).toString('utf8'));
      else if (BACKSPACE.has(key)) typed = withoutLastCharacter(typed);
      else typed.push(key);
    }
  };
  const onAbort = (): void => answer.reject(signal.reason);
  // First: a key typed in answer to the question must not be echoed, nor Ctrl-D be lost in the terminal's line.
  input.setRawMode?.(true);
  output.write(question);
  input.on('data', onKeys).once('end', nothing).once('error', nothing);
  signal.addEventListener('abort', onAbort);
  input.resume();
  try {
    return await answer.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
    input.off('data', onKeys).off('end', nothing).off('error', nothing);
    input.pause();
    input.setRawMode?.(false);
    output.write('\n');
  }
}

/** In UTF-8 every byte of a character but the first begins with the bits 10. */
function withoutLastCharacter(bytes: readonly number[]): number[] {
  return bytes.slice(
    0,
    Math.max(
      0,
      bytes.findLastIndex((byte) => (byte & 0xc0) !== 0x80),
    ),
  );
}
