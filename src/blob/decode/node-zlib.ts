import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import { type ByteReader, prepend } from './byte-reader.ts';
import {
  ENDS_EARLY,
  MalformedDataError,
  TRAILING_BYTES,
  WINDOW_LOG_MAX,
  WINDOW_TOO_LARGE,
} from './malformed-data.ts';

/** In bytes; see engine.ts. */
const INPUT = 128 * 1024;
const OUTPUT = 128 * 1024;

/**
 * gzip (RFC 1952) by Node's stream: members one after another, then zeros at most.
 *
 * @throws MalformedDataError
 */
export async function* nodeGunzip(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  // The stream continues with the next member itself, and stops at a zero after one.
  const rest = yield* decodeOne(createGunzip({ chunkSize: OUTPUT }), reader);
  const buffer = new Uint8Array(INPUT);
  for (let count = await rest.read(buffer); count > 0; count = await rest.read(buffer)) {
    if (buffer.subarray(0, count).some((byte) => byte !== 0)) throw new MalformedDataError(TRAILING_BYTES);
  }
}

/**
 * zstd (RFC 8878) by Node's stream, which ends with each frame: each frame has a stream of its own.
 *
 * @throws MalformedDataError
 */
export async function* nodeUnzstd(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const params = { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX };
  const head = new Uint8Array(1);
  for (let rest = reader; (await rest.read(head)) > 0;) {
    rest = yield* decodeOne(createZstdDecompress({ chunkSize: OUTPUT, params }), prepend(head.slice(), rest));
  }
}

/** Decodes until the stream ends, by itself (then it leaves input unused) or with the input; what it left is in front of the reader returned. */
async function* decodeOne(
  stream: Gunzip | ZstdDecompress,
  reader: ByteReader,
): AsyncGenerator<Uint8Array, ByteReader, undefined> {
  const buffer = new Uint8Array(INPUT);
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
  const feeding = feed().catch((error: unknown) => stream.destroy(toError(error)));
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
    await feeding;
    const unused = given - stream.bytesWritten;
    return prepend(buffer.slice(last - unused, last), reader);
  } catch (error) {
    throw explain(error);
  } finally {
    stream.destroy();
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function explain(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return error;
  if (error.code === 'Z_BUF_ERROR') return new MalformedDataError(ENDS_EARLY);
  if (/^ZSTD_error_(?:frameParameter_window|memory)/.test(error.code))
    return new MalformedDataError(WINDOW_TOO_LARGE);
  if (/^(?:Z_|ZSTD_)/.test(error.code)) return new MalformedDataError('is corrupt', { cause: error });
  return error;
}
