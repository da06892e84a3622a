import type { BlockStream } from './block-stream.ts';
import { MalformedTarError, type Entry, type SparseExtent } from './entry.ts';
import { TAR_BLOCK_BYTES, isGnu, numberField } from './header.ts';
import type { PaxSparse } from './pax.ts';

/** Most extents in one file. The limit bounds the memory that an archive can ask for. */
export const maxExtents = 1 << 20;

/** Returns the number of bytes that an archive stores of an entry's data, without the holes. */
export function storedSize({ size, sparse }: Pick<Entry, 'size' | 'sparse'>): number {
  return sparse === undefined ? size : sparse.reduce((sum, { length }) => sum + length, 0);
}

/** Finds the positions of a file's stored bytes, which an archive has back to back. */
export class ExtentCursor {
  readonly #extents: Iterator<SparseExtent>;
  #position = 0;
  #end = 0;

  /** @param extents left out for a file without holes */
  constructor(extents: readonly SparseExtent[] = [{ offset: 0, length: Infinity }]) {
    this.#extents = extents.values();
  }

  /** Splits the next stored bytes into parts with their positions in the file. */
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

/** A file in an archive: its size with the holes, and the number of bytes stored. */
export interface FileData {
  readonly size: number;
  readonly stored: number;
  /** Ranges of data; undefined for a file without holes. */
  readonly extents: readonly SparseExtent[] | undefined;
}

/**
 * Takes the block after the header or the last block; yields the number of bytes for which it has to wait.
 */
type NextBlock = () => Generator<number, Pick<BlockStream, 'block' | 'at'>, undefined>;

/** The extents of a sparse file. Each is checked: in order, without overlap, within the file. */
class SparseMap {
  readonly #size: number;
  readonly #extents: SparseExtent[] = [];
  #count = 0;
  #end = 0;
  #total = 0;

  constructor(size: number) {
    if (size < 0) throw new MalformedTarError('its sparse size is negative');
    this.#size = size;
  }

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
   * Returns the file with the whole map.
   *
   * @throws MalformedTarError if the extents and the stored data differ in length
   */
  file(stored: number): FileData {
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

/** Layout of GNU's old format: four extents in the header, twenty-one in each block after it. */
const IN_HEADER = { map: 386, extents: 4, more: 482, realSize: 483 } as const;
const IN_BLOCK = { map: 0, extents: 21, more: 504 } as const;

/**
 * Returns the file of a type `S` header at `at`, GNU's old format.
 *
 * @throws MalformedTarError for star's format of the same type, and for fields that are not numbers
 */
export function* oldSparseFile(
  header: Buffer,
  at: number,
  stored: number,
  nextBlock: NextBlock,
): Generator<number, FileData, undefined> {
  if (!isGnu(header, at)) throw new MalformedTarError('it is sparse in a format that is not GNU’s');
  const map = new SparseMap(numberField(header, at + IN_HEADER.realSize, 12, 'sparse size'));
  let isMore = addExtents(map, header, at, IN_HEADER);
  while (isMore) {
    const next = yield* nextBlock();
    isMore = addExtents(map, next.block, next.at, IN_BLOCK);
  }
  return map.file(stored);
}

/** Adds the extents in a block to `map`; returns true if the next block has more. */
function addExtents(
  map: SparseMap,
  block: Buffer,
  start: number,
  layout: { readonly map: number; readonly extents: number; readonly more: number },
): boolean {
  for (let index = 0; index < layout.extents; index += 1) {
    const extent = start + layout.map + index * 24;
    if (block[extent] === 0) break;
    const offset = numberField(block, extent, 12, 'sparse offset');
    map.add(offset, numberField(block, extent + 12, 12, 'sparse length'));
  }
  return block[start + layout.more] !== 0;
}

/**
 * Returns the file with GNU.sparse pax records. The map is in them (0.0, 0.1), or at the start of the data
 * (1.0).
 *
 * @param stored size of the data in the archive, including the map of format 1.0
 * @throws MalformedTarError for a version that does not exist, and for a map that contradicts itself
 */
export function* paxSparseFile(
  { size, major, minor, map: numbers, blocks }: PaxSparse,
  stored: number,
  nextBlock: NextBlock,
): Generator<number, FileData, undefined> {
  if (size === undefined) throw new MalformedTarError('it is sparse without a size');
  const version = `${major ?? '0'}.${minor ?? '1'}`;
  const map = new SparseMap(size);
  if (version === '1.0') return map.file(yield* readMap(map, stored, nextBlock));
  if (version !== '0.0' && version !== '0.1') {
    throw new MalformedTarError('it is sparse in a format of an unknown version');
  }
  if (numbers.length % 2 !== 0 || numbers.length !== 2 * (blocks ?? numbers.length / 2)) {
    throw new MalformedTarError('the length of its sparse map does not match its count');
  }
  for (let index = 0; index < numbers.length; index += 2) map.add(numbers[index]!, numbers[index + 1]!);
  return map.file(stored);
}

/**
 * Reads a map of format 1.0: lines of decimal numbers, the count of extents first, padded to a block border.
 * Returns the size of the data after it.
 */
function* readMap(
  map: SparseMap,
  stored: number,
  nextBlock: NextBlock,
): Generator<number, number, undefined> {
  let left = stored;
  /** Number of numbers still to come; undefined: their count comes first. */
  let missing: number | undefined;
  let value = 0;
  let digits = 0;
  let offset = 0;
  while (missing !== 0) {
    if (left < TAR_BLOCK_BYTES) throw new MalformedTarError('its data ends within its sparse map');
    left -= TAR_BLOCK_BYTES;
    const { block, at } = yield* nextBlock();
    for (let index = at; index < at + TAR_BLOCK_BYTES && missing !== 0; index += 1) {
      const byte = block[index]!;
      if (byte !== NEWLINE || digits === 0) {
        const digit = byte - DIGIT0;
        digits += 1;
        if (byte === MINUS && digits === 1 && missing === undefined) throw tooManyExtents();
        if (digit < 0 || digit > 9 || digits > MAX_DIGITS) throw noNumbers();
        value = value * 10 + digit;
        continue;
      }
      if (value > Number.MAX_SAFE_INTEGER) throw noNumbers();
      if (missing === undefined) {
        if (value > maxExtents) throw tooManyExtents();
        missing = 2 * value;
      } else {
        if (missing % 2 === 0) offset = value;
        else map.add(offset, value);
        missing -= 1;
      }
      value = 0;
      digits = 0;
    }
  }
  return left;
}

function noNumbers(): MalformedTarError {
  return new MalformedTarError('its sparse map is not a list of numbers');
}

function tooManyExtents(): MalformedTarError {
  return new MalformedTarError(`its sparse map has more than ${maxExtents} extents`);
}
