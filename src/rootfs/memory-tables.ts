import { randomFillSync } from 'node:crypto';
import { readSync, writeSync } from 'node:fs';
import { sliceBytes, type BytePath } from '../tar/entry.ts';

const CHUNK_BITS = 14;
const CHUNK_RECORDS = 1 << CHUNK_BITS;
const ARENA_BITS = 20;
const ARENA_BYTES = 1 << ARENA_BITS;
/** Strings longer than this go to the spool, if there is one. */
const MOST_IN_MEMORY = 1024;
/** Length and capacity; then the bytes, or where `SPOOLED` is added to the capacity their position in the spool. */
const STRING_HEAD = 8;
const SPOOLED = 0x8000_0000;
const SPOOLED_HEAD = 8;

/**
 * Records of a fixed number of 32-bit words, numbered from 1. A number that is freed is given out again. They are kept in chunks, so
 * that nothing is copied when there are more, and nothing of them is on JavaScript's heap.
 */
export class Records {
  readonly #words: number;
  readonly #integers: Uint32Array[] = [];
  readonly #doubles: Float64Array[] = [];
  #next = 1;
  /** The first of the freed ones; the first word of each is the next. */
  #free = 0;

  /** @param words even, so that two of them can be a double */
  constructor(words: number) {
    this.#words = words;
  }

  /** A number whose record is all zeros. */
  allocate(): number {
    const index = this.#free;
    if (index !== 0) {
      this.#free = this.get(index, 0);
      const start = (index & (CHUNK_RECORDS - 1)) * this.#words;
      this.#integers[index >>> CHUNK_BITS]!.fill(0, start, start + this.#words);
      return index;
    }
    if (this.#next >>> CHUNK_BITS === this.#integers.length) {
      const integers = new Uint32Array(CHUNK_RECORDS * this.#words);
      this.#integers.push(integers);
      this.#doubles.push(new Float64Array(integers.buffer));
    }
    this.#next += 1;
    return this.#next - 1;
  }

  free(index: number): void {
    this.set(index, 0, this.#free);
    this.#free = index;
  }

  get(index: number, word: number): number {
    return this.#integers[index >>> CHUNK_BITS]![(index & (CHUNK_RECORDS - 1)) * this.#words + word]!;
  }

  set(index: number, word: number, value: number): void {
    this.#integers[index >>> CHUNK_BITS]![(index & (CHUNK_RECORDS - 1)) * this.#words + word] = value;
  }

  /** The double in the words `2 * pair` and the next. */
  getDouble(index: number, pair: number): number {
    const start = ((index & (CHUNK_RECORDS - 1)) * this.#words) >>> 1;
    return this.#doubles[index >>> CHUNK_BITS]![start + pair]!;
  }

  setDouble(index: number, pair: number, value: number): void {
    const start = ((index & (CHUNK_RECORDS - 1)) * this.#words) >>> 1;
    this.#doubles[index >>> CHUNK_BITS]![start + pair] = value;
  }
}

/** A temporary file that grows at its end. Its calls block; they throw the system's errors. */
export class Spool {
  readonly #file: number;
  #size = 0;

  /** @param file a descriptor of an empty file, open for reading and writing; it stays the caller's to close */
  constructor(file: number) {
    this.#file = file;
  }

  get size(): number {
    return this.#size;
  }

  append(bytes: Uint8Array): void {
    this.write(this.reserve(bytes.length), bytes);
  }

  /** The position of `length` bytes that nobody else writes. */
  reserve(length: number): number {
    this.#size += length;
    return this.#size - length;
  }

  write(position: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;)
      done += writeSync(this.#file, bytes, done, bytes.length - done, position + done);
  }

  /** Fills `into` with the bytes at `position`. */
  read(position: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const count = readSync(this.#file, into, done, into.length - done, position + done);
      if (count === 0) throw new Error('the temporary file is shorter than what was written to it');
      done += count;
    }
  }
}

/** Byte strings of any length, found by a number above 0. Long ones are in the spool. */
export class ByteStrings {
  /** From when on long strings go there. */
  spool: Spool | undefined;
  readonly #arena = new Arena();

  add(bytes: Buffer, capacity = bytes.length): number {
    const spooled = this.spool !== undefined && capacity > MOST_IN_MEMORY;
    const place = this.#arena.reserve(STRING_HEAD + (spooled ? SPOOLED_HEAD : capacity));
    const [chunk, at] = this.#arena.at(place);
    chunk.writeUInt32LE(bytes.length, at);
    chunk.writeUInt32LE(capacity + (spooled ? SPOOLED : 0), at + 4);
    if (spooled) chunk.writeDoubleLE(this.spool!.reserve(capacity), at + STRING_HEAD);
    this.#put(chunk, at, bytes);
    return place;
  }

  /** Replaces a string by other bytes, and returns their position. */
  replace(place: number, bytes: Buffer): number {
    const [chunk, at] = this.#arena.at(place);
    const capacity = chunk.readUInt32LE(at + 4) % SPOOLED;
    if (bytes.length > capacity) return this.add(bytes, 2 * bytes.length);
    chunk.writeUInt32LE(bytes.length, at);
    this.#put(chunk, at, bytes);
    return place;
  }

  size(place: number): number {
    const [chunk, at] = this.#arena.at(place);
    return chunk.readUInt32LE(at);
  }

  /** A copy. */
  get(place: number): Buffer {
    const [chunk, at] = this.#arena.at(place);
    const bytes = Buffer.allocUnsafe(chunk.readUInt32LE(at));
    if (chunk.readUInt32LE(at + 4) < SPOOLED) chunk.copy(bytes, 0, at + STRING_HEAD);
    else this.spool!.read(chunk.readDoubleLE(at + STRING_HEAD), bytes);
    return bytes;
  }

  #put(chunk: Buffer, at: number, bytes: Buffer): void {
    if (chunk.readUInt32LE(at + 4) < SPOOLED) bytes.copy(chunk, at + STRING_HEAD);
    else this.spool!.write(chunk.readDoubleLE(at + STRING_HEAD), bytes);
  }
}

/** Memory that is given out and never taken back, each piece in one buffer. */
class Arena {
  readonly #chunks: Buffer[] = [];
  /** The first bytes are nobody's: no piece is at 0. */
  #at = 1;

  /** The place of `length` new bytes. */
  reserve(length: number): number {
    const chunk = this.#chunks.at(-1);
    if (chunk === undefined || this.#at + length > chunk.length) {
      const first = this.#chunks.length === 0 ? 1 : 0;
      this.#chunks.push(Buffer.allocUnsafeSlow(Math.max(ARENA_BYTES, first + length)));
      this.#at = first;
    }
    this.#at += length;
    return (this.#chunks.length - 1) * ARENA_BYTES + this.#at - length;
  }

  at(place: number): [chunk: Buffer, at: number] {
    return [this.#chunks[Math.floor(place / ARENA_BYTES)]!, place % ARENA_BYTES];
  }
}

const name = {
  inode: 0,
  parent: 1,
  collision: 2,
  next: 3,
  previous: 4,
  place: 5,
  length: 6,
  hash: 7,
} as const;
const NAME_WORDS = 8;

/** Where it is kept what a directory's list of names begins with. */
interface FirstNames {
  firstName(directory: number): number;
  setFirstName(directory: number, first: number): void;
}

/**
 * The names of all directories: which inode `name` is in a directory, and the names in it. The hash has a random key for
 * every table, so that no archive can be made to collide. Names are byte strings of at most 65,535 bytes, numbered from 1.
 */
export class NameTable {
  readonly #records = new Records(NAME_WORDS);
  readonly #arena = new Arena();
  readonly #first: FirstNames;
  readonly #key = randomFillSync(new Uint32Array(1))[0]!;
  /** The first name of each hash. */
  #buckets = new Uint32Array(1024);
  #count = 0;

  constructor(first: FirstNames) {
    this.#first = first;
  }

  /** The number of a name, 0 where the directory has none such. */
  find(directory: number, text: string): number {
    const hash = this.#hash(directory, text);
    let index = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (index !== 0 && !this.#is(index, directory, text, hash))
      index = this.#records.get(index, name.collision);
    return index;
  }

  /** Gives an inode a name that its directory does not have yet. */
  add(directory: number, text: string, inode: number): void {
    if (this.#count >= 2 * this.#buckets.length) this.#grow();
    const records = this.#records;
    const place = this.#arena.reserve(text.length);
    const [chunk, at] = this.#arena.at(place);
    chunk.write(text, at, 'latin1');
    const index = records.allocate();
    const hash = this.#hash(directory, text);
    const bucket = hash & (this.#buckets.length - 1);
    const next = this.#first.firstName(directory);
    records.set(index, name.inode, inode);
    records.set(index, name.parent, directory);
    records.set(index, name.collision, this.#buckets[bucket]!);
    records.set(index, name.next, next);
    records.set(index, name.place, place);
    records.set(index, name.length, text.length);
    records.set(index, name.hash, hash);
    if (next !== 0) records.set(next, name.previous, index);
    this.#first.setFirstName(directory, index);
    this.#buckets[bucket] = index;
    this.#count += 1;
  }

  remove(index: number): void {
    const records = this.#records;
    const directory = records.get(index, name.parent);
    const bucket = records.get(index, name.hash) & (this.#buckets.length - 1);
    const collision = records.get(index, name.collision);
    let before = this.#buckets[bucket]!;
    if (before === index) this.#buckets[bucket] = collision;
    else {
      while (records.get(before, name.collision) !== index) before = records.get(before, name.collision);
      records.set(before, name.collision, collision);
    }
    const next = records.get(index, name.next);
    const previous = records.get(index, name.previous);
    if (next !== 0) records.set(next, name.previous, previous);
    if (previous === 0) this.#first.setFirstName(directory, next);
    else records.set(previous, name.next, next);
    records.free(index);
    this.#count -= 1;
  }

  inode(index: number): number {
    return this.#records.get(index, name.inode);
  }

  text(index: number): BytePath {
    const place = this.#records.get(index, name.place);
    const [chunk, at] = this.#arena.at(place);
    return sliceBytes(chunk, at, at + this.#records.get(index, name.length));
  }

  /** The names in a directory, in no order. */
  list(directory: number): number[] {
    const names: number[] = [];
    for (
      let index = this.#first.firstName(directory);
      index !== 0;
      index = this.#records.get(index, name.next)
    )
      names.push(index);
    return names;
  }

  /** The names in a directory, by their bytes. */
  sorted(directory: number): Uint32Array {
    return Uint32Array.from(this.list(directory)).toSorted((one, other) => this.#compare(one, other));
  }

  #compare(one: number, other: number): number {
    const records = this.#records;
    const [left, start] = this.#arena.at(records.get(one, name.place));
    const [right, begin] = this.#arena.at(records.get(other, name.place));
    const length = records.get(one, name.length);
    const otherLength = records.get(other, name.length);
    const common = Math.min(length, otherLength);
    for (let offset = 0; offset < common; offset += 1) {
      const difference = left[start + offset]! - right[begin + offset]!;
      if (difference !== 0) return difference;
    }
    return length - otherLength;
  }

  #is(index: number, directory: number, text: string, hash: number): boolean {
    const records = this.#records;
    if (records.get(index, name.hash) !== hash || records.get(index, name.parent) !== directory) return false;
    if (records.get(index, name.length) !== text.length) return false;
    const [chunk, at] = this.#arena.at(records.get(index, name.place));
    for (let offset = 0; offset < text.length; offset += 1)
      if (chunk[at + offset] !== text.charCodeAt(offset)) return false;
    return true;
  }

  #grow(): void {
    const old = this.#buckets;
    this.#buckets = new Uint32Array(old.length * 4);
    for (let index of old) {
      while (index !== 0) {
        const following = this.#records.get(index, name.collision);
        const bucket = this.#records.get(index, name.hash) & (this.#buckets.length - 1);
        this.#records.set(index, name.collision, this.#buckets[bucket]!);
        this.#buckets[bucket] = index;
        index = following;
      }
    }
  }

  #hash(directory: number, text: string): number {
    let hash = Math.imul(this.#key ^ directory, 0x9e37_79b1);
    for (let offset = 0; offset < text.length; offset += 1) {
      hash = Math.imul(hash ^ text.charCodeAt(offset), 0x85eb_ca6b);
      hash ^= hash >>> 15;
    }
    return (hash ^ (hash >>> 13)) >>> 0;
  }
}

/** Extended attributes as one string: for each the length of its name, the name, the length of its value, the value. */
export function packXattrs(xattrs: ReadonlyMap<string, Uint8Array>): Buffer {
  const parts: Uint8Array[] = [];
  for (const [key, value] of xattrs)
    parts.push(lengthOf(key.length), Buffer.from(key, 'latin1'), lengthOf(value.length), value);
  return Buffer.concat(parts);
}

export function unpackXattrs(bytes: Buffer): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>();
  for (let at = 0; at < bytes.length;) {
    const start = at + 4;
    const value = start + bytes.readUInt32LE(at) + 4;
    at = value + bytes.readUInt32LE(value - 4);
    xattrs.set(bytes.toString('latin1', start, value - 4), bytes.subarray(value, at));
  }
  return xattrs;
}

function lengthOf(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32LE(length);
  return bytes;
}
