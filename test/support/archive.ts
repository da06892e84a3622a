/**
 * Archives from descriptions: `tar(dir('etc'), file('etc/motd', 'hi'), symlink('lib', 'usr/lib'),
 * whiteout('etc/old'))`.
 *
 * Names in strings are UTF-8; Buffers are written byte for byte. No name is normalised or refused, so attacks
 * are possible. `header` and `raw` write any other block.
 */
import { gzipSync, zstdCompressSync } from 'node:zlib';

export type Dialect = 'v7' | 'ustar' | 'gnu' | 'pax';
export type Bytes = string | Uint8Array;

export interface Metadata {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly uname?: string;
  readonly gname?: string;
  /** Seconds, or `[seconds, nanoseconds]`; default: 1,000,000,000. */
  readonly mtime?: number | readonly [seconds: number, nanoseconds: number];
  /** Values by full name (`user.x`). They become SCHILY.xattr records in every dialect, as in GNU tar. */
  readonly xattrs?: Readonly<Record<string, Bytes>>;
  /** Further pax records, written after those of the other members. */
  readonly pax?: Readonly<Record<string, Bytes>>;
  readonly dialect?: Dialect;
}

export interface Item {
  /** Returns the blocks of the entry, with its meta headers. */
  encode(dialect: Dialect): Uint8Array;
}

export const BLOCK_SIZE = 512;

const toBytes = (value: Bytes): Buffer =>
  typeof value === 'string' ? Buffer.from(value) : Buffer.from(value);

// --- descriptions ---

/** Returns an archive with its end mark, in pax format (ustar with pax records if needed). */
export function tar(...items: readonly Item[]): Buffer {
  return tarAs('pax', ...items);
}

/** Returns an archive with its end mark in `dialect`, except for items that name a dialect. */
export function tarAs(dialect: Dialect, ...items: readonly Item[]): Buffer {
  return Buffer.concat([...items.map((item) => item.encode(dialect)), endMark]);
}

/** Two blocks of zeros. */
export const endMark: Buffer = Buffer.alloc(2 * BLOCK_SIZE);

export function dir(name: Bytes, metadata: Metadata = {}): Item {
  const path = toBytes(name);
  const slashed = path.at(-1) === 0x2f ? path : Buffer.concat([path, Buffer.from('/')]);
  return entry({ type: '5', name: slashed, mode: 0o755 }, metadata);
}

export function file(name: Bytes, content: Bytes = '', metadata: Metadata = {}): Item {
  return entry({ type: '0', name, mode: 0o644, data: toBytes(content) }, metadata);
}

export function symlink(name: Bytes, target: Bytes, metadata: Metadata = {}): Item {
  return entry({ type: '2', name, linkname: target, mode: 0o777 }, metadata);
}

export function hardlink(name: Bytes, target: Bytes, metadata: Metadata = {}): Item {
  return entry({ type: '1', name, linkname: target, mode: 0o644 }, metadata);
}

export function character(name: Bytes, major: number, minor: number, metadata: Metadata = {}): Item {
  return entry({ type: '3', name, mode: 0o600, major, minor }, metadata);
}

export function block(name: Bytes, major: number, minor: number, metadata: Metadata = {}): Item {
  return entry({ type: '4', name, mode: 0o600, major, minor }, metadata);
}

export function fifo(name: Bytes, metadata: Metadata = {}): Item {
  return entry({ type: '6', name, mode: 0o644 }, metadata);
}

/** `whiteout('etc/old')` is the empty file `etc/.wh.old`. */
export function whiteout(path: string, metadata: Metadata = {}): Item {
  const cut = path.lastIndexOf('/') + 1;
  return file(`${path.slice(0, cut)}.wh.${path.slice(cut)}`, '', metadata);
}

/** `opaque('etc')` is the empty file `etc/.wh..wh..opq`; `opaque('')` stands at the root. */
export function opaque(directory: string, metadata: Metadata = {}): Item {
  return file(directory === '' ? '.wh..wh..opq' : `${directory}/.wh..wh..opq`, '', metadata);
}

export type SparseFormat = 'gnu' | '0.0' | '0.1' | '1.0';
export type Extent = readonly [offset: number, data: Bytes];

/** A file with holes in GNU tar's old format (type `S`) or in one of its three pax formats. */
export function sparse(
  name: Bytes,
  size: number,
  extents: readonly Extent[],
  format: SparseFormat,
  metadata: Metadata = {},
): Item {
  const map = extents.map(([offset, data]) => [offset, toBytes(data).length] as const);
  const stored = Buffer.concat(extents.map(([, data]) => toBytes(data)));
  const mode = 0o644;
  if (format === 'gnu') return { encode: () => oldSparse({ name, mode, size, map, stored }, metadata) };

  const records: [string, Bytes][] = [];
  let data = stored;
  if (format === '1.0') {
    records.push(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0'], ['GNU.sparse.name', name]);
    records.push(['GNU.sparse.realsize', String(size)]);
    const text = `${map.length}\n${map.map(([offset, length]) => `${offset}\n${length}\n`).join('')}`;
    data = Buffer.concat([padded(Buffer.from(text)), stored]);
  } else {
    records.push(['GNU.sparse.size', String(size)], ['GNU.sparse.numblocks', String(map.length)]);
    if (format === '0.1') {
      records.push(['GNU.sparse.name', name], ['GNU.sparse.map', map.flat().join(',')]);
    } else {
      for (const [offset, length] of map) {
        records.push(['GNU.sparse.offset', String(offset)], ['GNU.sparse.numbytes', String(length)]);
      }
    }
  }
  const placeholder = format === '0.0' ? name : 'GNUSparseFile.0/placeholder';
  return {
    encode: () =>
      Buffer.concat([
        paxHeader(records),
        entry({ type: '0', name: placeholder, mode, data }, metadata).encode('pax'),
      ]),
  };
}

/** Writes any bytes unchanged. */
export function raw(...parts: readonly Bytes[]): Item {
  return { encode: () => Buffer.concat(parts.map(toBytes)) };
}

// --- compression, for blobs ---

export function gzip(bytes: Uint8Array): Buffer {
  return gzipSync(bytes, { level: 6 });
}

export function zstd(bytes: Uint8Array): Buffer {
  return zstdCompressSync(bytes);
}

// --- the blocks ---

export interface HeaderFields {
  readonly name?: Bytes;
  readonly mode?: number | Bytes;
  readonly uid?: number | Bytes;
  readonly gid?: number | Bytes;
  readonly size?: number | Bytes;
  readonly mtime?: number | Bytes;
  /** Default: the sum of the other bytes, as six octal digits, NUL, space. */
  readonly checksum?: Bytes;
  readonly type?: string;
  readonly linkname?: Bytes;
  /** Magic and version: eight bytes. */
  readonly magic?: Bytes;
  readonly uname?: string;
  readonly gname?: string;
  readonly major?: number | Bytes;
  readonly minor?: number | Bytes;
  readonly prefix?: Bytes;
  /** Written over the block before the checksum is computed. */
  readonly patches?: readonly (readonly [offset: number, bytes: Bytes])[];
}

export const ustarMagic = 'ustar\x0000';
export const gnuMagic = 'ustar  \0';
export const v7Magic = '\0'.repeat(8);

/**
 * Returns a header block. Numbers become octal digits with a NUL, or base 256 if they do not fit. Bytes are
 * written unchanged.
 */
export function header(fields: HeaderFields): Buffer {
  const block512 = Buffer.alloc(BLOCK_SIZE);
  const put = (offset: number, length: number, value: Bytes | undefined): void => {
    if (value !== undefined) toBytes(value).copy(block512, offset, 0, length);
  };
  const number = (offset: number, length: number, value: number | Bytes | undefined): void => {
    if (typeof value === 'number') encodeNumber(value, length).copy(block512, offset);
    else put(offset, length, value);
  };
  put(0, 100, fields.name);
  number(100, 8, fields.mode ?? 0o644);
  number(108, 8, fields.uid ?? 0);
  number(116, 8, fields.gid ?? 0);
  number(124, 12, fields.size ?? 0);
  number(136, 12, fields.mtime ?? 1_000_000_000);
  put(156, 1, fields.type ?? '0');
  put(157, 100, fields.linkname);
  put(257, 8, fields.magic ?? ustarMagic);
  put(265, 32, fields.uname);
  put(297, 32, fields.gname);
  number(329, 8, fields.major);
  number(337, 8, fields.minor);
  put(345, 155, fields.prefix);
  for (const [offset, bytes] of fields.patches ?? []) toBytes(bytes).copy(block512, offset);
  put(148, 8, fields.checksum ?? checksumField(block512));
  return block512;
}

/** Returns the field at offset 148: the sum of all bytes, with the field itself as spaces. */
export function checksumField(block512: Uint8Array): string {
  let sum = 8 * 0x20;
  for (const [index, byte] of block512.entries()) if (index < 148 || index >= 156) sum += byte;
  return `${sum.toString(8).padStart(6, '0')}\0 `;
}

/**
 * Returns a number as GNU tar writes it: octal digits and a NUL, else base 256 (two's complement, top bit
 * set).
 */
export function encodeNumber(value: number, length: number): Buffer {
  const digits = value.toString(8);
  if (value >= 0 && Number.isInteger(value) && digits.length < length) {
    return Buffer.from(`${digits.padStart(length - 1, '0')}\0`);
  }
  const bytes = Buffer.alloc(length);
  let rest = BigInt(value);
  for (let index = length - 1; index >= 0; index -= 1) {
    bytes[index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[0] = value < 0 ? 0xff : 0x80;
  return bytes;
}

/** Returns the data followed by zeros up to the next block. */
export function padded(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((BLOCK_SIZE - (data.length % BLOCK_SIZE)) % BLOCK_SIZE)]);
}

/**
 * Returns `%d key=value
 * ` with the length of the whole record in bytes.
 */
export function paxRecord(key: string, value: Bytes): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), toBytes(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Returns a pax header with its records: `x` for the next entry, `g` for all later ones. */
export function paxHeader(
  records: Iterable<readonly [key: string, value: Bytes]>,
  type: 'x' | 'g' | 'X' = 'x',
): Buffer {
  const body = Buffer.concat([...records].map(([key, value]) => paxRecord(key, value)));
  return Buffer.concat([header({ name: 'PaxHeaders.0/entry', type, size: body.length }), padded(body)]);
}

/** Returns GNU's header for a long name (`L`) or a long link (`K`). */
export function longHeader(type: 'L' | 'K', name: Bytes): Buffer {
  const body = Buffer.concat([toBytes(name), Buffer.alloc(1)]);
  return Buffer.concat([
    header({ name: '././@LongLink', type, size: body.length, magic: gnuMagic, mode: 0, mtime: 0 }),
    padded(body),
  ]);
}

interface Parts {
  readonly type: string;
  readonly name: Bytes;
  readonly mode: number;
  readonly linkname?: Bytes;
  readonly data?: Buffer;
  readonly major?: number;
  readonly minor?: number;
}

function entry(parts: Parts, metadata: Metadata): Item {
  return { encode: (dialect) => encodeEntry(parts, metadata, metadata.dialect ?? dialect) };
}

function encodeEntry(parts: Parts, metadata: Metadata, dialect: Dialect): Buffer {
  const name = toBytes(parts.name);
  const linkname = toBytes(parts.linkname ?? '');
  const { seconds, nanoseconds } = mtimeOf(metadata);
  const size = parts.data?.length ?? 0;
  const before: Buffer[] = [];
  const records: [string, Bytes][] = [];

  let headerName = name;
  let prefix: Buffer | undefined;
  if (name.length > 100) {
    const cut = dialect === 'ustar' || dialect === 'pax' ? prefixCut(name) : -1;
    if (cut >= 0) {
      prefix = name.subarray(0, cut);
      headerName = name.subarray(cut + 1);
    } else if (dialect === 'pax') records.push(['path', name]);
    else if (dialect === 'gnu') before.push(longHeader('L', name));
    else throw new Error(`${dialect}: the name does not fit`);
  }
  if (linkname.length > 100) {
    if (dialect === 'pax') records.push(['linkpath', linkname]);
    else if (dialect === 'gnu') before.push(longHeader('K', linkname));
    else throw new Error(`${dialect}: the link name does not fit`);
  }
  const numbers = { uid: metadata.uid ?? 0, gid: metadata.gid ?? 0, size, mtime: seconds };
  const fitting = { ...numbers };
  if (dialect !== 'gnu') {
    for (const key of ['uid', 'gid', 'size', 'mtime'] as const) {
      const limit = key === 'uid' || key === 'gid' ? 0o7777777 : 0o77777777777;
      if (numbers[key] >= 0 && numbers[key] <= limit) continue;
      if (dialect !== 'pax') throw new Error(`${dialect}: ${key} does not fit`);
      fitting[key] = 0;
      if (key !== 'mtime' || nanoseconds === 0) records.push([key, String(numbers[key])]);
    }
  }
  if (nanoseconds !== 0) {
    if (dialect !== 'pax') throw new Error(`${dialect}: nanoseconds do not fit`);
    records.push(['mtime', decimalTime(seconds, nanoseconds)]);
  }
  for (const [key, value] of Object.entries(metadata.xattrs ?? {}))
    records.push([`SCHILY.xattr.${key}`, value]);
  records.push(...Object.entries(metadata.pax ?? {}));
  if (records.length > 0) before.push(paxHeader(records));

  const v7Directory = dialect === 'v7' && parts.type === '5';
  return Buffer.concat([
    ...before,
    header({
      ...fitting,
      name: headerName,
      ...(prefix === undefined ? {} : { prefix }),
      mode: metadata.mode ?? parts.mode,
      type: v7Directory || (dialect === 'v7' && parts.type === '0') ? '\0' : parts.type,
      linkname,
      magic: { v7: v7Magic, ustar: ustarMagic, gnu: gnuMagic, pax: ustarMagic }[dialect],
      ...(dialect === 'v7' ? {} : { uname: metadata.uname ?? '', gname: metadata.gname ?? '' }),
      ...(parts.major === undefined ? {} : { major: parts.major, minor: parts.minor ?? 0 }),
    }),
    padded(parts.data ?? Buffer.alloc(0)),
  ]);
}

interface OldSparse {
  readonly name: Bytes;
  readonly mode: number;
  readonly size: number;
  readonly map: readonly (readonly [offset: number, length: number])[];
  readonly stored: Buffer;
}

/** Four extents are in the header, twenty-one in each block after it. */
function oldSparse({ name, mode, size, map, stored }: OldSparse, metadata: Metadata): Buffer {
  const extent = ([offset, length]: readonly [number, number]): Buffer =>
    Buffer.concat([encodeNumber(offset, 12), encodeNumber(length, 12)]);
  const blocks: Buffer[] = [];
  for (let index = 4; index < map.length; index += 21) {
    const more = Buffer.alloc(BLOCK_SIZE);
    Buffer.concat(map.slice(index, index + 21).map(extent)).copy(more);
    more[504] = map.length > index + 21 ? 1 : 0;
    blocks.push(more);
  }
  const { seconds } = mtimeOf(metadata);
  const first = header({
    name,
    mode: metadata.mode ?? mode,
    uid: metadata.uid ?? 0,
    gid: metadata.gid ?? 0,
    mtime: seconds,
    type: 'S',
    size: stored.length,
    magic: gnuMagic,
    patches: [
      [386, Buffer.concat(map.slice(0, 4).map(extent))],
      [482, Buffer.from([map.length > 4 ? 1 : 0])],
      [483, encodeNumber(size, 12)],
    ],
  });
  return Buffer.concat([first, ...blocks, padded(stored)]);
}

/**
 * Offset at which ustar can split a name: the prefix has at most 155 bytes, the rest 1 to 100. -1 without
 * one.
 */
function prefixCut(name: Buffer): number {
  for (let cut = Math.min(155, name.length - 2); cut > 0; cut -= 1) {
    if (name[cut] === 0x2f) return name.length - cut - 1 <= 100 ? cut : -1;
  }
  return -1;
}

function mtimeOf({ mtime = 1_000_000_000 }: Metadata): { seconds: number; nanoseconds: number } {
  return typeof mtime === 'number'
    ? { seconds: mtime, nanoseconds: 0 }
    : { seconds: mtime[0], nanoseconds: mtime[1] };
}

/** Returns a time in pax format. Nanoseconds count upwards, also before 1970. */
export function decimalTime(seconds: number, nanoseconds: number): string {
  const all = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const magnitude = all < 0n ? -all : all;
  const fraction = String(magnitude % 1_000_000_000n).padStart(9, '0');
  return `${all < 0n ? '-' : ''}${magnitude / 1_000_000_000n}.${fraction}`;
}
