import { type ByteSource, MalformedTarError } from './entry.ts';
import { TAR_BLOCK_BYTES, paddingOf } from './header.ts';

const READ_BYTES = 1 << 20;
export const emptyBuffer = Buffer.alloc(0);

/**
 * Splits an archive's bytes into header blocks and runs of data. Blocks stay in the source's chunks. A block
 * is copied only if it crosses two chunks, or is not aligned to four bytes.
 */
export class BlockStream {
  /** The block from the last `nextBlock`, at `at`. Valid until the next call of any method. */
  block: Buffer;
  at = 0;
  /** The same block as words. */
  words: Int32Array;
  wordsAt = 0;
  /** Number of bytes of the run of data that were not taken. */
  remaining = 0;
  /** Number of bytes between the run of data and the next block that were not skipped. */
  padding = 0;

  readonly #source: ByteSource;
  readonly #scratch = Buffer.from(new ArrayBuffer(TAR_BLOCK_BYTES));
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  #chunk: Buffer = emptyBuffer;
  #chunkWords: Int32Array = this.#scratchWords;
  /** Difference between the index of a byte in the chunk and in `#chunkWords`. */
  #chunkShift = 0;
  #position = 0;
  #bytesBefore = 0;

  constructor(source: ByteSource) {
    this.#source = source;
    this.block = this.#scratch;
    this.words = this.#scratchWords;
  }

  /** Number of bytes taken so far. */
  get offset(): number {
    return this.#bytesBefore + this.#position;
  }

  /** Number of bytes available without another read of the source. */
  get buffered(): number {
    return this.#chunk.length - this.#position;
  }

  /**
   * Takes one block.
   *
   * @returns false if the archive ends before it
   * @throws MalformedTarError if the archive ends within it
   */
  nextBlock(): boolean {
    const start = this.#position;
    if (start + TAR_BLOCK_BYTES > this.#chunk.length) return this.#collectBlock();
    this.#position = start + TAR_BLOCK_BYTES;
    const wordByte = start + this.#chunkShift;
    if ((wordByte & 3) === 0) {
      this.block = this.#chunk;
      this.at = start;
      this.words = this.#chunkWords;
      this.wordsAt = wordByte >> 2;
    } else {
      this.#chunk.copy(this.#scratch, 0, start, start + TAR_BLOCK_BYTES);
      this.#useScratch();
    }
    return true;
  }

  /** Starts a run of data of this length, padded to whole blocks. */
  startData(size: number): void {
    this.remaining = size;
    this.padding = paddingOf(size);
  }

  /**
   * Returns the next bytes of the run, valid until the next call.
   *
   * @throws MalformedTarError if the archive ends
   */
  takeData(): Uint8Array {
    const bytes = this.#take(this.remaining);
    if (bytes === undefined) throw new MalformedTarError('the archive ends within its data');
    this.remaining -= bytes.length;
    return bytes;
  }

  /**
   * Skips the rest of the run, and its padding.
   *
   * @throws MalformedTarError if the archive ends before
   */
  skipData(): void {
    if (this.remaining === 0 && this.padding === 0) return;
    if (!this.#skip(this.remaining)) throw new MalformedTarError('the archive ends within its data');
    this.remaining = 0;
    if (!this.#skip(this.padding))
      throw new MalformedTarError('the archive ends within the padding after it');
    this.padding = 0;
  }

  /** Returns at most `max` bytes; undefined at the end of the archive. */
  #take(max: number): Uint8Array | undefined {
    if (this.#position === this.#chunk.length && !this.#refill()) return undefined;
    const start = this.#position;
    const end = Math.min(start + max, this.#chunk.length);
    this.#position = end;
    return this.#chunk.subarray(start, end);
  }

  /** Skips `count` bytes; false if the archive ends before. */
  #skip(count: number): boolean {
    let rest = count;
    for (;;) {
      const here = this.#chunk.length - this.#position;
      if (rest <= here) {
        this.#position += rest;
        return true;
      }
      rest -= here;
      if (!this.#refill()) return false;
    }
  }

  #collectBlock(): boolean {
    let filled = 0;
    while (filled < TAR_BLOCK_BYTES) {
      const bytes = this.#take(TAR_BLOCK_BYTES - filled);
      if (bytes === undefined) {
        if (filled === 0) return false;
        throw new MalformedTarError('the archive ends within a header block');
      }
      this.#scratch.set(bytes, filled);
      filled += bytes.length;
    }
    this.#useScratch();
    return true;
  }

  #useScratch(): void {
    this.block = this.#scratch;
    this.at = 0;
    this.words = this.#scratchWords;
    this.wordsAt = 0;
  }

  /** Copies the rest of the source's last chunk, so that the source may reuse its memory. */
  detach(): void {
    const rest = Buffer.from(this.#chunk.subarray(this.#position));
    this.#bytesBefore += this.#position;
    this.#useChunk(rest);
  }

  #refill(): boolean {
    this.#bytesBefore += this.#chunk.length;
    const bytes = this.#source.read(READ_BYTES);
    this.#useChunk(bytes ?? emptyBuffer);
    return bytes !== undefined;
  }

  #useChunk({ buffer, byteOffset, byteLength }: Uint8Array): void {
    this.#position = 0;
    this.#chunk = Buffer.from(buffer, byteOffset, byteLength);
    const aligned = (byteOffset + 3) & ~3;
    this.#chunkShift = byteOffset - aligned;
    const words = Math.max(0, byteOffset + byteLength - aligned) >> 2;
    this.#chunkWords = new Int32Array(buffer, Math.min(aligned, buffer.byteLength & ~3), words);
  }
}
