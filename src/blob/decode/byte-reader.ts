/**
 * Bytes that are requested one buffer at a time, as by read(2). No more are read than the caller has room
 * for.
 */
export interface ByteReader {
  /**
   * Fills the front of `into` with at least one byte, and returns their number. Returns 0 at the end, at each
   * call. One call at a time.
   */
  read(into: Uint8Array): Promise<number>;
}

/** Returns a reader of pieces that arrive one by one. */
export function readerOf(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): ByteReader {
  const iterator =
    Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
  let rest: Uint8Array = new Uint8Array(0);
  return {
    async read(into) {
      while (rest.length === 0) {
        const next = await iterator.next();
        if (next.done) return 0;
        rest = next.value;
      }
      const count = copy(rest, into);
      rest = rest.subarray(count);
      return count;
    },
  };
}

/** Fills the front of `into`; returns the number of bytes that fit. */
function copy(bytes: Uint8Array, into: Uint8Array): number {
  const part = bytes.subarray(0, into.length);
  into.set(part);
  return part.length;
}

/** Reads until `into` is full or the bytes end. Returns the number of bytes read. */
export async function readFully(reader: ByteReader, into: Uint8Array): Promise<number> {
  let count = 0;
  while (count < into.length) {
    const more = await reader.read(into.subarray(count));
    if (more === 0) break;
    count += more;
  }
  return count;
}

/** Returns a reader of `head`, then of the bytes of `reader`. */
export function prepend(head: Uint8Array, reader: ByteReader): ByteReader {
  let rest = head;
  return {
    async read(into) {
      if (rest.length === 0) return reader.read(into);
      const count = copy(rest, into);
      rest = rest.subarray(count);
      return count;
    },
  };
}

/** Thrown for malformed compressed data. Callers that know the layer turn it into an IntegrityError. */
export class MalformedDataError extends Error {
  override readonly name = 'MalformedDataError';
}

export const ENDS_EARLY = 'ends too early';
export const TRAILING_BYTES = 'is followed by extra bytes';

/**
 * The longest window, 128 MiB, as a power of two in bytes. The zstd program takes no more without `--long`.
 */
export const WINDOW_LOG_MAX = 27;
export const WINDOW_TOO_LARGE = 'needs a window of more than 128 MiB, the limit';
