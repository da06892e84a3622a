import { printable } from '../errors.ts';
import type { BytePath } from './entry.ts';

/** Buffer's own decoder of one encoding: half the time of `toString('latin1', start, end)`. */
interface Latin1Slice {
  latin1Slice(start: number, end: number): BytePath;
}

/** The bytes from `start` to `end` as they are, one character each. */
export function sliceBytes(bytes: Buffer, start: number, end: number): BytePath {
  return (bytes as unknown as Latin1Slice).latin1Slice(start, end);
}

/** Bytes up to the first NUL, at most `length` of them. */
export function sliceUntilNul(bytes: Buffer, start: number, length: number): BytePath {
  if (length === 0 || bytes[start] === 0) return noBytes;
  const limit = start + length;
  let end = start + 1;
  while (end < limit && bytes[end] !== 0) end += 1;
  return sliceBytes(bytes, start, end);
}

/** Where `byte` is first, from `start` to `end`; −1: nowhere. A loop: the native search costs more than the few bytes there are to look at. */
export function indexOfByte(bytes: Buffer, byte: number, start: number, end: number): number {
  for (let index = start; index < end; index += 1) if (bytes[index] === byte) return index;
  return -1;
}

export const noBytes = '' as BytePath;

/** A name that people wrote, as the UTF-8 bytes it has on disk. */
export function bytePath(text: string): BytePath {
  return Buffer.from(text).toString('latin1') as BytePath;
}

/** For messages: decoded as UTF-8 and harmless to a terminal. */
export function displayPath(path: BytePath): string {
  return printable(Buffer.from(path, 'latin1').toString());
}
