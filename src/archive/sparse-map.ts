import type { SparseExtent } from '../tar/entry.ts';
import { BLOCK_SIZE } from '../tar/header.ts';

const ZEROS = Buffer.alloc(64 * 1024);

/**
 * Extents as GNU tar can read them: each begins at a block border and ends at one or at the end of the file. What is put between is
 * zeros.
 */
export function alignExtents(extents: readonly SparseExtent[], size: number): SparseExtent[] {
  const aligned: SparseExtent[] = [];
  for (const { offset, length } of extents) {
    const start = offset - (offset % BLOCK_SIZE);
    const end = Math.min(size, Math.ceil((offset + length) / BLOCK_SIZE) * BLOCK_SIZE);
    const last = aligned.at(-1);
    if (last !== undefined && start <= last.offset + last.length) {
      aligned[aligned.length - 1] = { offset: last.offset, length: end - last.offset };
    } else aligned.push({ offset: start, length: end - start });
  }
  return aligned;
}

/** GNU's format 1.0: the count and the numbers as lines, filled up with NULs to a block border. A hole at the end gets an empty extent. */
export function sparseMapBlocks(extents: readonly SparseExtent[], size: number): Buffer {
  const last = extents.at(-1);
  const closed =
    last !== undefined && last.offset + last.length === size
      ? extents
      : [...extents, { offset: size, length: 0 }];
  const text = `${closed.length}\n${closed.map(({ offset, length }) => `${offset}\n${length}\n`).join('')}`;
  const blocks = Buffer.alloc(Math.ceil(text.length / BLOCK_SIZE) * BLOCK_SIZE);
  blocks.write(text, 'latin1');
  return blocks;
}

/** The data of `extents` with the zeros that `aligned` has before, between and after them. */
export async function* fillGaps(
  data: AsyncIterable<Uint8Array>,
  extents: readonly SparseExtent[],
  aligned: readonly SparseExtent[],
): AsyncGenerator<Uint8Array, void, void> {
  const gaps = gapsBetween(extents, aligned);
  let index = 0;
  let left = 0;
  for await (const piece of data) {
    for (let at = 0; at < piece.length;) {
      while (left === 0) {
        yield* zerosOf(gaps[index]!);
        left = extents[index]!.length;
        index += 1;
      }
      const end = Math.min(piece.length, at + left);
      yield piece.subarray(at, end);
      left -= end - at;
      at = end;
    }
  }
  for (; index < gaps.length; index += 1) yield* zerosOf(gaps[index]!);
}

/** Zeros before each extent, and after the last one: each time what `aligned` covers beyond the extents themselves. */
function gapsBetween(extents: readonly SparseExtent[], aligned: readonly SparseExtent[]): number[] {
  const gaps: number[] = [];
  let at = 0;
  let block = 0;
  for (const { offset, length } of extents) {
    let gap = 0;
    while (block < aligned.length && endOf(aligned[block]!) <= offset) {
      gap += endOf(aligned[block]!) - Math.max(at, aligned[block]!.offset);
      block += 1;
    }
    gap += offset - Math.max(at, aligned[block]!.offset);
    gaps.push(gap);
    at = offset + length;
  }
  let rest = 0;
  for (; block < aligned.length; block += 1)
    rest += endOf(aligned[block]!) - Math.max(at, aligned[block]!.offset);
  gaps.push(rest);
  return gaps;
}

function endOf({ offset, length }: SparseExtent): number {
  return offset + length;
}

function* zerosOf(count: number): Generator<Uint8Array, void, void> {
  for (let left = count; left > 0; left -= ZEROS.length)
    yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}
