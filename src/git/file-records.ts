import type { FileStat } from '../rootfs/filesystem.ts';
import { ID_SIZE, type TreeMode } from './trees.ts';

/** In bytes: of what `putStat` writes. */
export const STAT_SIZE = 40;
/** Offsets in a record: the result of stat(2) and the id are first, as in an entry of an index. */
const ID_AT = STAT_SIZE;
const FLAGS_AT = ID_AT + ID_SIZE;
const RECORD_SIZE = 64;
const RECORDS_AT_ONCE = 2048;

const modes: readonly TreeMode[] = ['100644', '100755', '120000'];
const MODE_BITS = 3;
/** It has had a further name, so its ctime may change when a name comes or goes. */
const LINKED = 4;
const HAS_STAT = 8;

/**
 * What git holds of files and symlinks, by the numbers of their contents: mode, id, and the result of stat(2) for the index. In records of one
 * size: as objects they take four times as much memory.
 */
export class FileRecords {
  readonly #blocks: { readonly bytes: Buffer; readonly view: DataView }[] = [];

  /** Makes the record of a file that is new. */
  describe(number: number, mode: TreeMode): void {
    this.#block(number).bytes[offsetOf(number) + FLAGS_AT] = modes.indexOf(mode);
  }

  mode(number: number): TreeMode {
    return modes[this.#flags(number) & MODE_BITS]!;
  }

  /** Takes the id of the blob from its `ID_SIZE` bytes at `start`. */
  setId(number: number, bytes: Buffer, start: number): void {
    bytes.copy(this.#block(number).bytes, offsetOf(number) + ID_AT, start, start + ID_SIZE);
  }

  /** Copies the bytes of the id. */
  copyId(number: number, into: Buffer, at: number): void {
    const start = offsetOf(number) + ID_AT;
    this.#block(number).bytes.copy(into, at, start, start + ID_SIZE);
  }

  markLinked(number: number): void {
    this.#setFlags(number, this.#flags(number) | LINKED);
  }

  /** Whether the status that is known may differ from that on disk, or none is. */
  needsStat(number: number): boolean {
    return (this.#flags(number) & (LINKED | HAS_STAT)) !== HAS_STAT;
  }

  /** @param stat undefined if unknown: git has to read the file */
  setStat(number: number, stat: FileStat | undefined): void {
    const at = offsetOf(number);
    const { bytes, view } = this.#block(number);
    if (stat) putStat(view, at, stat);
    else bytes.fill(0, at, at + STAT_SIZE);
    this.#setFlags(number, stat ? this.#flags(number) | HAS_STAT : this.#flags(number) & ~HAS_STAT);
  }

  /** Copies the result of stat(2) (zeros if unknown) and the id into an index. */
  copyStatAndId(number: number, into: Buffer, at: number): void {
    const start = offsetOf(number);
    this.#block(number).bytes.copy(into, at, start, start + STAT_SIZE + ID_SIZE);
  }

  #flags(number: number): number {
    return this.#block(number).bytes[offsetOf(number) + FLAGS_AT]!;
  }

  #setFlags(number: number, flags: number): void {
    this.#block(number).bytes[offsetOf(number) + FLAGS_AT] = flags;
  }

  #block(number: number): { readonly bytes: Buffer; readonly view: DataView } {
    const index = Math.floor(number / RECORDS_AT_ONCE);
    while (this.#blocks.length <= index) {
      const memory = new ArrayBuffer(RECORDS_AT_ONCE * RECORD_SIZE);
      this.#blocks.push({ bytes: Buffer.from(memory), view: new DataView(memory) });
    }
    return this.#blocks[index]!;
  }
}

/** Where a record begins in its block. */
function offsetOf(number: number): number {
  return (number % RECORDS_AT_ONCE) * RECORD_SIZE;
}

/** Writes what an index says of a file's inode (gitformat-index(5)), 0 for its mode: low halves of the numbers. */
function putStat(into: DataView, at: number, stat: FileStat): void {
  const { identity } = stat;
  const colon = identity.indexOf(':');
  into.setUint32(at, stat.ctimeSeconds);
  into.setUint32(at + 4, stat.ctimeNanoseconds);
  into.setUint32(at + 8, stat.mtimeSeconds);
  into.setUint32(at + 12, stat.mtimeNanoseconds);
  into.setUint32(at + 16, low32(identity.slice(0, colon)));
  into.setUint32(at + 20, low32(identity.slice(colon + 1)));
  into.setUint32(at + 24, 0);
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
