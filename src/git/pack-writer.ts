import { type Hash, createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  openSync,
  read,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { GitError } from '../errors.ts';
import { openChecksums, type KnownObjects, composePackIndex } from './pack-format.ts';
import { randomName } from '../sys/temp-file.ts';

/** The types of objects that are written. */
export type ObjectType = keyof typeof OBJECT_TYPES;

/**
 * Puts the next bytes of an object into `buffer` at `at`: exactly `length` bytes, the object's last ones if
 * `last`.
 */
export type ObjectSource = (buffer: Buffer, at: number, length: number, last: boolean) => void;

const PACK_VERSION = 2;
const PACK_HEADER_BYTES = 12;
const OBJECT_TYPES = { commit: 1, tree: 2, blob: 3 } as const;
const BUFFER_BYTES = 2 ** 20;
/** First two bytes of a zlib stream: deflate, 32 KiB window, fastest (RFC 1950, 2.2). */
const ZLIB_HEADER = 0x7801;
/** The number of bytes of its checksum. */
const TRAILER_BYTES = 4;
/** Limit on the bytes of a stored block of deflate (RFC 1951, 3.2.4), and the size of its header. */
const DEFLATE_BLOCK_BYTES = 0xffff;
const BLOCK_HEADER_BYTES = 5;
/** Limit on the bytes of an object for `addAtOnce`. */
export const MAX_AT_ONCE = 256 * 1024;
/**
 * Overhead in bytes: type and size take up to ten, and a source may look for one byte after the object's end.
 */
const OBJECT_OVERHEAD = 10 + 2 + TRAILER_BYTES + 1;
const BLOCK_OVERHEAD = BLOCK_HEADER_BYTES + DEFLATE_BLOCK_BYTES;
const roomForBlock = OBJECT_OVERHEAD + BLOCK_OVERHEAD;
const roomAtOnce = OBJECT_OVERHEAD + Math.ceil(MAX_AT_ONCE / DEFLATE_BLOCK_BYTES) * BLOCK_OVERHEAD;

const readAsync = promisify(read);

/**
 * Writes objects into a pack: stored, not deflated, and hashed by OpenSSL. The format is gitformat-pack(5). A
 * second checksum detects colliding blobs. `git gc` compresses the pack later, if the user wants that.
 *
 * `git fast-import --depth=0` without compression makes the same commits, but takes 2.2 times the CPU that -g
 * adds on many files, and 3 times on big ones: git's collision-detecting SHA-1 is 57 % of that. For each name
 * it searches a directory from its first name on: directories of 10,000, 20,000 and 40,000 names take 0.4,
 * 1.5 and 6.2 s, and `@mui/icons-material` has 43,008. `git add` and `git commit` after each layer take 17 s
 * where all of this takes 4 s.
 */
export class PackWriter {
  readonly #directory: string;
  readonly #temporary: string;
  readonly #file: number;
  readonly #pause: () => Promise<void>;
  readonly #known: KnownObjects;
  /** Reused by the next pack when this one is closed. */
  readonly workspace: PackWorkspace;
  readonly #buffer: Buffer;
  /** Offset and CRC-32 of each object, in the order of `known`, from number `#first` on. */
  readonly #offsets: number[] = [];
  readonly #crcs: number[] = [];
  readonly #first: number;
  readonly #planned: number;
  /** SHA-1 of the written bytes; undefined if some of them were discarded. */
  #checksum: Hash | undefined = createHash('sha1');
  /** Bytes written, and bytes in the buffer after them. */
  #written = 0;
  #length = PACK_HEADER_BYTES;
  /**
   * The checksums of the current object so far, and the first byte in the buffer that CRC-32 does not cover
   * yet.
   */
  #adler32 = 1;
  #crc32 = 0;
  #unsummed = 0;

  /**
   * @param directory `objects/pack` of the repository
   * @param known objects of this run in all packs, with their Adler-32; this adds to it
   * @param pause called often: lets the event loop run, and throws when the run is to end
   * @param planned the number of objects in the header; a pack with another number is read once more at the
   * end
   * @param workspace of a closed pack
   */
  constructor(
    directory: string,
    known: KnownObjects,
    pause: () => Promise<void>,
    planned: number,
    workspace = new PackWorkspace(),
  ) {
    this.workspace = workspace;
    this.#buffer = workspace.buffer;
    this.#first = known.count;
    this.#directory = directory;
    this.#known = known;
    this.#pause = pause;
    this.#planned = planned;
    this.#putPackHeader(this.#buffer, planned);
    this.#temporary = path.join(directory, randomName('tmp_pack_'));
    this.#file = openSync(this.#temporary, 'wx+', 0o444);
  }

  /** Size of the pack so far, in bytes. */
  get size(): number {
    return this.#written + this.#length;
  }

  /** True if it has as many objects as planned. */
  get isFull(): boolean {
    return this.#offsets.length === this.#planned;
  }

  /**
   * Adds an object of `size` bytes, unless this run has it already. An error of `source` is thrown, and
   * leaves the pack as it was.
   *
   * @returns its name, `ID_BYTES` bytes, valid until the next object is added
   */
  async add(size: number, source: ObjectSource, type: ObjectType = 'blob'): Promise<Buffer> {
    const start = this.#begin(size, type, roomForBlock);
    try {
      for (let rest = size; ;) {
        rest -= this.#addBlock(rest, source);
        if (rest === 0) break;
        if (this.#length + roomForBlock <= BUFFER_BYTES) continue;
        this.#sum();
        this.#flush();
        this.#unsummed = 0;
        await this.#pause();
      }
      return this.#finish(start);
    } catch (error) {
      this.#rollBack(start);
      throw error;
    }
  }

  /** Adds an object like `add`, without a pause, for at most `MAX_AT_ONCE` bytes. */
  addAtOnce(size: number, source: ObjectSource, type: ObjectType = 'blob'): Buffer {
    const start = this.#begin(size, type, roomAtOnce);
    try {
      for (let rest = size; ;) {
        rest -= this.#addBlock(rest, source);
        if (rest === 0) return this.#finish(start);
      }
    } catch (error) {
      this.#rollBack(start);
      throw error;
    }
  }

  /** Completes the pack and its index; git sees them from then on. */
  async close(): Promise<void> {
    try {
      if (this.#offsets.length === 0) return;
      this.#flush();
      ftruncateSync(this.#file, this.#written);
      const checksum = (this.isFull ? this.#checksum?.digest() : undefined) ?? (await this.#readAgain());
      writeSync(this.#file, checksum, 0, checksum.length, this.#written);
      const name = path.join(this.#directory, `pack-${checksum.toString('hex')}`);
      renameSync(this.#temporary, `${name}.pack`);
      const names = this.#known.names(this.#first, this.#offsets.length);
      const index = composePackIndex(names, this.#offsets, this.#crcs, checksum);
      writeFileSync(this.#temporary, index, { flag: 'wx', mode: 0o444 });
      renameSync(this.#temporary, `${name}.idx`);
    } finally {
      this.discard();
    }
  }

  /** Closes and removes the temporary file of a pack that was not completed. */
  discard(): void {
    closeSync(this.#file);
    rmSync(this.#temporary, { force: true });
  }

  /** Makes room and begins an object; returns its offset in the pack. */
  #begin(size: number, type: ObjectType, room: number): number {
    if (this.#length + room > BUFFER_BYTES) this.#flush();
    const start = this.size;
    this.workspace.checksums.begin(`${type} ${size}\0`);
    this.#adler32 = 1;
    this.#crc32 = 0;
    this.#unsummed = this.#length;
    this.#putObjectHeader(size, OBJECT_TYPES[type]);
    return start;
  }

  /**
   * Adds the next block of the object, of which `rest` bytes are missing; returns the number of bytes in the
   * block.
   */
  #addBlock(rest: number, source: ObjectSource): number {
    const length = Math.min(rest, DEFLATE_BLOCK_BYTES);
    const last = length === rest;
    const at = this.#putBlockHeader(length, last);
    source(this.#buffer, at, length, last);
    this.#length = at + length;
    const { checksums } = this.workspace;
    checksums.add(at, this.#length);
    this.#adler32 = checksums.adler32(this.#adler32, at, this.#length);
    return length;
  }

  #finish(start: number): Buffer {
    this.#length = this.#buffer.writeUInt32BE(this.#adler32, this.#length);
    const name = this.workspace.checksums.end();
    const known = this.#known.add(name, this.#adler32);
    if (known === undefined) {
      this.#sum();
      this.#offsets.push(start);
      this.#crcs.push(this.#crc32);
    } else {
      this.#rollBack(start);
      if (known !== this.#adler32) throw collision(name.toString('hex'));
    }
    return name;
  }

  #sum(): void {
    this.#crc32 = this.workspace.checksums.crc32(this.#crc32, this.#unsummed, this.#length);
  }

  #putPackHeader(header: Buffer, count: number): void {
    header.write('PACK', 'latin1');
    header.writeUInt32BE(PACK_VERSION, 4);
    header.writeUInt32BE(count, 8);
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

  /** Writes the header of a block; returns the offset of its bytes. */
  #putBlockHeader(length: number, last: boolean): number {
    this.#buffer[this.#length] = last ? 1 : 0;
    this.#buffer.writeUInt16LE(length, this.#length + 1);
    return this.#buffer.writeUInt16LE(length ^ 0xffff, this.#length + 3);
  }

  #rollBack(start: number): void {
    if (start < this.#written) this.#checksum = undefined;
    this.#length = Math.max(0, start - this.#written);
    this.#written = Math.min(start, this.#written);
  }

  #flush(): void {
    this.#checksum?.update(this.#buffer.subarray(0, this.#length));
    for (let done = 0; done < this.#length;) {
      done += writeSync(this.#file, this.#buffer, done, this.#length - done, this.#written + done);
    }
    this.#written += this.#length;
    this.#length = 0;
  }

  /** Corrects the number of objects in the header; returns the SHA-1 of the pack. */
  async #readAgain(): Promise<Buffer> {
    const header = Buffer.alloc(PACK_HEADER_BYTES);
    this.#putPackHeader(header, this.#offsets.length);
    writeSync(this.#file, header, 0, PACK_HEADER_BYTES, 0);
    const hash = createHash('sha1');
    for (let at = 0; at < this.#written;) {
      const { bytesRead } = await readAsync(this.#file, this.#buffer, 0, BUFFER_BYTES, at);
      if (bytesRead === 0) throw new GitError('a pack was cut off while it was written');
      hash.update(this.#buffer.subarray(0, bytesRead));
      at += bytesRead;
      await this.#pause();
    }
    return hash.digest();
  }
}

/** The memory for writing a pack. */
export class PackWorkspace {
  readonly buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly checksums = openChecksums(this.buffer);
}

function collision(id: string): GitError {
  return new GitError(`two files of the image have the same SHA-1, ${id}: git can hold only one of them`, {
    code: 'GIT_COLLISION',
    hint: 'pull it without -g: the image was made to deceive git',
  });
}

/** Returns a source of bytes in memory. */
export function contentIn(bytes: Uint8Array): ObjectSource {
  let start = 0;
  return (buffer, at, length) => {
    buffer.set(bytes.subarray(start, start + length), at);
    start += length;
  };
}
