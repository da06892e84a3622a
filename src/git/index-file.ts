import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import type { TreeFile } from './fast-import.ts';

const version = 2;
const headerSize = 12;
/** Times, device, inode, mode, owner and size of the file, its blob and the flags. */
const statSize = 62;
const longestNameInFlags = 0xfff;
const low32 = 0xffff_ffffn;

/** A file of the tree and what the disk says of it. */
export interface IndexedFile extends TreeFile {
  /** Undefined: not known, git has to read the file. */
  readonly stat: BigIntStats | undefined;
}

/**
 * An index in which every file is known to be as it is in the tree (gitindex format 2, gitformat-index(5)), so that `git status` has
 * nothing to read. git itself could only write it by hashing all files once more.
 *
 * @param files in the order of their paths' bytes
 */
export function composeIndex(files: readonly IndexedFile[]): Buffer {
  const size = files.reduce((sum, { path }) => sum + entrySize(path), headerSize);
  const index = Buffer.alloc(size + 20);
  index.write('DIRC');
  index.writeUInt32BE(version, 4);
  index.writeUInt32BE(files.length, 8);
  let at = headerSize;
  for (const file of files) {
    writeEntry(index, at, file);
    at += entrySize(file.path);
  }
  createHash('sha1').update(index.subarray(0, size)).digest().copy(index, size);
  return index;
}

/** NULs after the path make it a multiple of eight; one at least. */
function entrySize(path: string): number {
  return (statSize + path.length + 8) & ~7;
}

function writeEntry(index: Buffer, start: number, { path, mode, id, stat }: IndexedFile): void {
  const numbers = [
    ...secondsAndRest(stat?.ctimeNs ?? 0n),
    ...secondsAndRest(stat?.mtimeNs ?? 0n),
    stat?.dev ?? 0n,
    stat?.ino ?? 0n,
    BigInt(Number.parseInt(mode, 8)),
    stat?.uid ?? 0n,
    stat?.gid ?? 0n,
    shownSize(stat?.size ?? 0n),
  ];
  let at = start;
  for (const number of numbers) at = index.writeUInt32BE(Number(number & low32), at);
  at += index.write(id, at, 'hex');
  at = index.writeUInt16BE(Math.min(path.length, longestNameInFlags), at);
  index.write(path, at, 'latin1');
}

/** Whole seconds, rounded down, and the nanoseconds after them. */
export function secondsAndRest(nanoseconds: bigint): [seconds: bigint, rest: bigint] {
  const rest = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return [(nanoseconds - rest) / 1_000_000_000n, rest];
}

/** git keeps 32 bits of the size, and none of them set would mean that it does not know (munge_st_size in its statinfo.c). */
function shownSize(size: bigint): bigint {
  return size !== 0n && (size & low32) === 0n ? 0x8000_0000n : size;
}
