import { readSync } from 'node:fs';
import { constants } from 'node:os';
import type { DiskFilesystem } from '../rootfs/filesystem.ts';
import type { OpenFile } from '../rootfs/image-contents.ts';
import { SyscallError } from '../sys/os-error.ts';

const { ENXIO } = constants.errno;

/** Bytes that are read at once. */
const PIECE_BYTES = 256 * 1024;
const ZEROS = Buffer.alloc(PIECE_BYTES);
/** What was read last, of any file: it is compared before anything else runs. */
const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);

/** An open regular file, compared with what it should hold. */
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
 * Reads what a file of an image holds, once, and returns which of `files` hold the same.
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
  const stretches = (extents ?? [{ offset: 0, length: size }]).values();
  let at = 0;
  let end = 0;
  for await (const bytes of pieces) {
    for (let rest = bytes; rest.length > 0;) {
      while (at === end) {
        const { offset, length } = stretches.next().value!;
        const hole = end;
        keep((file) => file.hasZeros(hole, offset));
        [at, end] = [offset, offset + length];
      }
      const part = rest.subarray(0, end - at);
      const position = at;
      keep((file) => file.has(part, position));
      rest = rest.subarray(part.length);
      at += part.length;
    }
  }
  keep((file) => file.hasZeros(at, size));
  return same;
}
