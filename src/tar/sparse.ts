import { MalformedTarError, type Entry, type SparseExtent } from './entry.ts';
import { BLOCK_SIZE, isGnu, numberField } from './header.ts';
import type { PaxSparse } from './pax.ts';

/** More extents than this in one file is refused: it bounds the memory that an archive can ask for. */
export const maxExtents = 1 << 20;

/** Bytes that an archive has of an entry's data: without the holes. */
export function storedSize({ size, sparse }: Pick<Entry, 'size' | 'sparse'>): number {
  return sparse === undefined ? size : sparse.reduce((sum, { length }) => sum + length, 0);
}

/** Says where the stored bytes of a file belong, which an archive has back to back. */
export class ExtentCursor {
  readonly #extents: Iterator<SparseExtent>;
  #position = 0;
  #end = 0;

  /** @param extents left out for a file without holes */
  constructor(extents: readonly SparseExtent[] = [{ offset: 0, length: Infinity }]) {
    this.#extents = extents.values();
  }

  /** The next stored bytes, in parts with their positions in the file. */
  *split(bytes: Uint8Array): Generator<{ readonly position: number; readonly part: Uint8Array }, void, void> {
    for (let rest = bytes; rest.length > 0;) {
      while (this.#position === this.#end) {
        const { offset, length } = this.#extents.next().value!;
        [this.#position, this.#end] = [offset, offset + length];
      }
      const position = this.#position;
      const part = rest.subarray(0, this.#end - position);
      rest = rest.subarray(part.length);
      this.#position += part.length;
      yield { position, part };
    }
  }
}

/** A sparse file: its size with the holes, the bytes that the archive stores of it, and where they go. */
interface SparseFile {
  readonly size: number;
  readonly stored: number;
  readonly extents: readonly SparseExtent[];
}

/** A sparse map that may continue in the blocks after the header. Its extents are checked one by one: in order, apart, within the file. */
export class SparseMap {
  /** Whether the next block belongs to the map. */
  wantsBlock = false;
  /** Bytes of data that the archive stores, without the map. */
  protected stored: number;
  readonly #size: number;
  readonly #extents: SparseExtent[] = [];
  #count = 0;
  #end = 0;
  #total = 0;

  constructor(size: number, stored: number) {
    if (size < 0) throw new MalformedTarError('its sparse size is negative');
    this.#size = size;
    this.stored = stored;
  }

  /** Takes the next block of the map. */
  accept(_block: Buffer, _at: number): void {}

  add(offset: number, length: number): void {
    this.#count += 1;
    if (this.#count > maxExtents) throw tooManyExtents();
    if (offset < this.#end || length < 0 || offset + length > this.#size) {
      throw new MalformedTarError(
        'its sparse map has extents that overlap, go backwards or lie outside the file',
      );
    }
    this.#end = offset + length;
    this.#total += length;
    if (length > 0) this.#extents.push({ offset, length });
  }

  /**
   * The file with the whole map.
   *
   * @throws MalformedTarError where the extents are not as long together as the data that is stored
   */
  file(): SparseFile {
    const { stored } = this;
    if (this.#total !== stored) {
      throw new MalformedTarError(
        `its sparse map is for ${this.#total} bytes of data, but ${stored} are stored`,
      );
    }
    return { size: this.#size, stored, extents: this.#extents };
  }
}

const NEWLINE = 0x0a;
const MINUS = 0x2d;
const DIGIT0 = 0x30;
const MAX_DIGITS = 20;

/** Where GNU's old format has things: in the header four extents, in each block after it twenty-one. */
const oldFormat = {
  header: { map: 386, extents: 4, more: 482, realSize: 483 },
  block: { map: 0, extents: 21, more: 504 },
} as const;

/**
 * The map of a type `S` header at `at`, GNU's old format.
 *
 * @throws MalformedTarError for star's format of the same type, and numbers that are none.
 */
export function oldSparseMap(header: Buffer, at: number, stored: number): SparseMap {
  if (!isGnu(header, at)) throw new MalformedTarError('it is sparse in a format that is not GNU’s');
  const size = numberField(header, at + oldFormat.header.realSize, 12, 'sparse size');
  const map = new OldMap(size, stored);
  map.take(header, at, oldFormat.header);
  return map;
}

class OldMap extends SparseMap {
  override accept(block: Buffer, at: number): void {
    this.take(block, at, oldFormat.block);
  }

  take(block: Buffer, start: number, layout: { map: number; extents: number; more: number }): void {
    for (let index = 0; index < layout.extents; index += 1) {
      const extent = start + layout.map + index * 24;
      if (block[extent] === 0) break;
      const offset = numberField(block, extent, 12, 'sparse offset');
      this.add(offset, numberField(block, extent + 12, 12, 'sparse length'));
    }
    this.wantsBlock = block[start + layout.more] !== 0;
  }
}

/**
 * The map of a file with GNU.sparse pax records: in them (0.0, 0.1), or at the start of the data (1.0).
 *
 * @param stored Size of the data in the archive, the map of format 1.0 included.
 * @throws MalformedTarError for a version that does not exist, and a map that contradicts itself.
 */
export function paxSparseMap({ size, major, minor, map, blocks }: PaxSparse, stored: number): SparseMap {
  if (size === undefined) throw new MalformedTarError('it is sparse without a size');
  const version = `${major ?? '0'}.${minor ?? '1'}`;
  if (version === '1.0') return new TextMap(size, stored);
  if (version !== '0.0' && version !== '0.1') {
    throw new MalformedTarError('it is sparse in a format of an unknown version');
  }
  if (map.length % 2 !== 0 || map.length !== 2 * (blocks ?? map.length / 2)) {
    throw new MalformedTarError('the length of its sparse map does not match its count');
  }
  const extents = new SparseMap(size, stored);
  for (let index = 0; index < map.length; index += 2) extents.add(map[index]!, map[index + 1]!);
  return extents;
}

/** Format 1.0: lines of decimal numbers, the count of extents first, filled up to a block border. */
class TextMap extends SparseMap {
  override wantsBlock = true;
  /** Numbers that are still to come; undefined: their count is. */
  #missing: number | undefined;
  /** The number at hand, and how many digits of it were read. */
  #value = 0;
  #digits = 0;
  #offset = 0;

  constructor(size: number, stored: number) {
    super(size, stored);
    this.#checkRoom();
  }

  override accept(block: Buffer, at: number): void {
    this.stored -= BLOCK_SIZE;
    let value = this.#value;
    let digits = this.#digits;
    for (let index = at; index < at + BLOCK_SIZE && this.wantsBlock; index += 1) {
      const byte = block[index]!;
      if (byte === NEWLINE && digits > 0) {
        this.#endNumber(value);
        value = 0;
        digits = 0;
      } else {
        const digit = byte - DIGIT0;
        digits += 1;
        if (byte === MINUS && digits === 1 && this.#missing === undefined) throw tooManyExtents();
        if (digit < 0 || digit > 9 || digits > MAX_DIGITS) throw noNumbers();
        value = value * 10 + digit;
      }
    }
    this.#value = value;
    this.#digits = digits;
    if (this.wantsBlock) this.#checkRoom();
  }

  #endNumber(value: number): void {
    if (value > Number.MAX_SAFE_INTEGER) throw noNumbers();
    if (this.#missing === undefined) {
      if (value > maxExtents) throw tooManyExtents();
      this.#missing = 2 * value;
    } else {
      if (this.#missing % 2 === 0) this.#offset = value;
      else this.add(this.#offset, value);
      this.#missing -= 1;
    }
    this.wantsBlock = this.#missing > 0;
  }

  #checkRoom(): void {
    if (this.stored < BLOCK_SIZE) throw new MalformedTarError('its data ends within its sparse map');
  }
}

function noNumbers(): MalformedTarError {
  return new MalformedTarError('its sparse map is not a list of numbers');
}

function tooManyExtents(): MalformedTarError {
  return new MalformedTarError(`its sparse map has more than ${maxExtents} extents`);
}
