import { addAbortSignal, type Readable } from 'node:stream';
import { UsageError, reasonOf } from '../errors.ts';

export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** Where they were given, for messages. */
  readonly source: string;
}

/** Where a password may come from besides the flag's own text. */
export interface PasswordSources {
  /** Read the password from here to its end (`--password-stdin`). */
  readonly stdin?: Readable | undefined;
  /** Ends the waiting for standard input. */
  readonly signal: AbortSignal;
  /** Asks a person without echo; absent without a terminal. */
  readonly prompt?: ((question: string) => Promise<string>) | undefined;
}

/**
 * `username:password` (cut at the first colon) or `username` with the password from elsewhere. `name` is the flag
 * or variable that messages speak of: never its value.
 */
export async function readCredentials(
  text: string,
  name: string,
  sources: PasswordSources,
): Promise<Credentials> {
  const colon = text.indexOf(':');
  const username = colon < 0 ? text : text.slice(0, colon);
  // `-u "$USER:$PASSWORD"` with neither set: anonymous, as in the original.
  if (text === ':' && sources.stdin === undefined) return { username: '', password: '', source: name };
  if (username === '')
    throw new UsageError(`${name} has no user name`, { hint: `write ${name} username:password` });
  if (colon >= 0 && sources.stdin !== undefined) {
    throw new UsageError(`${name} already has a password, and --password-stdin brings another`, {
      hint: `write ${name} username, without a password, or leave --password-stdin out`,
    });
  }
  if (colon >= 0 && colon < text.length - 1)
    return { username, password: text.slice(colon + 1), source: name };
  if (sources.stdin !== undefined)
    return {
      username,
      password: await readPassword(sources.stdin, sources.signal),
      source: '--password-stdin',
    };
  if (sources.prompt !== undefined) {
    return { username, password: await sources.prompt(`Password for ${username}: `), source: name };
  }
  throw new UsageError(`${name} has no password, and there is no terminal to ask on`, {
    hint: `write ${name} username:password, or pipe the password in with --password-stdin`,
  });
}

const passwordLimitBytes = 64 * 1024;

async function readPassword(stdin: Readable, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of addAbortSignal(signal, stdin) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > passwordLimitBytes) break;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw new UsageError(`--password-stdin: standard input cannot be read: ${reasonOf(error)}`, {
      hint: 'pipe the password in, as in --password-stdin < FILE',
      cause: error,
    });
  }
  if (length > passwordLimitBytes)
    throw new UsageError('the password on standard input is longer than 64 KiB', {
      hint: 'is that the right file?',
    });
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (password === '')
    throw new UsageError('--password-stdin: standard input is empty', {
      hint: 'pipe the password in, as in --password-stdin < FILE',
    });
  return password;
}
