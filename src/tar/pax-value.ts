/** The values of pax records: all of these throw MalformedTarError, with the record's key, for what is none of their kind. */
import { printable } from '../errors.ts';
import { indexOfByte, sliceBytes } from './byte-path.ts';
import type { BytePath } from './entry.ts';
import { MalformedTarError } from './malformed.ts';
import { parseDecimal, parseTime, type Time } from './numbers.ts';

const nul = 0x00;
const comma = 0x2c;

/** A path. */
export function nameValue(key: string, body: Buffer, start: number, end: number): BytePath {
  if (indexOfByte(body, nul, start, end) !== -1) throw new MalformedTarError(`its pax ${key} has a NUL byte`);
  return sliceBytes(body, start, end);
}

export function numberValue(key: string, body: Buffer, start: number, end: number): number {
  const value = parseDecimal(body, start, end);
  if (Number.isNaN(value)) throw badValue(key, body, start, end, 'no number, or too large a one');
  return value;
}

export function timeValue(key: string, body: Buffer, start: number, end: number): Time {
  const time = parseTime(body, start, end);
  if (time === undefined) throw badValue(key, body, start, end, 'no time');
  return time;
}

/** Numbers between commas. */
export function listValue(key: string, body: Buffer, start: number, end: number): number[] {
  const list: number[] = [];
  for (let from = start; from <= end;) {
    const found = indexOfByte(body, comma, from, end);
    const to = found === -1 ? end : found;
    list.push(numberValue(key, body, from, to));
    from = to + 1;
  }
  return list;
}

/** As libarchive writes it, which leaves the padding out. */
export function base64Value(key: string, body: Buffer, start: number, end: number): Uint8Array {
  const text = sliceBytes(body, start, end);
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw badValue(key, body, start, end, 'no base64');
  return Buffer.from(text, 'base64');
}

export function percentDecoded(text: string): string {
  return text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function badValue(key: string, body: Buffer, start: number, end: number, what: string): MalformedTarError {
  return new MalformedTarError(
    `its pax ${printable(key)} "${printable(sliceBytes(body, start, end), 60)}" is ${what}`,
  );
}
