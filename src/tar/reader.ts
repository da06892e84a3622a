import { BlockStream, emptyBuffer } from './block-stream.ts';
import {
  type BytePath,
  type ByteSource,
  displayPath,
  type Entry,
  type EntryReader,
  type EntryType,
  isDevice,
  MalformedTarError,
  noBytes,
  sliceUntilNul,
} from './entry.ts';
import { TAR_BLOCK_BYTES, checksumMatches, type TarHeader, parseHeader, sumWords } from './header.ts';
import { addGlobals, combinePax, parsePax, type PaxRecords, xattrsOf } from './pax.ts';
import { oldSparseFile, paxSparseFile, type FileData } from './sparse.ts';

/** Most bytes of one meta header (pax records, a long name); Go's archive/tar has the same limit. */
export const maxMetaSize = 1 << 20;

const DUMP_DIRECTORY = 0x44;
const OLD_SPARSE = 0x53;
const slash = 0x2f;

/**
 * Reads one archive: v7, ustar, GNU, star and pax. Where tools differ, the rules are those of Go's
 * archive/tar, which containerd, docker and umoci use. There are three exceptions. Global pax headers apply,
 * unknown types are regular files (POSIX), and a meta header needs its entry. The archive may end at a block
 * border without its end mark. Bytes after an end mark are left in the source.
 *
 * Errors of the source are thrown as they are. All others are MalformedTarErrors, with the layer and the
 * entry in the message. After one, every call throws it again.
 */
export class TarReader implements EntryReader {
  /** The archive's bytes. */
  readonly stream: BlockStream;
  readonly #layer: string;
  readonly #steps = this.#read();
  /** For messages: the current header's offset, its entry's path, and the path of the entry before. */
  #headerOffset = 0;
  #path: BytePath | undefined;
  #previous: BytePath | undefined;
  /** The meta headers that apply to all following entries, and to the next one. */
  #globals: PaxRecords | undefined;
  #pax: PaxRecords | undefined;
  /** Bodies of GNU's `L` and `K`. */
  #longName: Buffer = emptyBuffer;
  #longLink: Buffer = emptyBuffer;
  /** Memory for the bodies of meta headers, by type. It is reused, since each body may have a MiB. */
  readonly #bodies = new Map<number, Buffer>();
  #failure: unknown;

  /** @param layer name of the archive in messages: `layer 0123456789ab` */
  constructor(source: ByteSource, layer: string) {
    this.stream = new BlockStream(source);
    this.#layer = layer;
  }

  next(): Entry | undefined {
    for (;;) {
      const step = this.step();
      if (typeof step !== 'number') return step;
    }
  }

  /**
   * Does the same as `next`, without waiting for an asynchronous source. Returns the number of bytes, at most
   * a block, that the source must have before the next step.
   */
  step(): Entry | number | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#steps.next().value ?? undefined;
    } catch (error) {
      throw this.#fail(error);
    }
  }

  data(): Uint8Array | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.stream.remaining === 0) return undefined;
    try {
      return this.stream.takeData();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** Returns the error with the layer and the entry, or else the header's offset, in its message. */
  #fail(error: unknown): unknown {
    this.#failure = error;
    if (error instanceof MalformedTarError) {
      let place = `header at byte ${this.#headerOffset}`;
      if (this.#path !== undefined && this.#path !== noBytes) place = displayPath(this.#path);
      else if (this.#previous !== undefined) place += `, after ${displayPath(this.#previous)}`;
      this.#failure = new MalformedTarError(`${this.#layer}: ${place}: ${error.message}`, error);
    }
    return this.#failure;
  }

  *#read(): Generator<Entry | number, void, undefined> {
    const { stream } = this;
    let isAfterZeros = false;
    for (;;) {
      this.#headerOffset = stream.offset;
      if (stream.buffered < TAR_BLOCK_BYTES) yield TAR_BLOCK_BYTES;
      if (!stream.nextBlock()) break;
      const sum = sumWords(stream.words, stream.wordsAt);
      if (sum === 0) {
        if (isAfterZeros) break;
        isAfterZeros = true;
        continue;
      }
      if (isAfterZeros)
        throw new MalformedTarError('data follows a single block of zeros, which is half of an end mark');
      const header = this.#parseHeader(sum);
      switch (header.type) {
        case 0x78: // x
        case 0x58: // X, Solaris
          this.#pax = parsePax(yield* this.#readBody(header), header.path);
          break;
        case 0x67: // g
          this.#globals = addGlobals(this.#globals, parsePax(yield* this.#readBody(header), header.path));
          break;
        case 0x4c: // L
          this.#longName = yield* this.#readBody(header);
          break;
        case 0x4b: // K
          this.#longLink = yield* this.#readBody(header);
          break;
        case 0x56: // V, the label of a volume
        case 0x41: // A, an access list of Solaris: Linux has none of that kind
          stream.startData(requireSize(header.size));
          break;
        case 0x4d: // M
          this.#path = header.path;
          throw new MalformedTarError('it continues from another volume, which a layer cannot have');
        default: {
          const type = this.#beginEntry(header);
          const sparse = this.#pax?.sparse !== undefined || header.type === OLD_SPARSE;
          const file = sparse ? yield* this.#readSparseMap(header, type) : this.#plainFile(header, type);
          const entry = this.#compose(header, type, file);
          stream.startData(file.stored);
          yield entry;
        }
      }
      if (stream.buffered < stream.remaining + stream.padding) yield* this.#awaitData();
      stream.skipData();
      this.#previous = this.#path ?? this.#previous;
      this.#path = undefined;
    }
    if (this.#pax !== undefined || nameIn(this.#longName) || nameIn(this.#longLink))
      throw new MalformedTarError('the archive ends after a meta header, without the entry it is for');
  }

  #parseHeader(sum: number): TarHeader {
    const { block, at } = this.stream;
    if (!checksumMatches(block, at, sum))
      throw new MalformedTarError('not a tar header: its checksum is wrong');
    try {
      return parseHeader(block, at);
    } catch (error) {
      this.#path = sliceUntilNul(block, at, 100);
      throw error;
    }
  }

  *#readBody({ type, size: written, path }: TarHeader): Generator<number, Buffer, undefined> {
    const { stream } = this;
    if (written > maxMetaSize) {
      this.#path = path;
      throw new MalformedTarError(`a meta header of ${written} bytes, the limit is ${maxMetaSize}`);
    }
    const size = requireSize(written);
    stream.startData(size);
    const before = this.#bodies.get(type);
    const memory = before && before.length >= size ? before : Buffer.allocUnsafeSlow(size);
    this.#bodies.set(type, memory);
    const body = memory.subarray(0, size);
    while (stream.remaining > 0) {
      if (stream.buffered === 0) yield 1;
      const from = size - stream.remaining;
      body.set(stream.takeData(), from);
    }
    return body;
  }

  /** Skips the data while it arrives, until its end and the padding are available. */
  *#awaitData(): Generator<number, void, undefined> {
    while (this.stream.remaining > 0) {
      if (this.stream.buffered === 0) yield 1;
      this.stream.takeData();
    }
    if (this.stream.buffered < this.stream.padding) yield this.stream.padding;
  }

  /**
   * Applies all meta headers to the entry of a header, and returns its type. Its path is
   * GNU.sparse.name, else GNU's long name, the pax path, or the header's, as in Go.
   */
  #beginEntry(header: TarHeader): EntryType {
    if (this.#globals) this.#pax = combinePax(this.#globals, this.#pax);
    const pax = this.#pax;
    this.#path = pax?.sparse?.name ?? (nameIn(this.#longName) || (pax?.path ?? header.path));
    return typeOf(header, this.#path);
  }

  /** Uses pax's size: a reader that uses the header's own sees other entries (CVE-2025-62518). */
  #plainFile(header: TarHeader, type: EntryType): FileData {
    const hasData = type === 'file' || header.type === DUMP_DIRECTORY;
    const stored = hasData ? requireSize(this.#pax?.size ?? header.size) : 0;
    return { size: type === 'file' ? stored : 0, stored, extents: undefined };
  }

  *#readSparseMap(header: TarHeader, type: EntryType): Generator<number, FileData, undefined> {
    const { stored } = this.#plainFile(header, type);
    const { block, at } = this.stream;
    const nextBlock = (): Generator<number, BlockStream, undefined> => this.#nextMapBlock();
    if (header.type === OLD_SPARSE) return yield* oldSparseFile(block, at, stored, nextBlock);
    if (type !== 'file') throw new MalformedTarError('it is sparse and not a file');
    return yield* paxSparseFile(this.#pax!.sparse!, stored, nextBlock);
  }

  *#nextMapBlock(): Generator<number, BlockStream, undefined> {
    const { stream } = this;
    this.#headerOffset = stream.offset;
    if (stream.buffered < TAR_BLOCK_BYTES) yield TAR_BLOCK_BYTES;
    if (!stream.nextBlock()) throw new MalformedTarError('the archive ends within its sparse map');
    return stream;
  }

  /**
   * Composes the entry that a header and the meta headers before it describe.
   *
   * @throws MalformedTarError for an impossible entry: a link to nothing, owners beyond 32 bits
   */
  #compose(header: TarHeader, type: EntryType, { size, extents }: FileData): Entry {
    const isLink = type === 'symlink' || type === 'hardlink';
    const hasNumbers = isDevice(type);
    const pax = this.#pax;
    const mtime = pax?.mtime ?? undefined;
    const entry: Entry = {
      type,
      path: this.#path!,
      linkPath: isLink ? this.#linkPathOf(header) : noBytes,
      mode: header.mode & 0o7777,
      uid: owner(pax?.uid ?? header.uid, 'uid'),
      gid: owner(pax?.gid ?? header.gid, 'gid'),
      size,
      mtimeSeconds: mtime === undefined ? header.mtime : mtime.seconds,
      mtimeNanoseconds: mtime === undefined ? 0 : mtime.nanoseconds,
      deviceMajor: hasNumbers ? requireDeviceNumber(pax?.deviceMajor ?? header.deviceMajor) : 0,
      deviceMinor: hasNumbers ? requireDeviceNumber(pax?.deviceMinor ?? header.deviceMinor) : 0,
      xattrs: pax?.xattrs && xattrsOf(pax.xattrs),
      sparse: extents,
    };
    this.#pax = undefined;
    this.#longName = emptyBuffer;
    this.#longLink = emptyBuffer;
    return entry;
  }

  #linkPathOf(header: TarHeader): BytePath {
    const path = nameIn(this.#longLink) || (this.#pax?.linkPath ?? header.linkPath);
    if (path === noBytes) throw new MalformedTarError('it links to nothing');
    return path;
  }
}

/** Returns the body of GNU's `L` or `K`, up to its first NUL. */
function nameIn(body: Buffer): BytePath {
  return sliceUntilNul(body, 0, body.length);
}

function requireSize(size: number): number {
  if (size < 0) throw new MalformedTarError(`its size ${size} is negative`);
  return size;
}

/** The type flag of each entry type. */
const TYPE_FLAGS: Readonly<Record<EntryType, number>> = {
  file: 0x30,
  hardlink: 0x31,
  symlink: 0x32,
  character: 0x33,
  block: 0x34,
  directory: 0x35,
  fifo: 0x36,
};

/** The entry type for each type flag. POSIX: a flag that is not listed means a regular file. */
const entryTypes: readonly EntryType[] = flaggedTypes();

function flaggedTypes(): EntryType[] {
  const types = Array.from<EntryType>({ length: 256 }).fill('file');
  for (const [type, flag] of Object.entries(TYPE_FLAGS)) types[flag] = type as EntryType;
  types[DUMP_DIRECTORY] = 'directory';
  return types;
}

/** Returns the type of an entry. In v7, a NUL flag and a slash at the end of the path mean a directory. */
function typeOf(header: TarHeader, path: string): EntryType {
  if (header.type === 0) return path.charCodeAt(path.length - 1) === slash ? 'directory' : 'file';
  return entryTypes[header.type]!;
}

/** Returns an owner as 32 bits, unsigned. A negative one (-2 was the user nobody) is converted, as in Go. */
function owner(id: number, name: string): number {
  if (id >= 0 && id <= 0xffff_ffff) return id;
  if (id < 0 && id >= -0x8000_0000) return id + 0x1_0000_0000;
  throw new MalformedTarError(`its ${name} ${id} does not fit in 32 bits`);
}

function requireDeviceNumber(value: number): number {
  if (value >= 0 && value <= 0xffff_ffff) return value;
  throw new MalformedTarError(`its device number ${value} does not fit in 32 bits`);
}

/**
 * Reads as `TarReader` from an asynchronous source, by the same rules, without blocking the thread. A chunk
 * has to be valid only until the next is requested. Bytes after the end mark stay in the iterator.
 */
export class AsyncTarReader {
  readonly #chunks: ChunkQueue;
  readonly #reader: TarReader;

  /** @param layer name of the archive in messages: `layer 0123456789ab` */
  constructor(chunks: AsyncIterator<Uint8Array>, layer: string) {
    this.#chunks = new ChunkQueue(chunks);
    this.#reader = new TarReader(this.#chunks, layer);
  }

  /** Returns the next entry, or undefined after the last one. Skips the rest of the entry before. */
  async next(): Promise<Entry | undefined> {
    for (;;) {
      const step = this.#reader.step();
      if (typeof step !== 'number') return step;
      await this.#fill(step);
    }
  }

  /** Returns more of the current file's stored data; undefined at its end. Valid until the next call. */
  async data(): Promise<Uint8Array | undefined> {
    if (this.#reader.stream.remaining > 0) await this.#fill(1);
    return this.#reader.data();
  }

  /** Waits until `size` bytes (at most a block) are available, or the source ends. */
  async #fill(size: number): Promise<void> {
    const { stream } = this.#reader;
    if (stream.buffered + this.#chunks.length >= size) return;
    stream.detach();
    while (stream.buffered + this.#chunks.length < size && (await this.#chunks.pull()));
  }
}

/** Chunks that have arrived and were not read: only the last one may still be the iterator's memory. */
class ChunkQueue implements ByteSource {
  /** Number of bytes in the queue. */
  length = 0;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunks: Uint8Array[] = [];

  constructor(iterator: AsyncIterator<Uint8Array>) {
    this.#iterator = iterator;
  }

  /** Waits for one more chunk; false at the end. */
  async pull(): Promise<boolean> {
    this.#chunks = this.#chunks.map((chunk) => Uint8Array.from(chunk));
    const { done, value } = await this.#iterator.next();
    if (done === true) return false;
    this.#chunks.push(value);
    this.length += value.length;
    return true;
  }

  read(max: number): Uint8Array | undefined {
    while (this.#chunks[0]?.length === 0) this.#chunks.shift();
    const chunk = this.#chunks[0];
    if (chunk === undefined) return undefined;
    this.#chunks[0] = chunk.subarray(max);
    const bytes = chunk.subarray(0, max);
    this.length -= bytes.length;
    return bytes;
  }
}
