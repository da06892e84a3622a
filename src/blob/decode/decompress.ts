import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import { IntegrityError } from '../../errors.ts';
import { type Compression, compressionOf, type Decompress, MAGIC_LENGTH } from '../../oci/compression.ts';
import {
  type ByteReader,
  ENDS_EARLY,
  MalformedDataError,
  prepend,
  readerOf,
  readFully,
  TRAILING_BYTES,
  WINDOW_LOG_MAX,
  WINDOW_TOO_LARGE,
} from './byte-reader.ts';

/** The compression of a blob, by its first bytes and not by a media type; the returned reader begins with these bytes. */
export async function recognise(
  blob: ByteReader,
): Promise<{ readonly compression: Compression; readonly reader: ByteReader }> {
  const head = new Uint8Array(MAGIC_LENGTH);
  const length = await readFully(blob, head);
  const start = head.subarray(0, length);
  return { compression: compressionOf(start), reader: prepend(start, blob) };
}

/**
 * The bytes of a blob, unpacked. Each chunk is valid until the next is requested.
 *
 * @throws MalformedDataError, also from the result
 */
export function decode(
  compression: Compression,
  reader: ByteReader,
): AsyncGenerator<Uint8Array, void, undefined> {
  return decoders[compression](reader);
}

/** `decode` for data other than layers, such as an archive that holds an image. */
export const decompress: Decompress = async function* (bytes, name) {
  try {
    const { compression, reader } = await recognise(readerOf(bytes));
    yield* decode(compression, reader);
  } catch (error) {
    if (!(error instanceof MalformedDataError)) throw error;
    throw new IntegrityError(`${name}: its compressed data ${error.message}`, {
      code: 'MALFORMED_ARCHIVE',
      hint: 'the file is corrupt or incomplete: download it again',
      cause: error,
    });
  }
};

/**
 * Decodes all bytes of a reader. Each chunk is valid until the next is requested.
 *
 * @throws MalformedDataError
 */
type Decoder = (reader: ByteReader) => AsyncGenerator<Uint8Array, void, undefined>;

/** By Node's streams; for bzip2 and xz by packages that are loaded on demand. */
const decoders: Readonly<Record<Compression, Decoder>> = {
  none: uncompressed,
  gzip: gunzip,
  zstd: unzstd,
  bzip2: bunzip2,
  xz: unxz,
};

/** In bytes. */
const PLAIN_PIECE = 256 * 1024;

async function* uncompressed(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(PLAIN_PIECE);
  for (let count = await reader.read(buffer); count > 0; count = await reader.read(buffer)) {
    yield buffer.subarray(0, count);
  }
}

/** In bytes; see docs/blobs.md. */
const ZLIB_INPUT = 1024 * 1024;
const ZLIB_OUTPUT = 512 * 1024;

/**
 * gzip (RFC 1952) by Node's stream: members one after another, then zeros at most.
 */
async function* gunzip(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  // The stream continues with the next member itself, and stops at a zero after one.
  const rest = yield* decodeOne(createGunzip({ chunkSize: ZLIB_OUTPUT }), reader);
  for await (const piece of uncompressed(rest)) {
    if (piece.some((byte) => byte !== 0)) throw new MalformedDataError(TRAILING_BYTES);
  }
}

/**
 * zstd (RFC 8878) by Node's stream, which ends with each frame: each frame has a stream of its own.
 */
async function* unzstd(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const params = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX };
  const head = new Uint8Array(1);
  for (let rest = reader; (await rest.read(head)) > 0;) {
    rest = yield* decodeOne(
      createZstdDecompress({ chunkSize: ZLIB_OUTPUT, params }),
      prepend(head.slice(), rest),
    );
  }
}

/** Decodes until the stream ends, by itself (then it leaves input unused) or with the input; what it left is in front of the reader returned. */
async function* decodeOne(
  stream: Gunzip | ZstdDecompress,
  reader: ByteReader,
): AsyncGenerator<Uint8Array, ByteReader, undefined> {
  const buffer = new Uint8Array(ZLIB_INPUT);
  let given = 0;
  let last = 0;
  // A stream that ended leaves the callbacks of later writes uncalled.
  const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('end', resolve));
  const feed = async () => {
    while (!stream.readableEnded && !stream.destroyed) {
      last = await reader.read(buffer);
      given += last;
      if (last === 0) {
        stream.end();
        return;
      }
      const written = new Promise<void>((resolve) => stream.write(buffer.subarray(0, last), () => resolve()));
      await Promise.race([written, ended]);
      if (stream.bytesWritten < given) return;
    }
  };
  const feeding = feed().catch((error: unknown) => stream.destroy(error as Error));
  try {
    // Each buffer of output is freed as soon as it was used: V8 would collect them only after tens of MiB.
    let used: ArrayBuffer | undefined;
    for await (const chunk of stream as AsyncIterable<Uint8Array<ArrayBuffer>>) {
      if (chunk.buffer !== used) used?.transfer(0);
      used = chunk.buffer;
      yield chunk;
    }
    used?.transfer(0);
    await feeding;
    const unused = given - stream.bytesWritten;
    return prepend(buffer.slice(last - unused, last), reader);
  } catch (error) {
    throw explainZlib(error);
  } finally {
    stream.destroy();
  }
}

function explainZlib(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return error;
  if (error.code === 'Z_BUF_ERROR') return new MalformedDataError(ENDS_EARLY);
  if (/^ZSTD_error_(?:frameParameter_window|memory)/.test(error.code))
    return new MalformedDataError(WINDOW_TOO_LARGE);
  if (error.code.startsWith('Z_')) return new MalformedDataError('is corrupt', { cause: error });
  if (error.code.startsWith('ZSTD_'))
    return new MalformedDataError(`is corrupt (${error.message})`, { cause: error });
  return error;
}

/** A block has at most 900,001 symbols of at most 20 bits. In bytes. */
const LONGEST_BLOCK = 2_500_000;
const BLOCK_UNIT = 100_000;
/** A piece of output, in bytes. A block of 900,000 may grow to 46 MB (runs of 259 from 5). */
const BZIP2_PIECE = 256 * 1024;

/**
 * bzip2: streams one after another, nothing else after them. It is slow, and blocks the thread for 0.1 s per block: for a few
 * old images.
 */
async function* bunzip2(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const { default: decoder } = await import('unbzip2-stream/lib/bzip2.js');
  const input = new BitInput(reader);
  let work = new Int32Array(0);
  while (await input.more()) {
    const unit = guard(() => decoder.header(input.bits));
    if (work.length !== unit * BLOCK_UNIT) work = new Int32Array(unit * BLOCK_UNIT);
    for (let checksum: number | null = 0; ;) {
      await input.more();
      const output = new Output();
      const before: number = checksum;
      checksum = guard(() => decoder.decompress(input.bits, output.write, work, work.length, before));
      if (checksum === null) break;
      yield* output.pieces();
    }
  }
}

/** Decoding is synchronous: the input of a whole block must be there before. */
class BitInput {
  readonly #reader: ByteReader;
  #bytes = new Uint8Array(2 * LONGEST_BLOCK);
  #length = 0;
  #position = 0;
  #bit = 0;

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /** Makes sure of the longest block's input, or of all there is; false at the end. */
  async more(): Promise<boolean> {
    if (this.#length - this.#position < LONGEST_BLOCK) {
      this.#bytes.copyWithin(0, this.#position, this.#length);
      this.#length -= this.#position;
      this.#position = 0;
      this.#length += await readFully(this.#reader, this.#bytes.subarray(this.#length));
    }
    return this.#position < this.#length;
  }

  readonly bits = (count: number | null): number => {
    if (count === null) {
      if (this.#bit > 0) this.#position += 1;
      this.#bit = 0;
      return 0;
    }
    let result = 0;
    for (let wanted = count; wanted > 0;) {
      if (this.#position >= this.#length) throw new MalformedDataError(ENDS_EARLY);
      const step = Math.min(wanted, 8 - this.#bit);
      const byte = this.#bytes[this.#position]!;
      result = (result << step) | ((byte >> (8 - this.#bit - step)) & ((1 << step) - 1));
      this.#bit += step;
      if (this.#bit === 8) {
        this.#bit = 0;
        this.#position += 1;
      }
      wanted -= step;
    }
    return result;
  };
}

class Output {
  readonly #full: Uint8Array[] = [];
  #piece = new Uint8Array(BZIP2_PIECE);
  #length = 0;

  readonly write = (byte: number): void => {
    if (this.#length === BZIP2_PIECE) {
      this.#full.push(this.#piece);
      this.#piece = new Uint8Array(BZIP2_PIECE);
      this.#length = 0;
    }
    this.#piece[this.#length] = byte;
    this.#length += 1;
  };

  *pieces(): Generator<Uint8Array> {
    yield* this.#full;
    if (this.#length > 0) yield this.#piece.subarray(0, this.#length);
  }
}

/** Runs a step of the decoder, which throws errors of its own kind. */
function guard<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof MalformedDataError) throw error;
    const noMagic = error instanceof Error && error.message.includes('magic');
    throw new MalformedDataError(noMagic ? TRAILING_BYTES : 'is corrupt', { cause: error });
  }
}

/** By xz_ret in xz.h of XZ Embedded, which the package is made of; any other failure means corrupt data. */
const XZ_FAULTS: Readonly<Record<string, string>> = {
  2: 'uses a filter or a check that is not supported',
  3: 'needs too much memory',
  4: 'needs too much memory',
  6: 'uses a filter or a check that is not supported',
  8: ENDS_EARLY,
};

/**
 * xz: streams one after another, zeros between and after them. Filters other than LZMA2 and SHA-256 as the check are malformed data to it: this
 * decoder does not have them.
 */
async function* unxz(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  // The package is CommonJS in a wrapper that hides its names from Node's import, though its types promise them.
  const module: typeof import('xz-decompress') & { readonly default?: typeof import('xz-decompress') } =
    await import('xz-decompress');
  const { XzReadableStream } = module.default ?? module;
  try {
    for await (const chunk of new XzReadableStream(ReadableStream.from(pieces(reader)))) {
      if (chunk.length > 0) yield chunk;
    }
  } catch (error) {
    const text = error instanceof Error ? error.message : '';
    const code = /get_next_output failed with error code (\d+)/.exec(text)?.[1];
    throw code === undefined ? error : new MalformedDataError(XZ_FAULTS[code] ?? 'is corrupt');
  }
}

/** Each in memory of its own: the decoder keeps a piece while it asks for the next. */
async function* pieces(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of uncompressed(reader)) yield Uint8Array.from(piece);
}
