import { printable } from '../errors.ts';
import { type BytePath, MalformedTarError, noBytes, sliceBytes, sliceUntilNul } from './entry.ts';

export const TAR_BLOCK_BYTES = 512;

/** Returns the number of bytes that pad `size` bytes of data to a block border. */
export function paddingOf(size: number): number {
  return -size & (TAR_BLOCK_BYTES - 1);
}

/** One header block; meta headers before it are not applied. */
export interface TarHeader {
  /** The type flag's byte. */
  readonly type: number;
  readonly path: BytePath;
  readonly linkPath: BytePath;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size in bytes. It may be negative; it is ignored for links, directories and devices. */
  readonly size: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Device number; 0 for all types but devices. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

const field = {
  name: 0,
  mode: 100,
  uid: 108,
  gid: 116,
  size: 124,
  mtime: 136,
  checksum: 148,
  type: 156,
  linkName: 157,
  magic: 257,
  deviceMajor: 329,
  deviceMinor: 337,
  prefix: 345,
  /** GNU has times here, ustar the prefix. */
  gnuAccessTime: 345,
  gnuChangeTime: 357,
  /** `tar` and a NUL in archives of star, whose prefix is shorter. */
  starTrailer: 508,
} as const;

const CHARACTER = 0x33;
const BLOCK_DEVICE = 0x34;

type Format = 'v7' | 'ustar' | 'gnu';

/**
 * Returns the sum of all bytes of a block. It adds four bytes at a time in two lanes of 16 bits. 128 words
 * cannot overflow these. 0 means a block of zeros.
 */
export function sumWords(words: Int32Array, start: number): number {
  let lanes = 0;
  for (let index = start; index < start + TAR_BLOCK_BYTES / 4; index += 1) {
    const word = words[index]!;
    lanes = (lanes + (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff)) | 0;
  }
  return (lanes & 0xffff) + (lanes >>> 16);
}

/**
 * Returns true if the checksum field equals the sum of the bytes (`sum`), with the field itself as spaces.
 * Old tars added signed bytes: that sum passes too. The field may have any padding.
 */
export function checksumMatches(block: Buffer, at: number, sum: number): boolean {
  const stored = parseNumber(block, at + field.checksum, 8);
  let unsigned = sum + 8 * 0x20;
  for (let index = at + field.checksum; index < at + field.type; index += 1) unsigned -= block[index]!;
  if (stored === unsigned) return true;

  let signed = unsigned;
  for (let index = at; index < at + TAR_BLOCK_BYTES; index += 1) {
    if (block[index]! >= 0x80 && (index < at + field.checksum || index >= at + field.type)) signed -= 0x100;
  }
  return stored === signed;
}

/**
 * Decodes the header block at `at`, after its checksum was verified: v7, ustar (with prefix), star, GNU.
 *
 * @throws MalformedTarError for a field that is not a number
 */
export function parseHeader(block: Buffer, at: number): TarHeader {
  const format = formatOf(block, at);
  const type = block[at + field.type]!;
  const isDevice = (type === CHARACTER || type === BLOCK_DEVICE) && format !== 'v7';
  return {
    type,
    path: parsePath(block, at, format),
    linkPath: sliceUntilNul(block, at + field.linkName, 100),
    mode: numberField(block, at + field.mode, 8, 'mode'),
    uid: numberField(block, at + field.uid, 8, 'uid'),
    gid: numberField(block, at + field.gid, 8, 'gid'),
    size: numberField(block, at + field.size, 12, 'size'),
    mtime: numberField(block, at + field.mtime, 12, 'mtime'),
    deviceMajor: isDevice ? numberField(block, at + field.deviceMajor, 8, 'device major') : 0,
    deviceMinor: isDevice ? numberField(block, at + field.deviceMinor, 8, 'device minor') : 0,
  };
}

/** Returns true if the block has GNU's magic: only then type `S` has GNU's sparse map in it. */
export function isGnu(block: Buffer, at: number): boolean {
  return formatOf(block, at) === 'gnu';
}

/** Parses a numeric field of a header or of GNU's sparse maps. @throws MalformedTarError */
export function numberField(block: Buffer, start: number, length: number, name: string): number {
  const value = parseNumber(block, start, length);
  if (value !== value) {
    const bytes = printable(block.toString('latin1', start, start + length));
    throw new MalformedTarError(`its ${name} "${bytes}" is not a number, or is too large`);
  }
  return value;
}

/**
 * Returns the format by the magic alone, as Go does. It is `ustar` and a NUL, or `ustar` and two spaces for
 * GNU; everything else is v7.
 */
function formatOf(block: Buffer, at: number): Format {
  const magic = sliceBytes(block, at + field.magic, at + field.magic + 8);
  if (magic.startsWith('ustar\0')) return 'ustar';
  return magic === 'ustar  \0' ? 'gnu' : 'v7';
}

function parsePath(block: Buffer, at: number, format: Format): BytePath {
  const name = sliceUntilNul(block, at + field.name, 100);
  if (format === 'v7' || block[at + field.prefix] === 0) return name;
  const prefix = format === 'gnu' ? misplacedPrefix(block, at) : ustarPrefix(block, at);
  return prefix === noBytes ? name : (`${prefix}/${name}` as BytePath);
}

function ustarPrefix(block: Buffer, at: number): BytePath {
  const isStar = sliceBytes(block, at + field.starTrailer, at + TAR_BLOCK_BYTES) === 'tar\0';
  return sliceUntilNul(block, at + field.prefix, isStar ? 131 : 155);
}

/**
 * Returns a prefix from a GNU header. Go before 1.8 wrote it over the access and change times. Many old
 * docker layers have such headers. The bytes are a prefix if the times are not numbers and the bytes are
 * ASCII (golang.org/issue/12594).
 */
function misplacedPrefix(block: Buffer, at: number): BytePath {
  const isTime = (start: number): boolean =>
    block[start] === 0 || !Number.isNaN(parseNumber(block, start, 12));
  if (isTime(at + field.gnuAccessTime) && isTime(at + field.gnuChangeTime)) return noBytes;
  const prefix = sliceUntilNul(block, at + field.prefix, 155);
  return Buffer.from(prefix, 'latin1').every((byte) => byte < 0x80) ? prefix : noBytes;
}

const NUL = 0x00;
const SPACE = 0x20;
const plus = 0x2b;
const minus = 0x2d;
const point = 0x2e;
const DIGIT0 = 0x30;
const DIGIT7 = 0x37;

/**
 * Parses a numeric field of a header. It has octal digits after any NULs and spaces. They end at a NUL, at
 * spaces and NULs up to the end of the field, or at its end (as in Go). With the top bit set it is base 256
 * (GNU): two's complement, big end first. An empty field is 0.
 *
 * @returns NaN for anything else and beyond ±(2^53 − 1)
 */
export function parseNumber(block: Uint8Array, start: number, length: number): number {
  const end = start + length;
  let index = start;
  let byte = block[index]!;
  if (byte >= 0x80) return parseBase256(block, start, length);
  while (byte === SPACE || byte === NUL) {
    index += 1;
    if (index === end) return 0;
    byte = block[index]!;
  }
  let value = 0;
  for (;;) {
    if (byte < DIGIT0 || byte > DIGIT7) break;
    value = value * 8 + (byte - DIGIT0);
    index += 1;
    if (index === end) return value;
    byte = block[index]!;
  }
  if (byte === NUL) return value;
  for (; index < end; index += 1) {
    const rest = block[index];
    if (rest !== SPACE && rest !== NUL) return Number.NaN;
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
 * Parses a decimal number of pax records and sparse maps: digits with an optional sign.
 *
 * @returns NaN for anything else and beyond ±(2^53 − 1)
 */
export function parseDecimal(bytes: Uint8Array, start: number, end: number): number {
  const sign = bytes[start];
  const negative = start < end && sign === minus;
  let index = negative || sign === plus ? start + 1 : start;
  if (index >= end) return Number.NaN;
  let value = 0;
  for (; index < end; index += 1) {
    const digit = bytes[index]! - DIGIT0;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
    if (value > Number.MAX_SAFE_INTEGER) return Number.NaN;
  }
  return negative ? 0 - value : value;
}

/** A point in time; the nanoseconds are added to the second, also before 1970. */
export interface Time {
  readonly seconds: number;
  /** Nanoseconds from 0 to 999,999,999. */
  readonly nanoseconds: number;
}

/**
 * Parses a time of pax: seconds with an optional fraction of any length. Nine of its digits count. `-1.25` is
 * −2 s and 750,000,000 ns.
 *
 * @returns undefined for anything else
 */
export function parseTime(bytes: Uint8Array, start: number, end: number): Time | undefined {
  const dot = bytes.subarray(start, end).indexOf(point);
  const seconds = parseDecimal(bytes, start, dot === -1 ? end : start + dot);
  if (Number.isNaN(seconds)) return undefined;
  let nanoseconds = 0;
  if (dot !== -1) {
    let unit = 100_000_000;
    for (let index = start + dot + 1; index < end; index += 1) {
      const digit = bytes[index]! - DIGIT0;
      if (digit < 0 || digit > 9) return undefined;
      nanoseconds += digit * unit;
      unit = Math.floor(unit / 10);
    }
  }
  if (bytes[start] !== minus || nanoseconds === 0) return { seconds, nanoseconds };
  return { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
