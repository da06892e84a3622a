const nul = 0x00;
const space = 0x20;
const plus = 0x2b;
const minus = 0x2d;
const point = 0x2e;
const digit0 = 0x30;
const digit7 = 0x37;

/**
 * A numeric field of a header: octal digits after any NULs and spaces, ended by a NUL, by nothing but spaces and NULs, or by
 * the end of the field (as Go takes it); or base 256 (GNU): the top bit set, two's complement, big end first. An empty field is 0.
 *
 * @returns NaN for anything else and beyond ±(2^53 − 1).
 */
export function parseNumber(block: Uint8Array, start: number, length: number): number {
  const end = start + length;
  let index = start;
  let byte = block[index]!;
  if (byte >= 0x80) return parseBase256(block, start, length);
  while (byte === space || byte === nul) {
    index += 1;
    if (index === end) return 0;
    byte = block[index]!;
  }
  let value = 0;
  for (;;) {
    if (byte < digit0 || byte > digit7) break;
    value = value * 8 + (byte - digit0);
    index += 1;
    if (index === end) return value;
    byte = block[index]!;
  }
  if (byte === nul) return value;
  for (; index < end; index += 1) {
    const rest = block[index];
    if (rest !== space && rest !== nul) return Number.NaN;
  }
  return value;
}

function parseBase256(block: Uint8Array, start: number, length: number): number {
  const first = block[start]!;
  const inverted = (first & 0x40) === 0 ? 0 : 0xff;
  let value = (first ^ inverted) & 0x7f;
  for (let index = start + 1; index < start + length; index += 1) {
    value = value * 256 + (block[index]! ^ inverted);
    if (value > Number.MAX_SAFE_INTEGER) return Number.NaN;
  }
  return inverted === 0 ? value : -value - 1;
}

/**
 * A decimal number as pax records and sparse maps write it: digits, a sign if need be.
 *
 * @returns NaN for anything else and beyond ±(2^53 − 1).
 */
export function parseDecimal(bytes: Uint8Array, start: number, end: number): number {
  const sign = bytes[start];
  const negative = start < end && sign === minus;
  let index = negative || sign === plus ? start + 1 : start;
  if (index >= end) return Number.NaN;
  let value = 0;
  for (; index < end; index += 1) {
    const digit = bytes[index]! - digit0;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
    if (value > Number.MAX_SAFE_INTEGER) return Number.NaN;
  }
  return negative ? 0 - value : value;
}

/** A point in time; the nanoseconds count upwards from the second, before 1970 too. */
export interface Time {
  readonly seconds: number;
  /** 0 to 999,999,999. */
  readonly nanoseconds: number;
}

/**
 * A time as pax writes it: seconds, or seconds with a fraction of any length, of which nine digits count. `-1.25` is −2 s and
 * 750,000,000 ns.
 *
 * @returns undefined for anything else.
 */
export function parseTime(bytes: Uint8Array, start: number, end: number): Time | undefined {
  const dot = bytes.subarray(start, end).indexOf(point);
  const seconds = parseDecimal(bytes, start, dot === -1 ? end : start + dot);
  if (Number.isNaN(seconds)) return undefined;
  let nanoseconds = 0;
  if (dot !== -1) {
    let unit = 100_000_000;
    for (let index = start + dot + 1; index < end; index += 1) {
      const digit = bytes[index]! - digit0;
      if (digit < 0 || digit > 9) return undefined;
      nanoseconds += digit * unit;
      unit = Math.floor(unit / 10);
    }
  }
  if (bytes[start] !== minus || nanoseconds === 0) return { seconds, nanoseconds };
  return { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
