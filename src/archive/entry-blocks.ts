import { isUtf8 } from 'node:buffer';
import { Header } from 'tar';
import type { TreeEntry } from '../rootfs/image-tree.ts';
import type { EntryType, SparseExtent } from '../tar/entry.ts';
import { paxRecord, paxTime, xattrRecords } from './pax-records.ts';
import { sparseMapBlocks } from './sparse-map.ts';

export const blockSize = 512;

const field = { checksum: 148, checksumEnd: 156, linkName: 157, prefix: 345 } as const;
const longest = { name: 100, linkName: 100, prefix: 155 } as const;
/** What seven and eleven octal digits hold. */
const largest = { id: 0o7777777, long: 0o77777777777 } as const;

const headerTypes = {
  file: 'File',
  directory: 'Directory',
  symlink: 'SymbolicLink',
  hardlink: 'Link',
  character: 'CharacterDevice',
  block: 'BlockDevice',
  fifo: 'FIFO',
} as const satisfies Record<EntryType, string>;

/** Without a slash at the end of its path. */
export type ArchiveEntry = Omit<TreeEntry, 'linkTo' | 'inode'>;

/** What stands before an entry's data, and how many bytes of data follow (without the padding). */
export interface EntryBlocks {
  readonly blocks: Buffer;
  readonly dataSize: number;
}

/** The blocks of one more name for a file that the archive has already, at `linkTo`. */
export function linkBlocks(entry: ArchiveEntry, linkTo: string): Buffer {
  return headerBlocks(entry, 'hardlink', entry.path, linkTo, 0, []);
}

/**
 * The header of an entry, with a pax header before it where ustar cannot hold all of it, and with the sparse map after it.
 *
 * @param extents where the data goes, for a sparse file: at block borders (`alignExtents`)
 */
export function entryBlocks(entry: ArchiveEntry, extents: readonly SparseExtent[] | undefined): EntryBlocks {
  const { type, path, linkPath, size, xattrs } = entry;
  const records = [...(xattrs ?? [])].flatMap(([name, value]) => xattrRecords(name, value));
  if (extents === undefined) {
    const name = type === 'directory' ? `${path === '' ? '.' : path}/` : path;
    return { blocks: headerBlocks(entry, type, name, linkPath, size, records), dataSize: size };
  }
  const map = sparseMapBlocks(extents, size);
  const dataSize = extents.reduce((sum, { length }) => sum + length, 0);
  records.push(
    ...nameRecords('GNU.sparse.name', path),
    paxRecord('GNU.sparse.major', '1'),
    paxRecord('GNU.sparse.minor', '0'),
    paxRecord('GNU.sparse.realsize', String(size)),
  );
  const header = headerBlocks(entry, type, 'GNUSparseFile.0/sparse', '', map.length + dataSize, records);
  return { blocks: Buffer.concat([header, map]), dataSize };
}

/** How many zeros fill data up to a block border. */
export function paddingOf(dataSize: number): number {
  return -dataSize & (blockSize - 1);
}

function headerBlocks(
  entry: ArchiveEntry,
  type: EntryType,
  path: string,
  linkPath: string,
  size: number,
  given: readonly Buffer[],
): Buffer {
  const { mtimeSeconds, mtimeNanoseconds } = entry;
  const records = [...given];
  const fitting = (key: string, value: number, limit: number): number => {
    if (value <= limit) return value;
    records.push(paxRecord(key, String(value)));
    return 0;
  };
  const timeFits = mtimeNanoseconds === 0 && mtimeSeconds >= 0 && mtimeSeconds <= largest.long;
  if (!timeFits) records.push(paxRecord('mtime', paxTime(mtimeSeconds, mtimeNanoseconds)));
  const split = splitPath(path);
  if (split === undefined) records.push(...nameRecords('path', path));
  if (linkPath.length > longest.linkName) records.push(...nameRecords('linkpath', linkPath));

  const block = ustarBlock(
    {
      type: headerTypes[type],
      mode: entry.mode,
      uid: fitting('uid', entry.uid, largest.id),
      gid: fitting('gid', entry.gid, largest.id),
      size: fitting('size', size, largest.long),
      mtime: new Date(timeFits ? mtimeSeconds * 1000 : 0),
      devmaj: entry.deviceMajor,
      devmin: entry.deviceMinor,
    },
    split ?? { prefix: '', name: path.slice(0, longest.name).replace(/\/+$/, '') },
    linkPath,
  );
  return records.length === 0 ? block : Buffer.concat([paxBlocks(records), block]);
}

/** The pax header itself: always under one name and with one time, so that it depends on its records only. */
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

/** The package writes the numbers and the type; names are bytes, which its strings cannot hold, and so the sum is ours too. */
function ustarBlock(
  numbers: ConstructorParameters<typeof Header>[0],
  path: SplitPath,
  linkPath: string,
): Buffer {
  const block = Buffer.alloc(blockSize);
  new Header(numbers).encode(block);
  block.write(path.name, 0, longest.name, 'latin1');
  block.write(linkPath, field.linkName, longest.linkName, 'latin1');
  block.write(path.prefix, field.prefix, longest.prefix, 'latin1');
  block.fill(' ', field.checksum, field.checksumEnd);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0`, field.checksum, 'latin1');
  return block;
}

interface SplitPath {
  readonly prefix: string;
  readonly name: string;
}

/** Where ustar cuts a path: at a slash, so that both parts fit and none is empty. Undefined: it does not fit. */
function splitPath(path: string): SplitPath | undefined {
  if (path.length <= longest.name) return { prefix: '', name: path };
  const cut = path.lastIndexOf('/', Math.min(longest.prefix, path.length - 2));
  if (cut <= 0 || path.length - cut - 1 > longest.name) return undefined;
  return { prefix: path.slice(0, cut), name: path.slice(cut + 1) };
}

/** A name as a pax record, which is UTF-8 unless the record before says that it is not (POSIX pax, hdrcharset). */
function nameRecords(key: string, name: string): Buffer[] {
  const bytes = Buffer.from(name, 'latin1');
  const record = paxRecord(key, bytes);
  return isUtf8(bytes) ? [record] : [paxRecord('hdrcharset', 'BINARY'), record];
}
