import { createHash, getRandomValues } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { ID_BYTES } from './trees.ts';
import { type Native, loadNative } from '../sys/native.ts';

const NAME_WORDS = ID_BYTES / 4;
const FIRST_ENTRIES = 1024;

/**
 * The names (ids) of objects, each with a checksum of its content, in about forty bytes each. A Map of
 * strings takes three times as many.
 */
export class KnownObjects {
  #names = new Uint32Array(FIRST_ENTRIES * NAME_WORDS);
  /** The same memory as bytes. */
  #bytes = Buffer.from(this.#names.buffer);
  #checksums = new Uint32Array(FIRST_ENTRIES);
  /** A hash table with open addressing: numbers of objects, from 1; 0 for free. */
  #places = new Uint32Array(2 * FIRST_ENTRIES);
  #count = 0;
  /** Random, so that no image can choose contents whose names collide in the table. */
  readonly #factors = getRandomValues(new Uint32Array(NAME_WORDS));

  get count(): number {
    return this.#count;
  }

  /**
   * Returns the names of `count` objects, `ID_BYTES` bytes each, in the order of adding, from number `first`
   * (from 0) on.
   */
  names(first: number, count: number): Buffer {
    return this.#bytes.subarray(first * ID_BYTES, (first + count) * ID_BYTES);
  }

  /**
   * Adds an object, unless it is known.
   *
   * @param name `ID_BYTES` bytes
   * @returns the checksum of the known object; undefined for a new one
   */
  add(name: Buffer, checksum: number): number | undefined {
    const start = this.#count * NAME_WORDS;
    name.copy(this.#bytes, start * 4);
    let place = this.#placeOf(start);
    for (let number = this.#places[place]!; number !== 0; number = this.#places[place]!) {
      if (this.#areSame((number - 1) * NAME_WORDS, start)) return this.#checksums[number - 1];
      place = this.#after(place);
    }
    this.#checksums[this.#count] = checksum;
    this.#count += 1;
    this.#places[place] = this.#count;
    if (this.#count === this.#checksums.length) this.#grow();
    return undefined;
  }

  #placeOf(start: number): number {
    let sum = 0;
    for (let word = 0; word < NAME_WORDS; word += 1) {
      const mixed = Math.imul(this.#names[start + word]! ^ this.#factors[word]!, 0x9e37_79b1);
      sum = Math.imul(sum ^ mixed ^ (mixed >>> 15), 0x85eb_ca6b);
    }
    return (sum ^ (sum >>> 13)) & (this.#places.length - 1);
  }

  #after(place: number): number {
    return (place + 1) & (this.#places.length - 1);
  }

  #areSame(one: number, other: number): boolean {
    for (let word = 0; word < NAME_WORDS; word += 1) {
      if (this.#names[one + word] !== this.#names[other + word]) return false;
    }
    return true;
  }

  #grow(): void {
    this.#names = doubled(this.#names);
    this.#bytes = Buffer.from(this.#names.buffer);
    this.#checksums = doubled(this.#checksums);
    this.#places = new Uint32Array(2 * this.#places.length);
    for (let number = 1; number <= this.#count; number += 1) {
      let place = this.#placeOf((number - 1) * NAME_WORDS);
      while (this.#places[place] !== 0) place = this.#after(place);
      this.#places[place] = number;
    }
  }
}

function doubled(words: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * words.length);
  larger.set(words);
  return larger;
}

const INDEX_MAGIC = 0xff744f63;
const PACK_INDEX_VERSION = 2;
const FANOUT_AT = 8;
const NAMES_AT = FANOUT_AT + 256 * 4;
/** Offsets from this one on are in a table of 64-bit numbers. */
const LARGE_OFFSET = 0x8000_0000;
const CHECKSUM_BYTES = 20;

/**
 * Makes the index of a pack, version 2: gitformat-pack(5).
 *
 * @param names of the objects in it, `ID_BYTES` bytes each
 * @param offsets of their first bytes in the pack
 * @param crcs CRC-32 of their bytes in the pack
 * @param packChecksum the pack's last 20 bytes
 */
export function composePackIndex(
  names: Buffer,
  offsets: readonly number[],
  crcs: readonly number[],
  packChecksum: Uint8Array,
): Buffer {
  const count = offsets.length;
  const crcsAt = NAMES_AT + ID_BYTES * count;
  const offsetsAt = crcsAt + 4 * count;
  const farAt = offsetsAt + 4 * count;
  const trailerAt = farAt + 8 * offsets.filter((offset) => offset >= LARGE_OFFSET).length;
  const index = Buffer.alloc(trailerAt + 2 * CHECKSUM_BYTES);
  const view = new DataView(index.buffer, index.byteOffset, index.length);
  view.setUint32(0, INDEX_MAGIC);
  view.setUint32(4, PACK_INDEX_VERSION);
  const ranked = sortedByName(names);
  const fanout = new Uint32Array(256);
  let farCount = 0;
  for (let rank = 0; rank < count; rank += 1) {
    const number = ranked[rank]!;
    const nameAt = number * ID_BYTES;
    index.set(names.subarray(nameAt, nameAt + ID_BYTES), NAMES_AT + ID_BYTES * rank);
    fanout[names[nameAt]!]! += 1;
    view.setUint32(crcsAt + 4 * rank, crcs[number]!);
    const offset = offsets[number]!;
    view.setUint32(offsetsAt + 4 * rank, offset < LARGE_OFFSET ? offset : LARGE_OFFSET + farCount);
    if (offset < LARGE_OFFSET) continue;
    view.setBigUint64(farAt + 8 * farCount, BigInt(offset));
    farCount += 1;
  }
  // For each first byte: the number of objects with this or a lower one.
  let below = 0;
  for (const [byte, more] of fanout.entries()) {
    below += more;
    view.setUint32(FANOUT_AT + 4 * byte, below);
  }
  index.set(packChecksum, trailerAt);
  const checksum = createHash('sha1')
    .update(index.subarray(0, trailerAt + CHECKSUM_BYTES))
    .digest();
  index.set(checksum, trailerAt + CHECKSUM_BYTES);
  return index;
}

/** Returns the numbers of the names, sorted by the bytes of the names. */
function sortedByName(names: Buffer): Uint32Array {
  const numbers = Uint32Array.from({ length: names.length / ID_BYTES }, (_, number) => number);
  const beginnings = numbers.map((number) => names.readUInt32BE(number * ID_BYTES));
  return numbers.toSorted((one, other) => {
    const difference = beginnings[one]! - beginnings[other]!;
    return difference === 0
      ? names.compare(names, other * ID_BYTES, (other + 1) * ID_BYTES, one * ID_BYTES, (one + 1) * ID_BYTES)
      : difference;
  });
}

/**
 * Checksums of one object after another, whose bytes pass through one buffer: `start` and `end` are offsets
 * in it.
 */
export interface Checksums {
  /**
   * Begins the SHA-1 of an object.
   *
   * @param head type and size, which precede the content
   */
  begin(head: string): void;
  /** Adds bytes to the SHA-1. */
  add(start: number, end: number): void;
  /** Returns the SHA-1, the name of the object, valid until the next call. */
  end(): Buffer;
  /** Continues an Adler-32 with more bytes; `sum` is 1 at the beginning (RFC 1950). */
  adler32(sum: number, start: number, end: number): number;
  /** Continues a CRC-32 with more bytes; `sum` is 0 at the beginning. */
  crc32(sum: number, start: number, end: number): number;
}

/**
 * Uses the functions of OpenSSL and zlib inside Node if they can be called: creating a `Hash` for each of
 * 100,000 files costs 0.2 s.
 */
export function openChecksums(buffer: Buffer): Checksums {
  const native = loadNative();
  try {
    if (native) return nativeChecksums(native, buffer);
  } catch {
    // This Node has other libraries.
  }
  return portableChecksums(buffer);
}

/** Uses the functions of Node for JavaScript. */
export function portableChecksums(buffer: Buffer): Checksums {
  let hash = createHash('sha1');
  return {
    begin(head) {
      hash = createHash('sha1').update(head, 'latin1');
    },
    add: (start, end) => void hash.update(buffer.subarray(start, end)),
    end: () => hash.digest(),
    adler32: (sum, start, end) => adler32(buffer.subarray(start, end), sum),
    crc32: (sum, start, end) => crc32(buffer.subarray(start, end), sum),
  };
}

function adler32(bytes: Uint8Array, sum: number): number {
  let low = sum & 0xffff;
  let high = sum >>> 16;
  for (const byte of bytes) {
    low = (low + byte) % 65_521;
    high = (high + low) % 65_521;
  }
  return high * 2 ** 16 + low;
}

/** Size in bytes; a SHA_CTX has 96. */
const STATE_BYTES = 128;
/** Limit on a type and a size, in bytes. */
const MAX_HEAD_BYTES = 64;

/** @throws if the functions cannot be found */
function nativeChecksums({ koffi, library }: Native, buffer: Buffer): Checksums {
  const numberOf = (declaration: string) => library.func(declaration) as (...values: number[]) => number;
  const init = numberOf('int SHA1_Init(uintptr_t state)');
  const update = numberOf('int SHA1_Update(uintptr_t state, uintptr_t bytes, size_t length)');
  const final = numberOf('int SHA1_Final(uintptr_t digest, uintptr_t state)');
  const adler = numberOf('unsigned long adler32(unsigned long sum, uintptr_t bytes, unsigned int length)');
  const crc = numberOf('unsigned long crc32(unsigned long sum, uintptr_t bytes, unsigned int length)');
  const memory = Buffer.from(new ArrayBuffer(STATE_BYTES + ID_BYTES + MAX_HEAD_BYTES));
  const state = Number(koffi.address(memory));
  const bytes = Number(koffi.address(buffer));
  const [nameAt, headAt] = [STATE_BYTES, STATE_BYTES + ID_BYTES];
  const name = memory.subarray(nameAt, headAt);
  return {
    begin(head) {
      init(state);
      update(state, state + headAt, memory.write(head, headAt, 'latin1'));
    },
    add: (start, end) => void update(state, bytes + start, end - start),
    end() {
      final(state + nameAt, state);
      return name;
    },
    adler32: (sum, start, end) => adler(sum, bytes + start, end - start),
    crc32: (sum, start, end) => crc(sum, bytes + start, end - start),
  };
}
