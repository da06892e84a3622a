import { readSync, writeSync } from 'node:fs';
import { printable } from '../errors.ts';
import { explainOsError } from '../sys/os-error.ts';

const READ_BYTES = 256 * 1024;

/**
 * A temporary file that grows at its end, for contents and tars of a tree in memory. (Blobs that are not kept
 * have files of `Store.spool` too, but are written by a BlobBuffer.) Its calls block; they throw the system's
 * errors.
 */
export class Spool {
  readonly #file: number;
  readonly #directory: string;
  #size = 0;

  /**
   * @param file a descriptor of an empty file, open for reading and writing; the caller closes it
   * @param directory of the file, for errors
   */
  constructor(file: number, directory: string) {
    this.#file = file;
    this.#directory = directory;
  }

  get size(): number {
    return this.#size;
  }

  append(bytes: Uint8Array): void {
    this.write(this.reserve(bytes.length), bytes);
  }

  /** Reserves `length` bytes and returns their position. */
  reserve(length: number): number {
    this.#size += length;
    return this.#size - length;
  }

  /** @throws DestinationError that names the directory */
  write(position: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length;)
        done += writeSync(this.#file, bytes, done, bytes.length - done, position + done);
    } catch (error) {
      const action = `keep contents of files in ${printable(this.#directory)}`;
      throw explainOsError(error, action, 'choose another place with -d or -o');
    }
  }

  /** Fills `into` with the bytes at `position`. */
  read(position: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const count = readSync(this.#file, into, done, into.length - done, position + done);
      if (count === 0) throw new Error('the temporary file is shorter than what was written to it');
      done += count;
    }
  }

  /** Yields the `size` bytes from `position` on. Each piece is valid until the next is asked for. */
  async *pieces(position: number, size: number): AsyncGenerator<Uint8Array, void, void> {
    const buffer = Buffer.allocUnsafe(Math.min(size, READ_BYTES));
    for (let done = 0; done < size;) {
      const piece = buffer.subarray(0, Math.min(buffer.length, size - done));
      this.read(position + done, piece);
      done += piece.length;
      yield piece;
    }
  }
}
