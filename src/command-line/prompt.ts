import type { Readable, Writable } from 'node:stream';
import { InterruptedError, UsageError } from '../errors.ts';

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
