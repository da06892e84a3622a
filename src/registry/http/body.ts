import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, zstdDecompress } from 'node:zlib';
import { NetworkError, printable } from '../../errors.ts';
import { hasCode } from '../../sys/os-error.ts';
import type { Response } from './exchange.ts';
import { MAX_ERROR_BYTES } from './answer-error.ts';
import { TransientError } from './transport-error.ts';

/** Milliseconds to drain a body: a new connection takes less. */
const DRAIN_TIMEOUT = 1000;
/** For a body of unknown length. */
const FIRST_BUFFER_BYTES = 16_384;

const DECODERS = new Map([
  ['gzip', promisify<Uint8Array, object, Uint8Array>(gunzip)],
  ['x-gzip', promisify<Uint8Array, object, Uint8Array>(gunzip)],
  ['deflate', promisify<Uint8Array, object, Uint8Array>(inflate)],
  ['br', promisify<Uint8Array, object, Uint8Array>(brotliDecompress)],
  ['zstd', promisify<Uint8Array, object, Uint8Array>(zstdDecompress)],
]);

function tooLarge(response: Response, limit: number): NetworkError {
  return new NetworkError(`${response.url.host} sent more than the limit of ${limit} bytes`, {
    code: 'BODY_TOO_LARGE',
    hint: 'check whether this is a container registry; -v shows the requests',
  });
}

/** Undoes a `Content-Encoding`, which some servers apply despite `Accept-Encoding: identity`; the limit holds for the result too. */
async function decode(bytes: Uint8Array, response: Response, limit: number): Promise<Uint8Array> {
  const encoding = (response.header('content-encoding') ?? '').trim().toLowerCase();
  // Storage servers may name an encoding that the file no longer has: JSON text is not encoded.
  const plain = bytes.length === 0 || bytes[0] === '{'.charCodeAt(0);
  if (encoding === '' || encoding === 'identity' || plain) return bytes;
  const decoder = DECODERS.get(encoding);
  const { host } = response.url;
  if (!decoder)
    throw new NetworkError(
      `cannot decode the answer of ${host}: unknown encoding ${printable(encoding, 40)}`,
    );
  try {
    return await decoder(bytes, { maxOutputLength: limit });
  } catch (error) {
    if (hasCode(error, 'ERR_BUFFER_TOO_LARGE')) throw tooLarge(response, limit);
    throw new NetworkError(`cannot decode the answer of ${host}: corrupt ${encoding} data`, { cause: error });
  }
}

/** What an answer says of the length of its body, in bytes; undefined where it says nothing. */
export function contentLength(response: Response): number | undefined {
  const text = response.header('content-length') ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * The whole of a small body, decoded.
 *
 * @param timeout milliseconds for the whole of it
 * @throws NetworkError when it is longer than `limit` bytes, TransientError when it breaks off, stalls, or takes too long
 */
export async function readDocument(
  response: Response,
  limit: number,
  timeout = response.documentTimeout,
): Promise<Uint8Array> {
  const length = contentLength(response) ?? 0;
  if (length > limit) {
    response.discard();
    throw tooLarge(response, limit);
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    response.discard();
  }, timeout);
  // Copied together: a server may send each byte as a chunk of its own, which costs a hundred.
  let bytes = Buffer.allocUnsafe(Math.min(limit, length || FIRST_BUFFER_BYTES));
  let size = 0;
  try {
    for await (const chunk of response.body) {
      const needed = size + chunk.length;
      if (needed > limit) throw tooLarge(response, limit);
      if (needed > bytes.length) {
        const larger = Buffer.allocUnsafe(Math.min(limit, Math.max(needed, 2 * bytes.length)));
        bytes.copy(larger, 0, 0, size);
        bytes = larger;
      }
      bytes.set(chunk, size);
      size = needed;
    }
  } catch (error) {
    response.signal.throwIfAborted();
    if (!late) throw error;
    const seconds = Math.round(timeout / 1000);
    throw new TransientError(`${response.url.host} did not send its whole answer within ${seconds} s`, {
      code: 'STALLED',
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
  return decode(bytes.subarray(0, size), response, limit);
}

/** The body of an answer that is a failure; empty where it cannot be read whole, since the status says enough. */
export async function readFailure(response: Response): Promise<Uint8Array> {
  return readDocument(response, MAX_ERROR_BYTES).catch(() => {
    response.signal.throwIfAborted();
    return new Uint8Array(0);
  });
}

/** Reads what is left of a small body, so that its connection can be used again. */
export async function drain(response: Response): Promise<void> {
  await readDocument(response, MAX_ERROR_BYTES, DRAIN_TIMEOUT).catch(() => undefined);
}
