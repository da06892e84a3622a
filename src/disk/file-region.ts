import { write as writeFile } from 'node:fs';
import { promisify } from 'node:util';
import { unwritable } from '../archive/archive-file.ts';

const write = promisify(writeFile);

const BUFFER_BYTES = 512 * 1024;
const MAX_GAP_BYTES = 4096;

/** Writes to a file through two buffers: one is filled while the other is written. */
export class FileRegion {
  /** Rejects if anything could not be written. */
  written: Promise<void> = Promise.resolve();
  readonly #descriptor: number;
  readonly #name: string;
  #filling = Buffer.allocUnsafe(BUFFER_BYTES);
  #spare = Buffer.allocUnsafe(BUFFER_BYTES);
  #start = 0;
  #length = 0;
  /** The largest position up to which bytes were written. */
  #farthest = 0;

  /** @param name the file in messages */
  constructor(descriptor: number, name: string) {
    this.#descriptor = descriptor;
    this.#name = name;
  }

  /**
   * Writes at a position; these should mostly ascend. A small gap where nothing was written yet is filled
   * with zeros, a larger one stays a hole.
   */
  async write(position: number, bytes: Uint8Array): Promise<void> {
    const end = this.#start + this.#length;
    const gap = position - end;
    const isFilled =
      gap > 0 && gap <= MAX_GAP_BYTES && gap < BUFFER_BYTES - this.#length && end >= this.#farthest;
    if (gap !== 0 && !isFilled) {
      await this.flush();
      this.#start = position;
    } else {
      this.#filling.fill(0, this.#length, this.#length + gap);
      this.#length += gap;
    }
    for (let done = 0; done < bytes.length;) {
      const count = Math.min(bytes.length - done, BUFFER_BYTES - this.#length);
      this.#filling.set(bytes.subarray(done, done + count), this.#length);
      this.#length += count;
      done += count;
      if (this.#length === BUFFER_BYTES) await this.flush();
    }
  }

  /** Starts to write the buffered bytes. */
  async flush(): Promise<void> {
    await this.written;
    const bytes = this.#filling.subarray(0, this.#length);
    [this.#filling, this.#spare] = [this.#spare, this.#filling];
    this.written = this.#writeAll(bytes, this.#start);
    this.written.catch(() => undefined);
    this.#start += bytes.length;
    this.#farthest = Math.max(this.#farthest, this.#start);
    this.#length = 0;
  }

  async #writeAll(bytes: Uint8Array, position: number): Promise<void> {
    try {
      for (let done = 0; done < bytes.length;) {
        const left = bytes.length - done;
        done += (await write(this.#descriptor, bytes, done, left, position + done)).bytesWritten;
      }
    } catch (error) {
      throw unwritable(this.#name, error);
    }
  }
}
