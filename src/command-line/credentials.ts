import type { Readable, Writable } from 'node:stream';
import { UsageError } from '../errors.ts';

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
    return { username, password: await readPassword(sources.stdin), source: '--password-stdin' };
  if (sources.prompt !== undefined) {
    return { username, password: await sources.prompt(`Password for ${username}: `), source: name };
  }
  throw new UsageError(`${name} has no password, and there is no terminal to ask on`, {
    hint: `write ${name} username:password, or pipe the password in with --password-stdin`,
  });
}

const passwordLimitBytes = 64 * 1024;

async function readPassword(stdin: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stdin as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > passwordLimitBytes)
      throw new UsageError('the password on standard input is longer than 64 KiB', {
        hint: 'is that the right file?',
      });
  }
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (password === '')
    throw new UsageError('--password-stdin: standard input is empty', {
      hint: 'pipe the password in, as in --password-stdin < FILE',
    });
  return password;
}

/** A terminal as `readline` wants it. */
export interface Terminal {
  readonly input: Readable & { setRawMode?(raw: boolean): unknown };
  readonly output: Writable;
}

/** Asks on the terminal and echoes nothing; Ctrl-C and Ctrl-D end the question with a UsageError. */
export function promptPassword(terminal: Terminal, question: string): Promise<string> {
  const { input, output } = terminal;
  return new Promise((resolve, reject) => {
    const typed: number[] = [];
    const finish = (settle: () => void) => {
      input.setRawMode?.(false);
      input.off('data', onData);
      input.pause();
      output.write('\n');
      settle();
    };
    const onData = (data: Buffer) => {
      for (const byte of data) {
        if (byte === 3 || byte === 4)
          return finish(() =>
            reject(
              new UsageError('no password was typed', {
                hint: 'type one, or pipe it in with --password-stdin',
              }),
            ),
          );
        if (byte === 13 || byte === 10) return finish(() => resolve(Buffer.from(typed).toString('utf8')));
        if (byte === 127 || byte === 8) typed.pop();
        else typed.push(byte);
      }
    };
    output.write(question);
    input.setRawMode?.(true);
    input.on('data', onData);
    input.resume();
  });
}
