import type { SparseExtent } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES, paddingOf } from '../tar/header.ts';
import { ExtentCursor } from '../tar/sparse.ts';

const ZEROS = Buffer.alloc(64 * 1024);

/**
 * Aligns extents as GNU tar requires: each begins at a block border and ends at one or at the end of the
 * file. Zeros fill the rest.
 */
export function alignExtents(extents: readonly SparseExtent[], size: number): SparseExtent[] {
  const aligned: SparseExtent[] = [];
  for (const { offset, length } of extents) {
    const start = offset - (offset % TAR_BLOCK_BYTES);
    const end = Math.min(size, Math.ceil((offset + length) / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES);
    const last = aligned.at(-1);
    if (last !== undefined && start <= last.offset + last.length) {
      aligned[aligned.length - 1] = { offset: last.offset, length: end - last.offset };
    } else aligned.push({ offset: start, length: end - start });
  }
  return aligned;
}

/**
 * Returns the sparse map of GNU's format 1.0: the count and the numbers as lines, padded with NULs to a block
 * border. A hole at the end gets an empty extent.
 */
export function sparseMapBlocks(extents: readonly SparseExtent[], size: number): Buffer {
  const last = extents.at(-1);
  const closed =
    last !== undefined && last.offset + last.length === size
      ? extents
      : [...extents, { offset: size, length: 0 }];
  const text = `${closed.length}\n${closed.map(({ offset, length }) => `${offset}\n${length}\n`).join('')}`;
  const blocks = Buffer.alloc(text.length + paddingOf(text.length));
  blocks.write(text, 'latin1');
  return blocks;
}

/** Yields the data of `extents`, with the zeros that `aligned` has before, between and after them. */
export async function* fillGaps(
  data: AsyncIterable<Uint8Array>,
  extents: readonly SparseExtent[],
  aligned: readonly SparseExtent[],
): AsyncGenerator<Uint8Array, void, void> {
  const cursor = new ExtentCursor(extents);
  /**
   * The position in the file after the last yielded bytes, and below the index of its extent in `aligned`.
   */
  let end = 0;
  let index = 0;
  function* zerosUntil(position: number): Generator<Uint8Array, void, void> {
    for (; index < aligned.length; index += 1) {
      const { offset, length } = aligned[index]!;
      const stop = Math.min(position, offset + length);
      yield* zerosOf(stop - Math.max(end, offset));
      end = Math.max(end, stop);
      if (stop < offset + length) return;
    }
  }
  for await (const bytes of data) {
    for (const { position, part } of cursor.split(bytes)) {
      yield* zerosUntil(position);
      yield part;
      end = position + part.length;
    }
  }
  yield* zerosUntil(Infinity);
}

function* zerosOf(count: number): Generator<Uint8Array, void, void> {
  for (let left = count; left > 0; left -= ZEROS.length)
    yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}
