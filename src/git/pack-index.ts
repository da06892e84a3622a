import { createHash, getRandomValues } from 'node:crypto';
import { ID_SIZE } from './trees.ts';

const NAME_WORDS = ID_SIZE / 4;
const FIRST_ENTRIES = 1024;

/** Objects by their names, each with a checksum of its content, in about forty bytes each: a Map of strings takes three times as many. */
export class KnownObjects {
  #names = new Uint32Array(FIRST_ENTRIES * NAME_WORDS);
  #checksums = new Uint32Array(FIRST_ENTRIES);
  /** Numbers of objects, counted from 1: each at the place that `#placeOf` gives it, or the next one that was free. */
  #places = new Uint32Array(2 * FIRST_ENTRIES);
  #count = 0;
  /** Nobody can choose contents whose names get the same place. */
  readonly #factors = getRandomValues(new Uint32Array(NAME_WORDS));

  get count(): number {
    return this.#count;
  }

  /** Names of so many objects, `ID_SIZE` bytes each, in the order in which they were added: from number `first` on, counted from 0. */
  names(first: number, count: number): Buffer {
    return Buffer.from(this.#names.buffer, first * ID_SIZE, count * ID_SIZE);
  }

  /**
   * Adds an object, unless it is known.
   *
   * @param name `ID_SIZE` bytes
   * @returns the checksum that it is known with, undefined for a new one
   */
  add(name: Buffer, checksum: number): number | undefined {
    const names = this.#names;
    const start = this.#count * NAME_WORDS;
    for (let word = 0; word < NAME_WORDS; word += 1) names[start + word] = name.readUInt32LE(4 * word);
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

const SIGNATURE = 0xff744f63;
const VERSION = 2;
const FANOUT_AT = 8;
const NAMES_AT = FANOUT_AT + 256 * 4;
/** Offsets from here on have a table of their own. */
const LARGE = 0x8000_0000;
const CHECKSUM_SIZE = 20;

/**
 * The index of a pack, version 2: gitformat-pack(5).
 *
 * @param names of the objects in it, `ID_SIZE` bytes each
 * @param offsets the first byte of each in the pack
 * @param crcs CRC-32 of each, as it is in the pack
 * @param packChecksum the pack's last 20 bytes
 */
export function composePackIndex(
  names: Buffer,
  offsets: readonly number[],
  crcs: readonly number[],
  packChecksum: Uint8Array,
): Buffer {
  const count = offsets.length;
  const crcsAt = NAMES_AT + ID_SIZE * count;
  const offsetsAt = crcsAt + 4 * count;
  const farAt = offsetsAt + 4 * count;
  const trailerAt = farAt + 8 * offsets.filter((offset) => offset >= LARGE).length;
  const index = Buffer.alloc(trailerAt + 2 * CHECKSUM_SIZE);
  index.writeUInt32BE(SIGNATURE, 0);
  index.writeUInt32BE(VERSION, 4);
  const fanout = new Uint32Array(256);
  let farCount = 0;
  for (const [rank, number] of sortedByName(names).entries()) {
    names.copy(index, NAMES_AT + ID_SIZE * rank, number * ID_SIZE, (number + 1) * ID_SIZE);
    fanout[names[number * ID_SIZE]!]! += 1;
    index.writeUInt32BE(crcs[number]!, crcsAt + 4 * rank);
    const offset = offsets[number]!;
    index.writeUInt32BE(offset < LARGE ? offset : LARGE + farCount, offsetsAt + 4 * rank);
    if (offset < LARGE) continue;
    index.writeBigUInt64BE(BigInt(offset), farAt + 8 * farCount);
    farCount += 1;
  }
  // For each first byte, how many objects have that one or a lower one.
  let below = 0;
  for (const [byte, more] of fanout.entries()) {
    below += more;
    index.writeUInt32BE(below, FANOUT_AT + 4 * byte);
  }
  index.set(packChecksum, trailerAt);
  const checksum = createHash('sha1')
    .update(index.subarray(0, trailerAt + CHECKSUM_SIZE))
    .digest();
  index.set(checksum, trailerAt + CHECKSUM_SIZE);
  return index;
}

/** Numbers of the names, in the order of their bytes. */
function sortedByName(names: Buffer): Uint32Array {
  const numbers = Uint32Array.from({ length: names.length / ID_SIZE }, (_, number) => number);
  const beginnings = numbers.map((number) => names.readUInt32BE(number * ID_SIZE));
  return numbers.toSorted((one, other) => {
    const difference = beginnings[one]! - beginnings[other]!;
    return difference === 0
      ? names.compare(names, other * ID_SIZE, (other + 1) * ID_SIZE, one * ID_SIZE, (one + 1) * ID_SIZE)
      : difference;
  });
}
