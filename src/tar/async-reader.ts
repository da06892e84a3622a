import { BlockStream } from './block-stream.ts';
import { type ByteSource, type Entry, MalformedTarError } from './entry.ts';
import { HeaderSequence } from './header-sequence.ts';
import { BLOCK_SIZE } from './header.ts';

/**
 * `TarReader` over an asynchronous source: the same rules and errors, without blocking the thread.
 * A chunk has to be valid only until the next is requested. Bytes after the end mark stay in the iterator.
 */
export class AsyncTarReader {
  readonly #chunks: ChunkQueue;
  readonly #stream: BlockStream;
  readonly #layer: string;
  readonly #sequence = new HeaderSequence();
  #remaining = 0;
  #padding = 0;
  #headerOffset = 0;
  #ended = false;

  /** @param layer what messages call the archive: `layer 0123456789ab`. */
  constructor(chunks: AsyncIterator<Uint8Array>, layer: string) {
    this.#chunks = new ChunkQueue(chunks);
    this.#stream = new BlockStream(this.#chunks);
    this.#layer = layer;
  }

  /** The next entry, or undefined after the last one; skips what was not read of the one before. */
  async next(): Promise<Entry | undefined> {
    if (this.#ended) return undefined;
    try {
      return await this.#advance();
    } catch (error) {
      throw this.#sequence.located(error, this.#layer, this.#headerOffset);
    }
  }

  /** More of the current file's stored data, undefined at its end. The view is valid until the next call. */
  async data(): Promise<Uint8Array | undefined> {
    if (this.#remaining === 0) return undefined;
    try {
      return await this.#take();
    } catch (error) {
      throw this.#sequence.located(error, this.#layer, this.#headerOffset);
    }
  }

  async #advance(): Promise<Entry | undefined> {
    const sequence = this.#sequence;
    await this.#skipRest();
    sequence.leaveEntry();
    for (;;) {
      this.#headerOffset = this.#stream.offset;
      if (this.#buffered < BLOCK_SIZE) await this.#fill(BLOCK_SIZE);
      if (!this.#stream.nextBlock()) {
        sequence.finish();
        this.#ended = true;
        return undefined;
      }
      switch (sequence.accept(this.#stream)) {
        case 'entry':
          this.#startData(sequence.size);
          return sequence.entry;
        case 'body':
          sequence.acceptBody(await this.#readBody(sequence.size));
          break;
        case 'skip':
          this.#startData(sequence.size);
          await this.#skipRest();
          break;
        case 'end':
          this.#ended = true;
          return undefined;
        default: // block
      }
    }
  }

  get #buffered(): number {
    return this.#stream.buffered + this.#chunks.length;
  }

  /** Waits until `size` bytes (not more than a block) are here, or no more come. */
  async #fill(size: number): Promise<void> {
    this.#stream.detach();
    while (this.#buffered < size && (await this.#chunks.pull()));
  }

  #startData(size: number): void {
    this.#remaining = size;
    this.#padding = -size & (BLOCK_SIZE - 1);
  }

  async #take(): Promise<Uint8Array> {
    if (this.#buffered === 0) await this.#fill(1);
    const bytes = this.#stream.take(this.#remaining);
    if (bytes === undefined) throw new MalformedTarError('the archive ends within its data');
    this.#remaining -= bytes.length;
    return bytes;
  }

  async #skipRest(): Promise<void> {
    while (this.#remaining > 0) await this.#take();
    if (this.#padding === 0) return;
    if (this.#buffered < this.#padding) await this.#fill(this.#padding);
    if (!this.#stream.skip(this.#padding))
      throw new MalformedTarError('the archive ends within the padding after it');
    this.#padding = 0;
  }

  async #readBody(size: number): Promise<Buffer> {
    this.#startData(size);
    const body = Buffer.allocUnsafe(size);
    while (this.#remaining > 0) {
      const from = size - this.#remaining;
      body.set(await this.#take(), from);
    }
    await this.#skipRest();
    return body;
  }
}

/** Chunks that have arrived and were not read: only the last one may still be the iterator's memory. */
class ChunkQueue implements ByteSource {
  /** Bytes in the queue. */
  length = 0;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunks: Uint8Array[] = [];

  constructor(iterator: AsyncIterator<Uint8Array>) {
    this.#iterator = iterator;
  }

  /** Waits for one more chunk; false at the end. */
  async pull(): Promise<boolean> {
    this.#chunks = this.#chunks.map((chunk) => Uint8Array.from(chunk));
    const { done, value } = await this.#iterator.next();
    if (done === true) return false;
    this.#chunks.push(value);
    this.length += value.length;
    return true;
  }

  read(max: number): Uint8Array | undefined {
    while (this.#chunks[0]?.length === 0) this.#chunks.shift();
    const chunk = this.#chunks[0];
    if (chunk === undefined) return undefined;
    this.#chunks[0] = chunk.subarray(max);
    const bytes = chunk.subarray(0, max);
    this.length -= bytes.length;
    return bytes;
  }
}
