import { createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  openSync,
  read,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { GitError } from '../errors.ts';
import type { ObjectID } from './objects.ts';
import {
  type PackedObject,
  adler32,
  BLOCK_HEADER_SIZE,
  composePackIndex,
  storedBlockSize,
  TRAILER_SIZE,
  writeBlockHeader,
  ZLIB_HEADER,
} from './pack-format.ts';
import { randomName } from '../sys/temp-file.ts';

/** The objects that are written here. */
export type ObjectType = keyof typeof types;

/** Puts the next bytes of an object into `buffer` at `at`: exactly `length` of them, its last ones when `last`. */
export type ObjectSource = (buffer: Buffer, at: number, length: number, last: boolean) => void;

const PACK_VERSION = 2;
const PACK_HEADER_SIZE = 12;
const types = { commit: 1, tree: 2, blob: 3 } as const;
const BUFFER_SIZE = 4 * 2 ** 20;
/** An object's type and size take up to ten bytes; a source may look for one byte more than there should be. */
const headroom = 10 + 2 + BLOCK_HEADER_SIZE + storedBlockSize + TRAILER_SIZE + 1;

const readAsync = promisify(read);

/**
 * Writes objects into a pack, blobs for the most part: stored, not deflated, and hashed by OpenSSL.
 *
 * `git fast-import` and `git add` could do it, but their collision-detecting SHA-1 passes over each byte up to four times at 0.2 to
 * 0.4 GB/s, and they deflate at 0.1 GB/s: several times what all the rest of a pull takes. `git gc` packs it tightly whenever the
 * user wants that. The format is gitformat-pack(5). Colliding blobs would be told apart by a second checksum.
 */
export class PackWriter {
  readonly #directory: string;
  readonly #temporary: string;
  readonly #file: number;
  readonly #pause: () => Promise<void>;
  readonly #known: Map<ObjectID, number>;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  readonly #view = new DataView(this.#buffer.buffer, 0, BUFFER_SIZE);
  readonly #objects: PackedObject[] = [];
  /** Bytes written, and bytes in the buffer after them. */
  #written = 0;
  #length = PACK_HEADER_SIZE;

  /**
   * @param directory `objects/pack` of the repository
   * @param known blobs of this run, in this or another pack, with their Adler-32: filled in here
   * @param pause called often, lets the event loop run where it has waited, and throws when the run is to end
   */
  constructor(directory: string, known: Map<ObjectID, number>, pause: () => Promise<void>) {
    this.#directory = directory;
    this.#known = known;
    this.#pause = pause;
    this.#temporary = path.join(directory, randomName('tmp_pack_'));
    this.#file = openSync(this.#temporary, 'wx+', 0o444);
  }

  /** Size of the pack so far, in bytes. */
  get size(): number {
    return this.#written + this.#length;
  }

  /** Adds an object of `size` bytes, unless this run has it already. What `source` throws goes through and leaves the pack as it was. */
  async add(size: number, source: ObjectSource, type: ObjectType = 'blob'): Promise<ObjectID> {
    const start = this.#begin();
    try {
      const steps = this.#steps(size, source, start, type);
      let step = steps.next();
      for (; step.done !== true; step = steps.next()) await this.#pause();
      return step.value;
    } catch (error) {
      this.#rollBack(start);
      throw error;
    }
  }

  /** The same without a pause: for small ones, of which there are many. */
  addAtOnce(size: number, source: ObjectSource, type: ObjectType = 'blob'): ObjectID {
    const start = this.#begin();
    try {
      const steps = this.#steps(size, source, start, type);
      let step = steps.next();
      while (step.done !== true) step = steps.next();
      return step.value;
    } catch (error) {
      this.#rollBack(start);
      throw error;
    }
  }

  /** Completes the pack and its index; git sees them from then on. */
  async close(): Promise<void> {
    try {
      if (this.#objects.length === 0) return;
      this.#flush();
      ftruncateSync(this.#file, this.#written);
      const header = Buffer.from('PACK0000....');
      header.writeUInt32BE(PACK_VERSION, 4);
      header.writeUInt32BE(this.#objects.length, 8);
      writeSync(this.#file, header, 0, PACK_HEADER_SIZE, 0);
      const checksum = await this.#checksum();
      writeSync(this.#file, checksum, 0, checksum.length, this.#written);
      const name = path.join(this.#directory, `pack-${checksum.toString('hex')}`);
      renameSync(this.#temporary, `${name}.pack`);
      writeFileSync(this.#temporary, composePackIndex(this.#objects, checksum), { flag: 'wx', mode: 0o444 });
      renameSync(this.#temporary, `${name}.idx`);
    } finally {
      this.discard();
    }
  }

  /** Leaves nothing behind of a pack that was not completed. */
  discard(): void {
    closeSync(this.#file);
    rmSync(this.#temporary, { force: true });
  }

  /** Makes room, and answers where the next object begins. */
  #begin(): number {
    if (this.#length + headroom > BUFFER_SIZE) this.#flush();
    return this.size;
  }

  /** Adds an object, in steps of a few megabytes. */
  *#steps(
    size: number,
    source: ObjectSource,
    start: number,
    type: ObjectType,
  ): Generator<void, ObjectID, void> {
    const hash = createHash('sha1').update(`${type} ${size}\0`);
    let checksum = 1;
    let crc = 0;
    let unsummed = this.#length;
    this.#putObjectHeader(size, types[type]);
    for (let rest = size; ;) {
      const length = Math.min(rest, storedBlockSize);
      rest -= length;
      const at = writeBlockHeader(this.#buffer, this.#length, length, rest === 0);
      source(this.#buffer, at, length, rest === 0);
      this.#length = at + length;
      hash.update(this.#buffer.subarray(at, this.#length));
      checksum = adler32(this.#view, at, this.#length, checksum);
      if (rest === 0) break;
      if (this.#length + headroom > BUFFER_SIZE) {
        crc = crc32(this.#buffer.subarray(unsummed, this.#length), crc);
        this.#flush();
        unsummed = 0;
        yield;
      }
    }
    this.#length = this.#buffer.writeUInt32BE(checksum, this.#length);
    crc = crc32(this.#buffer.subarray(unsummed, this.#length), crc);

    const id = hash.digest('hex') as ObjectID;
    const known = this.#known.get(id);
    if (known === undefined) {
      this.#known.set(id, checksum);
      this.#objects.push({ id, offset: start, crc32: crc });
    } else {
      this.#rollBack(start);
      if (known !== checksum) throw collision(id);
    }
    return id;
  }

  #putObjectHeader(size: number, type: number): void {
    const buffer = this.#buffer;
    let at = this.#length;
    let rest = Math.floor(size / 16);
    buffer[at] = (rest > 0 ? 0x80 : 0) | (type << 4) | (size % 16);
    at += 1;
    while (rest > 0) {
      const low = rest % 128;
      rest = Math.floor(rest / 128);
      buffer[at] = (rest > 0 ? 0x80 : 0) | low;
      at += 1;
    }
    this.#length = buffer.writeUInt16BE(ZLIB_HEADER, at);
  }

  #rollBack(start: number): void {
    this.#length = Math.max(0, start - this.#written);
    this.#written = Math.min(start, this.#written);
  }

  #flush(): void {
    for (let done = 0; done < this.#length;) {
      done += writeSync(this.#file, this.#buffer, done, this.#length - done, this.#written + done);
    }
    this.#written += this.#length;
    this.#length = 0;
  }

  /** SHA-1 of all that was written. It begins with the number of objects, so it could not be taken on the way. */
  async #checksum(): Promise<Buffer> {
    const hash = createHash('sha1');
    for (let at = 0; at < this.#written;) {
      const { bytesRead } = await readAsync(this.#file, this.#buffer, 0, BUFFER_SIZE / 4, at);
      if (bytesRead === 0) throw new GitError('a pack was cut off while it was written');
      hash.update(this.#buffer.subarray(0, bytesRead));
      at += bytesRead;
      await this.#pause();
    }
    return hash.digest();
  }
}

function collision(id: ObjectID): GitError {
  return new GitError(`two files of the image have the same SHA-1, ${id}: git can hold only one of them`, {
    code: 'GIT_COLLISION',
    hint: 'the image was made to deceive git; pull it without -g',
  });
}

/** A file had more or fewer bytes than it should. */
export class SizeMismatch extends Error {}

/**
 * The content of an open file, from its position on, as a blob's.
 *
 * @throws SizeMismatch from the source
 */
export function contentOf(file: number): ObjectSource {
  return (buffer, at, length, last) => {
    const wanted = length + (last ? 1 : 0);
    let done = 0;
    while (done < wanted) {
      const count = readSync(file, buffer, at + done, wanted - done, null);
      if (count === 0) break;
      done += count;
    }
    if (done !== length) throw new SizeMismatch();
  };
}

/** Bytes in memory as a blob's content. */
export function contentIn(bytes: Uint8Array): ObjectSource {
  let start = 0;
  return (buffer, at, length) => {
    buffer.set(bytes.subarray(start, start + length), at);
    start += length;
  };
}
