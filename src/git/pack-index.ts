import { createHash } from 'node:crypto';
import type { ObjectID } from './object-id.ts';

/** Where an object lies in a pack. */
export interface PackedObject {
  readonly id: ObjectID;
  /** First byte of the object's entry. */
  readonly offset: number;
  /** CRC-32 of the entry as it is in the pack. */
  readonly crc32: number;
}

const signature = 0xff744f63;
const version = 2;
const fanoutSize = 256 * 4;
const recordSize = 20 + 4 + 4;
/** Offsets from here on stand in a table of their own. */
const large = 0x8000_0000;

/**
 * The index of a pack, version 2: gitformat-pack(5).
 *
 * @param packChecksum the pack's last 20 bytes
 */
export function composePackIndex(objects: readonly PackedObject[], packChecksum: Uint8Array): Buffer {
  const sorted = objects.toSorted((one, other) => (one.id < other.id ? -1 : 1));
  const far = sorted.filter(({ offset }) => offset >= large);
  const namesAt = 8 + fanoutSize;
  const crcsAt = namesAt + 20 * sorted.length;
  const offsetsAt = crcsAt + 4 * sorted.length;
  const farAt = offsetsAt + 4 * sorted.length;
  const trailerAt = farAt + 8 * far.length;
  const index = Buffer.alloc(8 + fanoutSize + recordSize * sorted.length + 8 * far.length + 40);

  index.writeUInt32BE(signature, 0);
  index.writeUInt32BE(version, 4);
  let farCount = 0;
  for (const [rank, { id, offset, crc32 }] of sorted.entries()) {
    index.write(id, namesAt + 20 * rank, 'hex');
    index.writeUInt32BE(crc32, crcsAt + 4 * rank);
    const place = offset < large ? offset : large + farCount;
    index.writeUInt32BE(place, offsetsAt + 4 * rank);
    if (offset >= large) index.writeBigUInt64BE(BigInt(offset), farAt + 8 * farCount++);
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
  for (const { id } of sorted) counts[Number.parseInt(id.slice(0, 2), 16)]!++;
  let count = 0;
  for (const [byte, more] of counts.entries()) {
    count += more;
    index.writeUInt32BE(count, 8 + 4 * byte);
  }
}
