import { createHash } from 'node:crypto';
import type { OpenFile } from '../rootfs/image-contents.ts';

const BLOCK_BYTES = 16 * 1024;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/**
 * The same text (of bytes) for the same content of the same size, whether holes in it are stored or not, and in a time that depends on what is stored:
 * the SHA-256 of all blocks that are not zeros, each with its number.
 */
export async function contentDigest({ extents, pieces }: OpenFile): Promise<string> {
  const hash = createHash('sha256');
  const block = Buffer.alloc(BLOCK_BYTES);
  const number = Buffer.alloc(8);
  let current = 0;
  let filled = 0;
  const finishBlock = (): void => {
    if (block.compare(ZEROS, 0, filled, 0, filled) !== 0) {
      number.writeDoubleLE(current);
      hash.update(number).update(block);
    }
    block.fill(0, 0, filled);
    filled = 0;
  };
  const stretches = (extents ?? [{ offset: 0, length: Infinity }]).values();
  let at = 0;
  let end = 0;
  for await (const piece of pieces) {
    for (let rest = piece; rest.length > 0;) {
      while (at === end) {
        const { offset, length } = stretches.next().value!;
        [at, end] = [offset, offset + length];
      }
      const position = at % BLOCK_BYTES;
      const index = (at - position) / BLOCK_BYTES;
      if (index !== current) finishBlock();
      current = index;
      const part = rest.subarray(0, Math.min(end - at, BLOCK_BYTES - position));
      block.set(part, position);
      filled = position + part.length;
      rest = rest.subarray(part.length);
      at += part.length;
    }
  }
  finishBlock();
  return hash.digest('binary');
}
