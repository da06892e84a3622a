import { isAscii, isUtf8 } from 'node:buffer';
import { Header } from 'tar';
import type { ImageTreeEntry } from '../rootfs/image-tree.ts';
import { accessListText, keyOfList, textKeys } from '../tar/access-list.ts';
import { type BytePath, type EntryType, noBytes, type SparseExtent } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES, paddingOf } from '../tar/header.ts';
import { sparseMapBlocks } from './sparse-map.ts';

const FIELD = { checksum: 148, linkName: 157, prefix: 345 } as const;
const MAX_BYTES = { name: 100, linkName: 100, prefix: 155 } as const;
/** The largest numbers with seven and eleven octal digits. */
const MAX_NUMBER = { id: 0o7777777, long: 0o77777777777 } as const;

const HEADER_TYPES = {
  file: 'File',
  directory: 'Directory',
  symlink: 'SymbolicLink',
  hardlink: 'Link',
  character: 'CharacterDevice',
  block: 'BlockDevice',
  fifo: 'FIFO',
} as const satisfies Record<EntryType, string>;

/** The name in the header of a sparse file, whose own name is in a record. */
const SPARSE_NAME = 'GNUSparseFile.0/sparse' as BytePath;

/**
 * Selects the long names that are marked as bytes: `utf-8` those that are not UTF-8, `binary` those that are
 * not ASCII. mke2fs reads a tar in the C locale, in which libarchive does not convert UTF-8.
 */
export type NameRecords = 'utf-8' | 'binary';

/** An entry to write; its path does not end in a slash. */
export type ArchiveEntry = Omit<ImageTreeEntry, 'linkTo' | 'inode' | 'links' | 'stored'>;

/** The blocks before an entry's data, and the number of bytes of the data, without padding. */
export interface EntryBlocks {
  readonly blocks: Buffer;
  readonly dataSize: number;
}

/** Returns the blocks of a hard link to an earlier file of the archive, at `linkTo`. */
export function linkBlocks(entry: ArchiveEntry, linkTo: string, names: NameRecords = 'utf-8'): Buffer {
  return headerBlocks({ ...entry, type: 'hardlink', linkPath: linkTo as BytePath, size: 0 }, [], names);
}

/**
 * Returns the header of an entry, after a pax header if ustar cannot hold all fields, and before the map of a
 * sparse file.
 *
 * @param extents the data of a sparse file, aligned to blocks by `alignExtents`
 */
export function entryBlocks(
  entry: ArchiveEntry,
  extents: readonly SparseExtent[] | undefined,
  names: NameRecords = 'utf-8',
): EntryBlocks {
  const { type, path, size, xattrs } = entry;
  const records = [...(xattrs ?? [])].flatMap(([name, value]) => xattrRecords(name, value));
  if (extents === undefined) {
    const shown = (type === 'directory' ? `${path === '' ? '.' : path}/` : path) as BytePath;
    return { blocks: headerBlocks({ ...entry, path: shown }, records, names), dataSize: size };
  }
  const map = sparseMapBlocks(extents, size);
  const dataSize = extents.reduce((sum, { length }) => sum + length, 0);
  records.push(
    ...nameRecords('GNU.sparse.name', path, names),
    paxRecord('GNU.sparse.major', '1'),
    paxRecord('GNU.sparse.minor', '0'),
    paxRecord('GNU.sparse.realsize', String(size)),
  );
  const stored = { path: SPARSE_NAME, linkPath: noBytes, size: map.length + dataSize };
  const header = headerBlocks({ ...entry, ...stored }, records, names);
  return { blocks: Buffer.concat([header, map]), dataSize };
}

type HeaderEntry = Omit<ArchiveEntry, 'type'> & { readonly type: EntryType };

function headerBlocks(entry: HeaderEntry, given: readonly Buffer[], names: NameRecords): Buffer {
  const { type, path, linkPath, size, mtimeSeconds, mtimeNanoseconds } = entry;
  const records = [...given];
  const fitting = (key: string, value: number, limit: number): number => {
    if (value <= limit) return value;
    records.push(paxRecord(key, String(value)));
    return 0;
  };
  const timeFits = mtimeNanoseconds === 0 && mtimeSeconds >= 0 && mtimeSeconds <= MAX_NUMBER.long;
  if (!timeFits) records.push(paxRecord('mtime', paxTime(mtimeSeconds, mtimeNanoseconds)));
  const split = splitPath(path);
  if (split === undefined) records.push(...nameRecords('path', path, names));
  if (linkPath.length > MAX_BYTES.linkName) records.push(...nameRecords('linkpath', linkPath, names));

  const block = ustarBlock(
    {
      type: HEADER_TYPES[type],
      mode: entry.mode,
      uid: fitting('uid', entry.uid, MAX_NUMBER.id),
      gid: fitting('gid', entry.gid, MAX_NUMBER.id),
      size: fitting('size', size, MAX_NUMBER.long),
      mtime: new Date(timeFits ? mtimeSeconds * 1000 : 0),
      devmaj: entry.deviceMajor,
      devmin: entry.deviceMinor,
    },
    split ?? { prefix: '', name: path.slice(0, MAX_BYTES.name).replace(/\/+$/, '') },
    linkPath,
  );
  return records.length === 0 ? block : Buffer.concat([paxBlocks(records), block]);
}

/** Returns a pax header. Its name and time are constant, so that it depends on its records only. */
function paxBlocks(records: readonly Buffer[]): Buffer {
  const body = Buffer.concat(records);
  const numbers = { mode: 0o644, uid: 0, gid: 0, size: body.length, mtime: new Date(0) };
  const header = ustarBlock(
    { type: 'ExtendedHeader', ...numbers },
    { prefix: 'PaxHeaders.0', name: 'entry' },
    '',
  );
  return Buffer.concat([header, body, Buffer.alloc(paddingOf(body.length))]);
}

/**
 * Returns a ustar header. tar's Header writes the numbers, the type and their checksum. Its UTF-8 strings
 * cannot hold all names, so these are written here, and their bytes added to the checksum.
 */
function ustarBlock(
  numbers: ConstructorParameters<typeof Header>[0],
  path: SplitPath,
  linkPath: string,
): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  const header = new Header(numbers);
  header.encode(block);
  let sum = header.cksum!;
  const write = (text: string, offset: number, most: number): void => {
    const length = block.write(text, offset, most, 'latin1');
    for (let at = offset; at < offset + length; at += 1) sum += block[at]!;
  };
  write(path.name, 0, MAX_BYTES.name);
  write(linkPath, FIELD.linkName, MAX_BYTES.linkName);
  write(path.prefix, FIELD.prefix, MAX_BYTES.prefix);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, FIELD.checksum, 'latin1');
  return block;
}

interface SplitPath {
  readonly prefix: string;
  readonly name: string;
}

/**
 * Splits a path for ustar at a slash, so that both parts fit and neither is empty; undefined if that is
 * impossible.
 */
function splitPath(path: string): SplitPath | undefined {
  if (path.length <= MAX_BYTES.name) return { prefix: '', name: path };
  const cut = path.lastIndexOf('/', Math.min(MAX_BYTES.prefix, path.length - 2));
  if (cut <= 0 || path.length - cut - 1 > MAX_BYTES.name) return undefined;
  return { prefix: path.slice(0, cut), name: path.slice(cut + 1) };
}

/**
 * Returns a name as a pax record. Records are UTF-8 unless the one before says otherwise (POSIX pax,
 * hdrcharset).
 */
function nameRecords(key: string, name: string, names: NameRecords): Buffer[] {
  const bytes = Buffer.from(name, 'latin1');
  const record = paxRecord(key, bytes);
  return (names === 'utf-8' ? isUtf8(bytes) : isAscii(bytes))
    ? [record]
    : [paxRecord('hdrcharset', 'BINARY'), record];
}

/*
 * The records are written here: tar's Pax knows a dozen keys and no attribute, its values are UTF-8 strings,
 * and its times are Dates of milliseconds.
 */

/**
 * Returns `%d key=value\n`, with the length of the whole record in bytes (POSIX pax). Text has one character
 * per byte.
 */
function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = key.length + bytes.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

/** Returns the records of an extended attribute; an access list also as text, which `tar --acls` reads. */
function xattrRecords(name: string, value: Uint8Array): Buffer[] {
  if (textKeys.has(name)) return [paxRecord(name, value)];
  const key = keyOfList.get(name);
  const text = key === undefined ? undefined : accessListText(value);
  const record = xattrRecord(name, value);
  return key === undefined || text === undefined ? [record] : [paxRecord(key, text), record];
}

/**
 * Returns the record of an extended attribute. An equals sign would end its name: such a name gets
 * libarchive's record, with the name percent-encoded and the value in base64.
 */
function xattrRecord(name: string, value: Uint8Array): Buffer {
  if (!name.includes('=')) return paxRecord(`SCHILY.xattr.${name}`, value);
  const encoded = name.replaceAll(/[%=]/g, (character) => (character === '%' ? '%25' : '%3D'));
  return paxRecord(`LIBARCHIVE.xattr.${encoded}`, Buffer.from(value).toString('base64'));
}

/**
 * Formats a time for pax; nanoseconds count upwards from the second, before 1970 too. The fraction has all
 * nine digits: erofs-utils reads `.5` as five nanoseconds.
 */
function paxTime(seconds: number, nanoseconds: number): string {
  if (nanoseconds === 0) return String(seconds);
  const negative = seconds < 0;
  const whole = negative ? -(seconds + 1) : seconds;
  const fraction = negative ? 1_000_000_000 - nanoseconds : nanoseconds;
  const digits = String(fraction).padStart(9, '0');
  return `${negative ? '-' : ''}${whole}.${digits}`;
}
