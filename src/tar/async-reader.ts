import { BlockStream } from './block-stream.ts';
import type { ByteSource, Entry } from './entry.ts';
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
    if (this.#stream.remaining === 0) return undefined;
    try {
      return await this.#take();
    } catch (error) {
      throw this.#sequence.located(error, this.#layer, this.#headerOffset);
    }
  }

  async #advance(): Promise<Entry | undefined> {
    const stream = this.#stream;
    const sequence = this.#sequence;
    await this.#skipData();
    sequence.leaveEntry();
    for (;;) {
      this.#headerOffset = stream.offset;
      await this.#fill(BLOCK_SIZE);
      if (!stream.nextBlock()) {
        sequence.finish();
        this.#ended = true;
        return undefined;
      }
      switch (sequence.accept(stream)) {
        case 'entry':
          stream.startData(sequence.size);
          return sequence.entry;
        case 'body':
          sequence.acceptBody(await this.#readBody(sequence.size));
          break;
        case 'skip':
          stream.startData(sequence.size);
          await this.#skipData();
          break;
        case 'end':
          this.#ended = true;
          return undefined;
        default: // block
      }
    }
  }

  /** Waits until `size` bytes (not more than a block) are here, or no more come. */
  async #fill(size: number): Promise<void> {
    const stream = this.#stream;
    if (stream.buffered + this.#chunks.length >= size) return;
    stream.detach();
    while (stream.buffered + this.#chunks.length < size && (await this.#chunks.pull()));
  }

  async #take(): Promise<Uint8Array> {
    await this.#fill(1);
    return this.#stream.takeData();
  }

  async #skipData(): Promise<void> {
    while (this.#stream.remaining > 0) await this.#take();
    await this.#fill(this.#stream.padding);
    this.#stream.skipData();
  }

  async #readBody(size: number): Promise<Buffer> {
    const stream = this.#stream;
    stream.startData(size);
    const body = Buffer.allocUnsafe(size);
    while (stream.remaining > 0) {
      const from = size - stream.remaining;
      body.set(await this.#take(), from);
    }
    await this.#skipData();
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
