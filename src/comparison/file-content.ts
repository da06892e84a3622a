import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { constants } from 'node:os';
import type { DiskFilesystem } from '../rootfs/filesystem.ts';
import type { OpenFile } from '../rootfs/image-contents.ts';
import { SyscallError } from '../sys/os-error.ts';
import { ExtentCursor } from '../tar/sparse.ts';

const { ENXIO } = constants.errno;

/** Bytes that are read at once. */
const PIECE_BYTES = 256 * 1024;
const BLOCK_BYTES = 16 * 1024;
const ZEROS = Buffer.alloc(PIECE_BYTES);
/** The bytes read last, shared by all files: they are compared before any other code runs. */
const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);

/**
 * The SHA-256 of all blocks that are not zeros, each with its number, as text of bytes. Contents of the same size have the same digest,
 * whether their holes are stored or not. The time depends only on the stored bytes.
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
  const cursor = new ExtentCursor(extents);
  for await (const bytes of pieces) {
    for (const { position, part } of cursor.split(bytes)) {
      for (let done = 0; done < part.length;) {
        const start = (position + done) % BLOCK_BYTES;
        const index = (position + done - start) / BLOCK_BYTES;
        if (index !== current) finishBlock();
        current = index;
        const length = Math.min(part.length - done, BLOCK_BYTES - start);
        block.set(part.subarray(done, done + length), start);
        filled = start + length;
        done += length;
      }
    }
  }
  finishBlock();
  return hash.digest('binary');
}

/** An open regular file, to be compared with its expected content. */
export class DiskFile {
  readonly #filesystem: DiskFilesystem;
  readonly #file: number;

  /** @param file a descriptor, which it closes */
  constructor(filesystem: DiskFilesystem, file: number) {
    this.#filesystem = filesystem;
    this.#file = file;
  }

  /**
   * Whether it has these bytes there.
   *
   * @throws the system's error
   */
  has(bytes: Uint8Array, position: number): boolean {
    for (let done = 0; done < bytes.length;) {
      const count = this.#read(Math.min(bytes.length - done, PIECE_BYTES), position + done);
      if (count === 0 || piece.compare(bytes, done, done + count, 0, count) !== 0) return false;
      done += count;
    }
    return true;
  }

  /** Whether it reads as zeros from `start` to `end`. Its holes take no time. */
  hasZeros(start: number, end: number): boolean {
    for (let at = start; at < end;) {
      const data = this.#filesystem.nextData(this.#file, at);
      if (data === -ENXIO || data >= end) return true;
      if (data < 0) throw new SyscallError(data, 'read');
      const count = this.#read(Math.min(end - data, PIECE_BYTES), data);
      if (count === 0 || piece.compare(ZEROS, 0, count, 0, count) !== 0) return false;
      at = data + count;
    }
    return true;
  }

  close(): void {
    this.#filesystem.closeFile(this.#file);
  }

  /** Returns how many bytes came; none at the end of the file. */
  #read(most: number, position: number): number {
    return readSync(this.#file, piece, 0, most, position);
  }
}

/**
 * Reads the content of a file of an image once, and returns those of `files` with the same content.
 *
 * @param size of all of them
 */
export async function filesWith(
  { extents, pieces }: OpenFile,
  size: number,
  files: readonly DiskFile[],
): Promise<ReadonlySet<DiskFile>> {
  const same = new Set(files);
  const keep = (test: (file: DiskFile) => boolean): void => {
    for (const file of same) if (!test(file)) same.delete(file);
  };
  const cursor = new ExtentCursor(extents);
  let end = 0;
  for await (const bytes of pieces) {
    for (const { position, part } of cursor.split(bytes)) {
      const hole = end;
      keep((file) => file.hasZeros(hole, position) && file.has(part, position));
      end = position + part.length;
    }
  }
  keep((file) => file.hasZeros(end, size));
  return same;
}
