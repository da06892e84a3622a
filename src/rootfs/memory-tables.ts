import { randomFillSync } from 'node:crypto';
import { readSync, writeSync } from 'node:fs';
import { sliceBytes, type BytePath } from '../tar/entry.ts';

const CHUNK_BITS = 14;
const CHUNK_NUMBERS = 1 << CHUNK_BITS;
const ARENA_BITS = 20;
const ARENA_BYTES = 1 << ARENA_BITS;
/** Strings longer than this go to the spool, if there is one. */
const MOST_IN_MEMORY = 1024;
/** Length and capacity, then the bytes. If the capacity includes `SPOOLED`, the position in the spool follows instead. */
const STRING_HEAD = 8;
const SPOOLED = 0x8000_0000;
const SPOOLED_HEAD = 8;

/** Whole numbers below 2^32 by index; 0 where none was set. They are in chunks, which are not copied, and not on JavaScript's heap. */
export class Column {
  readonly #chunks: (Uint32Array | undefined)[] = [];

  get(index: number): number {
    const chunk = this.#chunks[index >>> CHUNK_BITS];
    return chunk === undefined ? 0 : chunk[index & (CHUNK_NUMBERS - 1)]!;
  }

  set(index: number, value: number): void {
    const chunk = (this.#chunks[index >>> CHUNK_BITS] ??= new Uint32Array(CHUNK_NUMBERS));
    chunk[index & (CHUNK_NUMBERS - 1)] = value;
  }

  /** All numbers but 0, each with its index. */
  *entries(): Generator<[index: number, value: number], void, void> {
    for (const [number, chunk] of this.#chunks.entries())
      for (const [at, value] of chunk?.entries() ?? [])
        if (value !== 0) yield [number * CHUNK_NUMBERS + at, value];
  }
}

/** Any numbers. A class of its own: V8 is slow where one function reads two kinds of arrays. */
export class DoubleColumn {
  readonly #chunks: (Float64Array | undefined)[] = [];

  get(index: number): number {
    const chunk = this.#chunks[index >>> CHUNK_BITS];
    return chunk === undefined ? 0 : chunk[index & (CHUNK_NUMBERS - 1)]!;
  }

  set(index: number, value: number): void {
    const chunk = (this.#chunks[index >>> CHUNK_BITS] ??= new Float64Array(CHUNK_NUMBERS));
    chunk[index & (CHUNK_NUMBERS - 1)] = value;
  }
}

/** Records whose fields are columns, numbered from 1. A freed number is used again. */
export class Records {
  readonly #columns: (Column | DoubleColumn)[] = [];
  readonly #freed: number[] = [];
  #next = 1;

  /** A further field. */
  column<Kind extends Column | DoubleColumn>(column: Kind): Kind {
    this.#columns.push(column);
    return column;
  }

  /** A number whose fields are all 0. */
  allocate(): number {
    const freed = this.#freed.pop();
    for (const column of freed === undefined ? [] : this.#columns) column.set(freed!, 0);
    if (freed !== undefined) return freed;
    this.#next += 1;
    return this.#next - 1;
  }

  free(index: number): void {
    this.#freed.push(index);
  }
}

/** A temporary file that grows at its end. Its calls block; they throw the system's errors. */
export class Spool {
  readonly #file: number;
  #size = 0;

  /** @param file a descriptor of an empty file, open for reading and writing; the caller closes it */
  constructor(file: number) {
    this.#file = file;
  }

  get size(): number {
    return this.#size;
  }

  append(bytes: Uint8Array): void {
    this.write(this.reserve(bytes.length), bytes);
  }

  /** Reserves `length` bytes and returns their position. */
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
  /** Once it is set, long strings go into it. */
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

/** Memory that is allocated and never freed. Each piece is in one buffer. */
class Arena {
  readonly #chunks: Buffer[] = [];
  /** The first byte is unused, so that no piece is at 0. */
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

/**
 * The names of all directories: the inode of a name in a directory, and the names in it. The hash has a random key for
 * every table, so that nobody can make names that collide. Names are byte strings of at most 65,535 bytes, numbered from 1.
 */
export class NameTable {
  readonly #records = new Records();
  readonly #inode = this.#records.column(new Column());
  readonly #directory = this.#records.column(new Column());
  /** The next name in the same bucket; the names before and after it in its directory. */
  readonly #collision = this.#records.column(new Column());
  readonly #previous = this.#records.column(new Column());
  readonly #next = this.#records.column(new Column());
  readonly #place = this.#records.column(new Column());
  readonly #length = this.#records.column(new Column());
  readonly #hash = this.#records.column(new Column());
  readonly #arena = new Arena();
  readonly #key = randomFillSync(new Uint32Array(1))[0]!;
  /** The first name in each directory, and with each hash. */
  readonly #first = new Column();
  #buckets = new Uint32Array(1024);
  #count = 0;

  /** The number of a name, 0 if the directory does not have the name. */
  find(directory: number, text: string): number {
    const hash = this.#hashOf(directory, text);
    let index = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (index !== 0 && !this.#is(index, directory, text, hash)) index = this.#collision.get(index);
    return index;
  }

  /** Gives an inode a name that its directory does not have yet. */
  add(directory: number, text: string, inode: number): void {
    if (this.#count >= 2 * this.#buckets.length) this.#grow();
    const place = this.#arena.reserve(text.length);
    const [chunk, at] = this.#arena.at(place);
    chunk.write(text, at, 'latin1');
    const index = this.#records.allocate();
    const next = this.#first.get(directory);
    this.#inode.set(index, inode);
    this.#directory.set(index, directory);
    this.#next.set(index, next);
    this.#place.set(index, place);
    this.#length.set(index, text.length);
    this.#hash.set(index, this.#hashOf(directory, text));
    if (next !== 0) this.#previous.set(next, index);
    this.#first.set(directory, index);
    this.#putIntoBucket(index);
    this.#count += 1;
  }

  remove(index: number): void {
    const bucket = this.#hash.get(index) & (this.#buckets.length - 1);
    const collision = this.#collision.get(index);
    let before = this.#buckets[bucket]!;
    if (before === index) this.#buckets[bucket] = collision;
    else {
      while (this.#collision.get(before) !== index) before = this.#collision.get(before);
      this.#collision.set(before, collision);
    }
    const next = this.#next.get(index);
    const previous = this.#previous.get(index);
    if (next !== 0) this.#previous.set(next, previous);
    if (previous === 0) this.#first.set(this.#directory.get(index), next);
    else this.#next.set(previous, next);
    this.#records.free(index);
    this.#count -= 1;
  }

  inode(index: number): number {
    return this.#inode.get(index);
  }

  text(index: number): BytePath {
    const [chunk, at] = this.#arena.at(this.#place.get(index));
    return sliceBytes(chunk, at, at + this.#length.get(index));
  }

  isEmpty(directory: number): boolean {
    return this.#first.get(directory) === 0;
  }

  /** The names in a directory, in no order. */
  list(directory: number): number[] {
    const names: number[] = [];
    for (let index = this.#first.get(directory); index !== 0; index = this.#next.get(index))
      names.push(index);
    return names;
  }

  /** The names in a directory, by their bytes. */
  sorted(directory: number): Uint32Array {
    return Uint32Array.from(this.list(directory)).toSorted((one, other) => this.#compare(one, other));
  }

  #compare(one: number, other: number): number {
    const [left, start] = this.#arena.at(this.#place.get(one));
    const [right, begin] = this.#arena.at(this.#place.get(other));
    const [length, otherLength] = [this.#length.get(one), this.#length.get(other)];
    for (let offset = 0; offset < length && offset < otherLength; offset += 1) {
      const difference = left[start + offset]! - right[begin + offset]!;
      if (difference !== 0) return difference;
    }
    return length - otherLength;
  }

  #is(index: number, directory: number, text: string, hash: number): boolean {
    if (this.#hash.get(index) !== hash || this.#directory.get(index) !== directory) return false;
    if (this.#length.get(index) !== text.length) return false;
    const [chunk, at] = this.#arena.at(this.#place.get(index));
    for (let offset = 0; offset < text.length; offset += 1)
      if (chunk[at + offset] !== text.charCodeAt(offset)) return false;
    return true;
  }

  #grow(): void {
    const old = this.#buckets;
    this.#buckets = new Uint32Array(old.length * 4);
    for (let index of old) {
      while (index !== 0) {
        const following = this.#collision.get(index);
        this.#putIntoBucket(index);
        index = following;
      }
    }
  }

  #putIntoBucket(index: number): void {
    const bucket = this.#hash.get(index) & (this.#buckets.length - 1);
    this.#collision.set(index, this.#buckets[bucket]!);
    this.#buckets[bucket] = index;
  }

  #hashOf(directory: number, text: string): number {
    let hash = Math.imul(this.#key ^ directory, 0x9e37_79b1);
    for (let offset = 0; offset < text.length; offset += 1) {
      hash = Math.imul(hash ^ text.charCodeAt(offset), 0x85eb_ca6b);
      hash ^= hash >>> 15;
    }
    return (hash ^ (hash >>> 13)) >>> 0;
  }
}
