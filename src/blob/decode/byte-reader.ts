/** Bytes, pulled: as read(2) does it, so that the reader's own buffer is filled and nothing piles up between. */
export interface ByteReader {
  /** Fills the front of `into`, at least one byte; 0 at the end. One call at a time. */
  read(into: Uint8Array): Promise<number>;
}

/** A reader over pieces that come one by one. */
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
      const count = Math.min(rest.length, into.length);
      into.set(rest.subarray(0, count));
      rest = rest.subarray(count);
      return count;
    },
  };
}

/** Reads until `into` is full or the bytes end; how many there were. */
export async function readFully(reader: ByteReader, into: Uint8Array): Promise<number> {
  let count = 0;
  while (count < into.length) {
    const more = await reader.read(into.subarray(count));
    if (more === 0) break;
    count += more;
  }
  return count;
}

/** `head`, then what `reader` has: bytes that were looked at are put back in front. */
export function prepend(head: Uint8Array, reader: ByteReader): ByteReader {
  let rest = head;
  return {
    async read(into) {
      if (rest.length === 0) return reader.read(into);
      const count = Math.min(rest.length, into.length);
      into.set(rest.subarray(0, count));
      rest = rest.subarray(count);
      return count;
    },
  };
}
