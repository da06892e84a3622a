import { createHash } from 'node:crypto';
import { GitError } from '../errors.ts';
import type { Inode } from './inodes.ts';
import type { ObjectID, TreeMode } from './trees.ts';
import type { NewFile, RootfsFiles } from './rootfs-files.ts';
import type { FileStat } from '../rootfs/filesystem.ts';

const VERSION = 2;
const HEADER_SIZE = 12;
const CHECKSUM_SIZE = 20;
/** Times, device, inode, mode, owner and size of the file, its blob and the flags. */
const FIXED_SIZE = 62;
/** In bytes: much more than an entry has. */
const PART_SIZE = 1024 * 1024;
const longestNameInFlags = 0xfff;

/**
 * An index that marks every file as unchanged (version 2, gitformat-index(5)), so that `git status` reads no file. git itself could
 * only write it by hashing all files again.
 */
export class IndexFile {
  readonly #files: RootfsFiles;
  readonly #file: NewFile;
  readonly #part = Buffer.allocUnsafeSlow(PART_SIZE);
  /** Bytes of the index, and those of them that are in the file. */
  #length = HEADER_SIZE;
  #written = HEADER_SIZE;
  #count = 0;

  /** @param file empty */
  constructor(files: RootfsFiles, file: NewFile) {
    this.#files = files;
    this.#file = file;
  }

  /** The next file in the order of the paths' bytes. Where its `stat` is not known, git has to read it. */
  add(path: string, mode: TreeMode, inode: Inode): void {
    const size = entrySize(path);
    if (this.#length - this.#written + size > PART_SIZE) this.#flush();
    const part = this.#part;
    const start = this.#length - this.#written;
    part.fill(0, start + size - 8, start + size);
    inode.copyStatAndId(part, start);
    part.writeUInt32BE(modes[mode], start + MODE_AT);
    const at = part.writeUInt16BE(Math.min(path.length, longestNameInFlags), start + FLAGS_AT);
    part.write(path, at, 'latin1');
    this.#length += size;
    this.#count += 1;
  }

  /** Completes the index. The number of entries, which is known only now, comes first in the checksum. */
  finish(): void {
    this.#flush();
    const header = Buffer.alloc(HEADER_SIZE);
    header.write('DIRC');
    header.writeUInt32BE(VERSION, 4);
    header.writeUInt32BE(this.#count, 8);
    this.#file.write(header, 0);
    const hash = createHash('sha1');
    for (const part of this.#files.pieces(this.#file.name, this.#part)) hash.update(part);
    this.#file.write(hash.digest(), this.#length);
  }

  #flush(): void {
    this.#file.write(this.#part.subarray(0, this.#length - this.#written), this.#written);
    this.#written = this.#length;
  }
}

/** NULs after the path make it a multiple of eight; one at least. */
function entrySize(path: string): number {
  return (FIXED_SIZE + path.length + 8) & ~7;
}

const modes: Readonly<Record<TreeMode, number>> = { 100644: 0o100644, 100755: 0o100755, 120000: 0o120000 };
const DEVICE_AT = 16;
const MODE_AT = 24;
const FLAGS_AT = 60;

/** In bytes: of what `putStat` writes. */
export const STAT_SIZE = 40;

/** Writes what an index says of a file's inode, 0 for its mode: low halves of the numbers. */
export function putStat(into: DataView, at: number, stat: FileStat): void {
  const { identity } = stat;
  const colon = identity.indexOf(':');
  into.setUint32(at, stat.ctimeSeconds);
  into.setUint32(at + 4, stat.ctimeNanoseconds);
  into.setUint32(at + 8, stat.mtimeSeconds);
  into.setUint32(at + 12, stat.mtimeNanoseconds);
  into.setUint32(at + DEVICE_AT, low32(identity.slice(0, colon)));
  into.setUint32(at + 20, low32(identity.slice(colon + 1)));
  into.setUint32(at + MODE_AT, 0);
  into.setUint32(at + 28, stat.uid);
  into.setUint32(at + 32, stat.gid);
  into.setUint32(at + 36, shownSize(stat.size));
}

function low32(digits: string): number {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number >>> 0 : Number(BigInt.asUintN(32, BigInt(digits)));
}

/** git keeps 32 bits of the size; 0 means unknown (munge_st_size in its statinfo.c). */
function shownSize(size: number): number {
  return size !== 0 && size >>> 0 === 0 ? 0x8000_0000 : size;
}

/** A file as an index has it. */
export interface IndexEntry {
  readonly id: ObjectID;
  /** As in a tree, octal. */
  readonly mode: string;
  /** Of a merge that has conflicts; else 0. */
  readonly stage: number;
  /** Whether a file's inode is as it was when git read it last: then its content is the blob's. */
  isOf(stat: FileStat): boolean;
}

/**
 * Reads an index of version 2 to 4 (gitformat-index(5)).
 *
 * @param writtenSeconds when it was written: a change then or later may be unnoticed
 * @returns entries by their paths, one character a byte
 * @throws GitError when it is damaged, or only a part of one
 */
export function parseIndex(bytes: Buffer, writtenSeconds: number): Map<string, IndexEntry> {
  const entries = new Map<string, IndexEntry>();
  try {
    const parsed = bytes.readUInt32BE(4);
    const end = bytes.length - CHECKSUM_SIZE;
    if (bytes.toString('latin1', 0, 4) !== 'DIRC' || parsed < 2 || parsed > 4)
      throw new RangeError('no index');
    const checksum = bytes.subarray(end);
    const isHashed = checksum.some((byte) => byte !== 0);
    if (isHashed && !createHash('sha1').update(bytes.subarray(0, end)).digest().equals(checksum))
      throw new RangeError('its checksum is wrong');
    let at = HEADER_SIZE;
    let path = '';
    for (let count = bytes.readUInt32BE(8); count > 0; count -= 1) {
      const start = at;
      const flags = bytes.readUInt16BE(start + FLAGS_AT);
      at += FIXED_SIZE + ((flags & 0x4000) === 0 ? 0 : 2);
      let kept = 0;
      if (parsed === 4) [kept, at] = readOffset(bytes, at, path.length);
      const nul = bytes.indexOf(0, at);
      if (nul < 0 || nul >= end) throw new RangeError('it is cut off');
      path = path.slice(0, kept) + bytes.toString('latin1', at, nul);
      at = parsed === 4 ? nul + 1 : start + ((nul - start + 8) & ~7);
      entries.set(path, entryAt(bytes, start, (flags >>> 12) & 3, writtenSeconds));
    }
    for (; at + 8 <= end; at += 8 + bytes.readUInt32BE(at + 4)) {
      const name = bytes.toString('latin1', at, at + 4);
      if (name === 'link' || name === 'sdir') throw new RangeError('it holds only a part of the files');
    }
    return entries;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new GitError(`cannot read the index of the repository: ${error.message}`, {
      code: 'GIT_INDEX',
      hint: 'dlrootfs checkout BRANCH --force writes it again, and gives up what is in no commit',
      cause: error,
    });
  }
}

function entryAt(bytes: Buffer, start: number, stage: number, writtenSeconds: number): IndexEntry {
  return {
    id: bytes.toString('hex', start + 40, start + 60) as ObjectID,
    mode: bytes.readUInt32BE(start + MODE_AT).toString(8),
    stage,
    isOf: (stat) => stat.mtimeSeconds < writtenSeconds && isStatAt(bytes, start, stat),
  };
}

function isStatAt(bytes: Buffer, start: number, stat: FileStat): boolean {
  const now = Buffer.allocUnsafe(STAT_SIZE);
  putStat(new DataView(now.buffer, now.byteOffset), 0, stat);
  // git does not compare devices either: their numbers change from one boot to the next.
  for (const at of [DEVICE_AT, MODE_AT]) bytes.copy(now, at, start + at, start + at + 4);
  return bytes.compare(now, 0, STAT_SIZE, start, start + STAT_SIZE) === 0;
}

/** Version 4: how much of the path before is left, as a number of offset varint (gitformat-pack(5)). */
function readOffset(bytes: Buffer, start: number, length: number): [kept: number, at: number] {
  let at = start;
  let byte = bytes.readUInt8(at);
  at += 1;
  let dropped = byte & 0x7f;
  while ((byte & 0x80) !== 0) {
    byte = bytes.readUInt8(at);
    at += 1;
    dropped = (dropped + 1) * 128 + (byte & 0x7f);
  }
  if (dropped > length) throw new RangeError('it is damaged');
  return [length - dropped, at];
}
