import type { SparseExtent } from './entry.ts';
import { blockSize, isGnu, numberField } from './header.ts';
import { MalformedTarError } from './malformed.ts';
import { parseDecimal } from './numbers.ts';
import type { PaxSparse } from './pax.ts';

/** More extents than this in one file is refused: it bounds the memory that an archive can ask for. */
export const maxExtents = 1 << 20;

/** A sparse file: its size with the holes, the bytes that the archive stores of it, and where they go. */
interface SparseFile {
  readonly size: number;
  readonly stored: number;
  readonly extents: readonly SparseExtent[];
}

/** A sparse map that may go on in the blocks after the header. */
export interface SparseMap {
  /** Whether the next block belongs to the map. */
  readonly wantsBlock: boolean;
  /** Takes the next block of the map. */
  accept(block: Buffer, at: number): void;
  /**
   * The whole map, checked: extents in order, apart, within the file, and as long together as the data that is stored.
   *
   * @throws MalformedTarError
   */
  file(): SparseFile;
}

const newline = 0x0a;
const maxDigits = 20;

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
  const numbers: number[] = [];
  const add = (
    block: Buffer,
    start: number,
    layout: { map: number; extents: number; more: number },
  ): boolean => {
    for (let index = 0; index < layout.extents; index += 1) {
      const extent = start + layout.map + index * 24;
      if (block[extent] === 0) break;
      numbers.push(numberField(block, extent, 12, 'sparse offset'));
      numbers.push(numberField(block, extent + 12, 12, 'sparse length'));
    }
    if (numbers.length > 2 * maxExtents) throw tooManyExtents();
    return block[start + layout.more] !== 0;
  };
  let wantsBlock = add(header, at, oldFormat.header);
  return {
    get wantsBlock() {
      return wantsBlock;
    },
    accept(block, start) {
      wantsBlock = add(block, start, oldFormat.block);
    },
    file: () => sparseFile(numbers, size, stored),
  };
}

/**
 * The map of a file with GNU.sparse pax records: in them (0.0, 0.1), or at the start of the data (1.0).
 *
 * @param stored Size of the data in the archive, the map of format 1.0 included.
 * @throws MalformedTarError for a version that does not exist, and a map that contradicts itself.
 */
export function paxSparseMap(records: PaxSparse, stored: number): SparseMap {
  const { size } = records;
  if (size === undefined) throw new MalformedTarError('it is sparse without a size');
  const version = `${records.major ?? '0'}.${records.minor ?? '1'}`;
  if (version === '1.0') return new TextMap(size, stored);
  if (version !== '0.0' && version !== '0.1') {
    throw new MalformedTarError('it is sparse in a format of an unknown version');
  }
  if (records.map.length !== 2 * (records.blocks ?? records.map.length / 2)) {
    throw new MalformedTarError('its sparse map has another length than it says');
  }
  return {
    wantsBlock: false,
    accept: () => {},
    file: () => sparseFile(records.map, size, stored),
  };
}

/** Format 1.0: lines of decimal numbers, their count first, filled up to a block border. */
class TextMap implements SparseMap {
  wantsBlock = true;
  readonly #size: number;
  /** Bytes of the data that are not map. */
  #stored: number;
  readonly #numbers: number[] = [];
  #expected: number | undefined;
  readonly #line = Buffer.alloc(maxDigits);
  #length = 0;

  constructor(size: number, stored: number) {
    this.#size = size;
    this.#stored = stored;
    this.#checkRoom();
  }

  accept(block: Buffer, at: number): void {
    this.#stored -= blockSize;
    for (let index = at; index < at + blockSize && this.wantsBlock; index += 1) {
      const byte = block[index]!;
      if (byte === newline) this.#endLine();
      else if (this.#length < maxDigits) {
        this.#line[this.#length] = byte;
        this.#length += 1;
      } else throw new MalformedTarError('its sparse map is no list of numbers');
    }
    if (this.wantsBlock) this.#checkRoom();
  }

  file(): SparseFile {
    return sparseFile(this.#numbers, this.#size, this.#stored);
  }

  #endLine(): void {
    const value = parseDecimal(this.#line, 0, this.#length);
    this.#length = 0;
    if (Number.isNaN(value)) throw new MalformedTarError('its sparse map is no list of numbers');
    if (this.#expected !== undefined) this.#numbers.push(value);
    else if (value < 0 || value > maxExtents) throw tooManyExtents();
    else this.#expected = 2 * value;
    this.wantsBlock = this.#numbers.length !== this.#expected;
  }

  #checkRoom(): void {
    if (this.#stored < blockSize) throw new MalformedTarError('its data ends within its sparse map');
  }
}

function sparseFile(map: readonly number[], size: number, stored: number): SparseFile {
  if (size < 0) throw new MalformedTarError('its sparse size is negative');
  const extents: SparseExtent[] = [];
  let end = 0;
  let total = 0;
  for (let index = 0; index < map.length; index += 2) {
    const offset = map[index]!;
    const length = map[index + 1]!;
    if (offset < end || length < 0 || offset + length > size) {
      throw new MalformedTarError(
        'its sparse map has extents that overlap, go backwards or lie outside the file',
      );
    }
    end = offset + length;
    total += length;
    if (length > 0) extents.push({ offset, length });
  }
  if (total !== stored) {
    throw new MalformedTarError(`its sparse map is for ${total} bytes of data, but ${stored} are stored`);
  }
  return { size, stored, extents };
}

function tooManyExtents(): MalformedTarError {
  return new MalformedTarError(`its sparse map has more than ${maxExtents} extents`);
}
