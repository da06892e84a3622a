import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import type { TreeFile } from './tree-file.ts';

const version = 2;
const headerSize = 12;
const checksumSize = 20;
/** Times, device, inode, mode, owner and size of the file, its blob and the flags. */
const statSize = 62;
const firstSize = 64 * 1024;
const longestNameInFlags = 0xfff;
const low32 = 0xffff_ffffn;

/**
 * An index in which every file is known to be as it is in the tree (gitindex format 2, gitformat-index(5)), so that `git status` has
 * nothing to read. git itself could only write it by hashing all files once more.
 */
export class IndexFile {
  #bytes = Buffer.alloc(firstSize);
  #length = headerSize;
  #count = 0;

  /**
   * The next file in the order of the paths' bytes.
   *
   * @param stat what the disk says of it; undefined when that is not known, and git has to read it
   */
  add(file: TreeFile, stat: BigIntStats | undefined): void {
    const room = this.#length + entrySize(file.path) + checksumSize;
    if (room > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], 2 * room);
    writeEntry(this.#bytes, this.#length, file, stat);
    this.#length += entrySize(file.path);
    this.#count++;
  }

  /** The index, when all files are in it. */
  finish(): Buffer {
    this.#bytes.write('DIRC');
    this.#bytes.writeUInt32BE(version, 4);
    this.#bytes.writeUInt32BE(this.#count, 8);
    const content = this.#bytes.subarray(0, this.#length);
    createHash('sha1').update(content).digest().copy(this.#bytes, this.#length);
    return this.#bytes.subarray(0, this.#length + checksumSize);
  }
}

/** NULs after the path make it a multiple of eight; one at least. */
function entrySize(path: string): number {
  return (statSize + path.length + 8) & ~7;
}

function writeEntry(
  index: Buffer,
  start: number,
  { path, mode, id }: TreeFile,
  stat: BigIntStats | undefined,
): void {
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
