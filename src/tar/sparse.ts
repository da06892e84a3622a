import type { BlockStream } from './block-stream.ts';
import type { SparseExtent } from './entry.ts';
import { blockSize, isGnu, numberField } from './header.ts';
import { MalformedTarError } from './malformed.ts';
import { parseDecimal } from './numbers.ts';
import type { PaxSparse } from './pax.ts';

/** More extents than this in one file is refused: it bounds the memory that an archive can ask for. */
export const maxExtents = 1 << 20;

/** A sparse file: its size with the holes, the bytes that the archive stores of it, and where they go. */
export interface SparseFile {
  readonly size: number;
  readonly stored: number;
  readonly extents: readonly SparseExtent[];
}

const newline = 0x0a;
const maxDigits = 20;

/** Where GNU's old format has things: in the header four extents, in each block after it twenty-one. */
const oldFormat = {
  header: { map: 386, extents: 4, more: 482, realSize: 483 },
  block: { map: 0, extents: 21, more: 504 },
} as const;

/**
 * The sparse map of a type `S` header (GNU's old format) at `at`; takes the blocks with the rest of the map from the stream.
 *
 * @throws MalformedTarError for star's format of the same type, a truncated archive, and a map that makes no sense.
 */
export function readOldSparse(stream: BlockStream, stored: number): SparseFile {
  let { block, at } = stream;
  if (!isGnu(block, at)) throw new MalformedTarError('it is sparse in a format that is not GNU’s');
  const size = numberField(block, at + oldFormat.header.realSize, 12, 'sparse size');
  const map: number[] = [];
  let layout: { map: number; extents: number; more: number } = oldFormat.header;
  for (;;) {
    for (let index = 0; index < layout.extents; index += 1) {
      const start = at + layout.map + index * 24;
      if (block[start] === 0) break;
      map.push(
        numberField(block, start, 12, 'sparse offset'),
        numberField(block, start + 12, 12, 'sparse length'),
      );
    }
    if (map.length > 2 * maxExtents) throw tooManyExtents();
    if (block[at + layout.more] === 0) return sparseFile(map, size, stored);
    if (!stream.nextBlock()) throw new MalformedTarError('the archive ends within its sparse map');
    ({ block, at } = stream);
    layout = oldFormat.block;
  }
}

/**
 * The sparse map of a file with GNU.sparse pax records; in format 1.0 the map is taken from the start of the data.
 *
 * @param stored Size of the data in the archive, the map of format 1.0 included.
 * @throws MalformedTarError as above.
 */
export function readPaxSparse(stream: BlockStream, records: PaxSparse, stored: number): SparseFile {
  const version = `${records.major ?? '0'}.${records.minor ?? '1'}`;
  if (records.size === undefined) throw new MalformedTarError('it is sparse without a size');
  if (version === '1.0') {
    const { map, mapSize } = readMap(stream, stored);
    return sparseFile(map, records.size, stored - mapSize);
  }
  if (version !== '0.0' && version !== '0.1') {
    throw new MalformedTarError('it is sparse in a format of an unknown version');
  }
  if (records.map.length !== 2 * (records.blocks ?? records.map.length / 2)) {
    throw new MalformedTarError('its sparse map has another length than it says');
  }
  return sparseFile(records.map, records.size, stored);
}

/** Format 1.0: lines of decimal numbers, their count first, filled up to a block border. */
function readMap(stream: BlockStream, stored: number): { map: number[]; mapSize: number } {
  const map: number[] = [];
  const line = Buffer.alloc(maxDigits);
  let length = 0;
  let expected = -1;
  for (let mapSize = 0; ;) {
    if (mapSize + blockSize > stored || !stream.nextBlock()) {
      throw new MalformedTarError('its data ends within its sparse map');
    }
    mapSize += blockSize;
    const { block, at } = stream;
    for (let index = at; index < at + blockSize; index += 1) {
      const byte = block[index]!;
      if (byte !== newline) {
        if (length === maxDigits) throw new MalformedTarError('its sparse map is no list of numbers');
        line[length] = byte;
        length += 1;
        continue;
      }
      const value = parseDecimal(line, 0, length);
      length = 0;
      if (Number.isNaN(value)) throw new MalformedTarError('its sparse map is no list of numbers');
      if (expected !== -1) map.push(value);
      else if (value < 0 || value > maxExtents) throw tooManyExtents();
      else expected = 2 * value;
      if (map.length === expected) return { map, mapSize };
    }
  }
}

/** Checks the map: extents in order, apart, within the file, and as long together as the data that is stored. */
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
