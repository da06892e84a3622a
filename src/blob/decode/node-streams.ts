import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import {
  type ByteReader,
  ENDS_EARLY,
  MalformedDataError,
  TRAILING_BYTES,
  WINDOW_LOG_MAX,
  WINDOW_TOO_LARGE,
} from './byte-reader.ts';

/** Buffer sizes in bytes; see docs/blobs.md. */
const STREAM_INPUT_BYTES = 1024 * 1024;
const GZIP_OUTPUT_BYTES = 512 * 1024;
/** Each frame has its own stream, and each stream has a buffer of this size. */
const ZSTD_OUTPUT_BYTES = 64 * 1024;

/**
 * Decodes gzip (RFC 1952) if no C function can be called: members one after another, then only zeros.
 *
 * @throws MalformedDataError
 * @throws what the reader throws
 */
export async function* gunzip(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const input = new Input(reader);
  // The stream itself continues with the next member, and stops at a zero after one.
  yield* decodeOne(createGunzip({ chunkSize: GZIP_OUTPUT_BYTES }), input);
  while (await input.more()) {
    if (input.unused.some((byte) => byte !== 0)) throw new MalformedDataError(TRAILING_BYTES);
    input.use(input.unused.length);
  }
}

/**
 * Decodes zstd (RFC 8878) if no C function can be called. Node's stream ends with a frame that is followed by
 * more bytes in the same write. Another stream then takes these, which costs about 0.1 ms.
 *
 * @throws MalformedDataError
 * @throws what the reader throws
 */
export async function* unzstd(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const params = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX };
  const input = new Input(reader);
  while (await input.more()) {
    yield* decodeOne(createZstdDecompress({ chunkSize: ZSTD_OUTPUT_BYTES, params }), input);
  }
}

/** The bytes of a reader, for several streams, each of which uses as many as it needs. */
class Input {
  readonly #reader: ByteReader;
  readonly #buffer = new Uint8Array(STREAM_INPUT_BYTES);
  #unused = this.#buffer.subarray(0, 0);

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /** Bytes that were read, and that no stream has used. */
  get unused(): Uint8Array {
    return this.#unused;
  }

  /** Reads more if all bytes are used; false at the end. */
  async more(): Promise<boolean> {
    if (this.#unused.length === 0) {
      this.#unused = this.#buffer.subarray(0, await this.#reader.read(this.#buffer));
    }
    return this.#unused.length > 0;
  }

  use(count: number): void {
    this.#unused = this.#unused.subarray(count);
  }
}

/** Decodes until the stream ends, with the input or before. */
async function* decodeOne(
  stream: Gunzip | ZstdDecompress,
  input: Input,
): AsyncGenerator<Uint8Array, void, undefined> {
  // A stream that has ended does not call the callbacks of later writes.
  const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('end', resolve));
  const feed = async () => {
    let isAllUsed = true;
    while (isAllUsed && !stream.readableEnded && !stream.destroyed) {
      if (!(await input.more())) {
        stream.end();
        return;
      }
      const before = stream.bytesWritten;
      const written = new Promise<void>((resolve) => stream.write(input.unused, () => resolve()));
      await Promise.race([written, ended]);
      const used = stream.bytesWritten - before;
      isAllUsed = used === input.unused.length;
      input.use(used);
    }
  };
  const feeding = feed().catch((error: unknown) => stream.destroy(error as Error));
  try {
    // Each buffer of output is freed as soon as it is used. V8 would collect them only after tens of MiB.
    let used: ArrayBuffer | undefined;
    for await (const chunk of stream as AsyncIterable<Uint8Array<ArrayBuffer>>) {
      if (chunk.buffer !== used) used?.transfer(0);
      used = chunk.buffer;
      yield chunk;
    }
    used?.transfer(0);
    await feeding;
  } catch (error) {
    throw asMalformedData(error);
  } finally {
    stream.destroy();
  }
}

function asMalformedData(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return error;
  if (error.code === 'Z_BUF_ERROR') return new MalformedDataError(ENDS_EARLY);
  if (/^ZSTD_error_(?:frameParameter_window|memory)/.test(error.code))
    return new MalformedDataError(WINDOW_TOO_LARGE);
  if (error.code.startsWith('Z_')) return new MalformedDataError('is corrupt', { cause: error });
  if (error.code.startsWith('ZSTD_'))
    return new MalformedDataError(`is corrupt (${error.message})`, { cause: error });
  return error;
}
