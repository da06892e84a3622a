import { BlockStream } from './block-stream.ts';
import { displayPath, noBytes, sliceUntilNul } from './byte-path.ts';
import { composeEntry, pathOf, typeOf, type MetaHeaders } from './compose.ts';
import type { BytePath, ByteSource, Entry, EntryReader } from './entry.ts';
import { blockSize, checksumMatches, parseHeader, sumWords, type Header } from './header.ts';
import { MalformedTarError } from './malformed.ts';
import { addGlobals, type PaxGlobals } from './pax-scope.ts';
import { parsePax, type PaxRecords } from './pax.ts';
import { readOldSparse, readPaxSparse, type SparseFile } from './sparse.ts';

/** What one meta header (pax records, a long name) may hold, in bytes; Go's archive/tar has the same limit. */
export const maxMetaSize = 1 << 20;

const dumpDirectory = 0x44;
const oldSparse = 0x53;

/**
 * Reads one archive: v7, ustar, GNU, star and pax. Where tools differ it follows Go's archive/tar, which containerd, docker and
 * umoci are built on, except that global pax headers count, unknown types are regular files (POSIX), and an archive that ends within
 * padding or after a meta header is damaged. It may end without its end mark, at a block border; what follows an end mark is left in
 * the source.
 *
 * All errors are MalformedTarError, with the layer and the entry in the message, but for those that the source throws; after one,
 * every call throws it again.
 */
export class TarReader implements EntryReader {
  readonly #stream: BlockStream;
  readonly #layer: string;
  #globals: PaxGlobals;
  /** Bytes of the current entry's data, and of the padding after it, that were not taken. */
  #remaining = 0;
  #padding = 0;
  #ended = false;
  #failure: unknown;
  /** For messages: the entry being read, the one before, and whether the block at hand is a header with a good checksum. */
  #path: BytePath | undefined;
  #previous: BytePath | undefined;
  #inHeader = false;
  #headerOffset = 0;

  /** @param layer what messages call the archive: `layer 0123456789ab`. */
  constructor(source: ByteSource, layer: string) {
    this.#stream = new BlockStream(source);
    this.#layer = layer;
  }

  next(): Entry | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended) return undefined;
    try {
      return this.#advance();
    } catch (error) {
      throw (this.#failure = this.#located(error));
    }
  }

  data(): Uint8Array | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#remaining === 0) return undefined;
    try {
      const bytes = this.#stream.take(this.#remaining);
      if (bytes === undefined) throw this.#cutOff();
      this.#remaining -= bytes.length;
      return bytes;
    } catch (error) {
      throw (this.#failure = this.#located(error));
    }
  }

  #advance(): Entry | undefined {
    this.#skipRest();
    this.#previous = this.#path ?? this.#previous;
    this.#path = undefined;
    let pax: PaxRecords | undefined;
    let longName = noBytes;
    let longLink = noBytes;
    for (;;) {
      const header = this.#nextHeader();
      if (header === undefined) {
        if (pax !== undefined || longName !== noBytes || longLink !== noBytes) {
          throw new MalformedTarError('the archive ends after a meta header, without the entry it is for');
        }
        this.#ended = true;
        return undefined;
      }
      switch (header.type) {
        case 0x78: // x
        case 0x58: // X, Solaris
          pax = parsePax(this.#readMeta(header));
          break;
        case 0x67: // g
          this.#globals = addGlobals(this.#globals, parsePax(this.#readMeta(header)));
          break;
        case 0x4c: // L
          longName = this.#readName(header) || longName;
          break;
        case 0x4b: // K
          longLink = this.#readName(header) || longLink;
          break;
        case 0x56: // V, the label of a volume
        case 0x41: // A, an access list of Solaris, which Linux has no place for
          this.#startData(header.size);
          this.#skipRest();
          break;
        case 0x4d: // M
          throw new MalformedTarError('it goes on from another volume, which a layer cannot have');
        default:
          return this.#entry(header, { pax, globals: this.#globals, longName, longLink });
      }
    }
  }

  #entry(header: Header, meta: MetaHeaders): Entry {
    const path = pathOf(header, meta);
    this.#path = path;
    const type = typeOf(header, path);
    let size = 0;
    let sparse: SparseFile | undefined;
    if (type === 'file') {
      // The size in the pax header is the true one: a reader that takes the other sees other entries (CVE-2025-62518).
      size = meta.pax?.size ?? header.size;
      if (size < 0) throw new MalformedTarError(`its size ${size} is negative`);
      if (header.type === oldSparse) sparse = readOldSparse(this.#stream, size);
      else if (meta.pax?.sparse !== undefined) sparse = readPaxSparse(this.#stream, meta.pax.sparse, size);
      this.#startData(size);
      if (sparse !== undefined) this.#remaining = sparse.stored;
    } else if (meta.pax?.sparse !== undefined) {
      throw new MalformedTarError('it is sparse but no file');
    } else if (header.type === dumpDirectory) {
      this.#startData(meta.pax?.size ?? header.size);
    }
    this.#inHeader = false;
    return composeEntry(header, meta, path, type, size, sparse);
  }

  /** The next header with a good checksum; undefined at the end mark and where the archive ends. */
  #nextHeader(): Header | undefined {
    const stream = this.#stream;
    this.#inHeader = false;
    this.#headerOffset = stream.offset;
    if (!stream.nextBlock()) return undefined;
    const sum = sumWords(stream.words, stream.wordsAt);
    if (sum === 0) {
      if (stream.nextBlock() && sumWords(stream.words, stream.wordsAt) !== 0) {
        throw new MalformedTarError('half an end mark: one block of zeros, then something else');
      }
      return undefined;
    }
    if (!checksumMatches(stream.block, stream.at, sum)) {
      throw new MalformedTarError('this is no tar header, its checksum is wrong');
    }
    this.#inHeader = true;
    return parseHeader(stream.block, stream.at);
  }

  #startData(size: number): void {
    if (size < 0) throw new MalformedTarError(`its size ${size} is negative`);
    this.#remaining = size;
    this.#padding = -size & (blockSize - 1);
  }

  #skipRest(): void {
    if (this.#remaining === 0 && this.#padding === 0) return;
    if (!this.#stream.skip(this.#remaining)) throw this.#cutOff();
    this.#remaining = 0;
    if (!this.#stream.skip(this.#padding))
      throw new MalformedTarError('the archive ends within the padding after it');
    this.#padding = 0;
  }

  /** The data of a meta header, in memory of its own. */
  #readMeta(header: Header): Buffer {
    if (header.size > maxMetaSize) {
      throw new MalformedTarError(`a meta header of ${header.size} bytes, the limit is ${maxMetaSize}`);
    }
    this.#startData(header.size);
    this.#inHeader = false;
    const body = Buffer.allocUnsafe(header.size);
    while (this.#remaining > 0) {
      const bytes = this.#stream.take(this.#remaining);
      if (bytes === undefined) throw this.#cutOff();
      body.set(bytes, header.size - this.#remaining);
      this.#remaining -= bytes.length;
    }
    this.#skipRest();
    return body;
  }

  #readName(header: Header): BytePath {
    const body = this.#readMeta(header);
    return sliceUntilNul(body, 0, body.length);
  }

  #cutOff(): MalformedTarError {
    return new MalformedTarError('the archive ends within its data');
  }

  #located(error: unknown): unknown {
    if (!(error instanceof MalformedTarError)) return error;
    return new MalformedTarError(`${this.#layer}: ${this.#place()}: ${error.message}`, error);
  }

  /** The path where it is known, else the name in a header that is sound, else the offset. */
  #place(): string {
    const { block, at } = this.#stream;
    const path = this.#path ?? (this.#inHeader ? sliceUntilNul(block, at, 100) : noBytes);
    if (path !== noBytes) return displayPath(path);
    const after = this.#previous === undefined ? '' : `, after ${displayPath(this.#previous)}`;
    return `header at byte ${this.#headerOffset}${after}`;
  }
}
