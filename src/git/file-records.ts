import type { FileStat } from '../rootfs/filesystem.ts';
import { ID_BYTES, type TreeMode } from './trees.ts';

/** The number of bytes that `putStat` writes. */
export const STAT_BYTES = 40;
/** Offsets in a record, which begins with the result of stat(2) and the id, as an entry of an index does. */
const ID_AT = STAT_BYTES;
const FLAGS_AT = ID_AT + ID_BYTES;
const RECORD_BYTES = 64;
const RECORDS_AT_ONCE = 2048;

const modes: readonly TreeMode[] = ['100644', '100755', '120000'];
const MODE_BITS = 3;
/** The file got another name, so its ctime may change when a name comes or goes. */
const LINKED = 4;
const HAS_STAT = 8;

/**
 * Mode, id, and result of stat(2) of files and symlinks, by the numbers of their contents. Records of a fixed
 * size take a quarter of the memory of objects.
 */
export class FileRecords {
  readonly #blocks: { readonly bytes: Buffer; readonly view: DataView }[] = [];

  /** Makes the record of a new file. */
  describe(number: number, mode: TreeMode): void {
    this.#block(number).bytes[offsetOf(number) + FLAGS_AT] = modes.indexOf(mode);
  }

  mode(number: number): TreeMode {
    return modes[this.#flags(number) & MODE_BITS]!;
  }

  /** Sets the id of the blob: the `ID_BYTES` bytes at `start`. */
  setId(number: number, bytes: Buffer, start: number): void {
    bytes.copy(this.#block(number).bytes, offsetOf(number) + ID_AT, start, start + ID_BYTES);
  }

  /** Copies the bytes of the id. */
  copyId(number: number, into: Buffer, at: number): void {
    const start = offsetOf(number) + ID_AT;
    this.#block(number).bytes.copy(into, at, start, start + ID_BYTES);
  }

  markLinked(number: number): void {
    this.#setFlags(number, this.#flags(number) | LINKED);
  }

  /** True if the status is unknown, or may differ from that on disk. */
  needsStat(number: number): boolean {
    return (this.#flags(number) & (LINKED | HAS_STAT)) !== HAS_STAT;
  }

  /** @param stat undefined if unknown: then git has to read the file */
  setStat(number: number, stat: FileStat | undefined): void {
    const at = offsetOf(number);
    const { bytes, view } = this.#block(number);
    if (stat) putStat(view, at, stat);
    else bytes.fill(0, at, at + STAT_BYTES);
    this.#setFlags(number, stat ? this.#flags(number) | HAS_STAT : this.#flags(number) & ~HAS_STAT);
  }

  /** Copies the result of stat(2), zeros if unknown, and the id into an index. */
  copyStatAndId(number: number, into: Buffer, at: number): void {
    const start = offsetOf(number);
    this.#block(number).bytes.copy(into, at, start, start + STAT_BYTES + ID_BYTES);
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
      const memory = new ArrayBuffer(RECORDS_AT_ONCE * RECORD_BYTES);
      this.#blocks.push({ bytes: Buffer.from(memory), view: new DataView(memory) });
    }
    return this.#blocks[index]!;
  }
}

/** Returns the offset of a record in its block. */
function offsetOf(number: number): number {
  return (number % RECORDS_AT_ONCE) * RECORD_BYTES;
}

/**
 * Writes the fields of a file's inode in an index (gitformat-index(5)), with 0 as its mode. Numbers are cut
 * to their low 32 bits.
 */
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

/**
 * Returns the size in an index: 32 bits, of which 0 would mean unknown (munge_st_size in git's statinfo.c).
 */
function shownSize(size: number): number {
  return size !== 0 && size >>> 0 === 0 ? 0x8000_0000 : size;
}
