import { createHash } from 'node:crypto';
import type { ObjectID } from './objects.ts';

/** The place of an object in a pack. */
export interface PackedObject {
  readonly id: ObjectID;
  /** First byte of the object's entry. */
  readonly offset: number;
  /** CRC-32 of the entry as it is in the pack. */
  readonly crc32: number;
}

const signature = 0xff744f63;
const VERSION = 2;
const FANOUT_SIZE = 256 * 4;
const recordSize = 20 + 4 + 4;
/** Offsets from here on have a table of their own. */
const LARGE = 0x8000_0000;

/**
 * The index of a pack, version 2: gitformat-pack(5).
 *
 * @param packChecksum the pack's last 20 bytes
 */
export function composePackIndex(objects: readonly PackedObject[], packChecksum: Uint8Array): Buffer {
  const sorted = objects.toSorted((one, other) => (one.id < other.id ? -1 : 1));
  const far = sorted.filter(({ offset }) => offset >= LARGE);
  const namesAt = 8 + FANOUT_SIZE;
  const crcsAt = namesAt + 20 * sorted.length;
  const offsetsAt = crcsAt + 4 * sorted.length;
  const farAt = offsetsAt + 4 * sorted.length;
  const trailerAt = farAt + 8 * far.length;
  const index = Buffer.alloc(8 + FANOUT_SIZE + recordSize * sorted.length + 8 * far.length + 40);

  index.writeUInt32BE(signature, 0);
  index.writeUInt32BE(VERSION, 4);
  let farCount = 0;
  for (const [rank, { id, offset, crc32 }] of sorted.entries()) {
    index.write(id, namesAt + 20 * rank, 'hex');
    index.writeUInt32BE(crc32, crcsAt + 4 * rank);
    const place = offset < LARGE ? offset : LARGE + farCount;
    index.writeUInt32BE(place, offsetsAt + 4 * rank);
    if (offset >= LARGE) {
      index.writeBigUInt64BE(BigInt(offset), farAt + 8 * farCount);
      farCount += 1;
    }
  }
  writeFanout(index, sorted);
  index.set(packChecksum, trailerAt);
  createHash('sha1')
    .update(index.subarray(0, trailerAt + 20))
    .digest()
    .copy(index, trailerAt + 20);
  return index;
}

/** For each first byte, how many objects have that one or a lower one. */
function writeFanout(index: Buffer, sorted: readonly PackedObject[]): void {
  const counts = new Uint32Array(256);
  for (const { id } of sorted) counts[Number.parseInt(id.slice(0, 2), 16)]! += 1;
  let count = 0;
  for (const [byte, more] of counts.entries()) {
    count += more;
    index.writeUInt32BE(count, 8 + 4 * byte);
  }
}

/** Most bytes that one stored block of deflate holds (RFC 1951, 3.2.4). */
export const storedBlockSize = 0xffff;
/** Bytes that stand before each block's data. */
export const BLOCK_HEADER_SIZE = 5;
/** Bytes of a zlib stream's checksum (RFC 1950). */
export const TRAILER_SIZE = 4;

/** First two bytes of a zlib stream: deflate, 32 KiB window, fastest (RFC 1950, 2.2). */
export const ZLIB_HEADER = 0x7801;

/** Writes the header of a stored block at `at`; returns where the data goes. */
export function writeBlockHeader(into: Buffer, at: number, length: number, last: boolean): number {
  into[at] = last ? 1 : 0;
  into.writeUInt16LE(length, at + 1);
  into.writeUInt16LE(length ^ 0xffff, at + 3);
  return at + BLOCK_HEADER_SIZE;
}

const MODULUS = 65_521;
/** Bytes between two reductions, few enough for sums of 31 bits, which are the fast integers; a multiple of 64. */
const STRIDE = 3840;

/**
 * Adler-32 (RFC 1950, 8.2) of the bytes from `start` to `end`, going on from `sum` (1 at first). Node has it only inside zlib streams,
 * which cost more than the rest of this file.
 *
 * Four bytes are added at once: `even` and `odd` hold two 16-bit sums each, and the `above` ones the sums of those sums.
 */
export function adler32(bytes: DataView, start: number, end: number, sum: number): number {
  let low = sum & 0xffff;
  let high = sum >>> 16;
  let at = start;
  const whole = end - ((end - start) % 64);
  while (at < whole) {
    const stop = Math.min(at + STRIDE, whole);
    while (at < stop) {
      let even = 0;
      let odd = 0;
      let evenAbove = 0;
      let oddAbove = 0;
      for (const next = at + 64; at < next; at += 4) {
        const word = bytes.getInt32(at, true);
        evenAbove = (evenAbove + even) | 0;
        oddAbove = (oddAbove + odd) | 0;
        even = (even + (word & 0xff00ff)) | 0;
        odd = (odd + ((word >>> 8) & 0xff00ff)) | 0;
      }
      const [first, second, third, fourth] = [even & 0xffff, odd & 0xffff, even >>> 16, odd >>> 16];
      const above = (evenAbove & 0xffff) + (evenAbove >>> 16) + (oddAbove & 0xffff) + (oddAbove >>> 16);
      high = (high + 64 * low + 4 * (above + first) + 3 * second + 2 * third + fourth) | 0;
      low = (low + first + second + third + fourth) | 0;
    }
    low %= MODULUS;
    high %= MODULUS;
  }
  for (; at < end; at += 1) {
    low += bytes.getUint8(at);
    high += low;
  }
  return (((high % MODULUS) << 16) | (low % MODULUS)) >>> 0;
}
