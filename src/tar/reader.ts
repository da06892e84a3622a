import { BlockStream } from './block-stream.ts';
import { type ByteSource, type Entry, type EntryReader, MalformedTarError } from './entry.ts';
import { HeaderSequence } from './header-sequence.ts';
import { BLOCK_SIZE } from './header.ts';

/**
 * Reads one archive: v7, ustar, GNU, star and pax, by the rules of `HeaderSequence`. It may end without its end mark at a block
 * border, nowhere else; what follows an end mark is left in the source.
 *
 * All errors are MalformedTarError, with the layer and the entry in the message, but for those that the source throws; after one,
 * every call throws it again.
 */
export class TarReader implements EntryReader {
  readonly #stream: BlockStream;
  readonly #layer: string;
  readonly #sequence = new HeaderSequence();
  /** Bytes of the current entry's data, and of the padding after it, that were not taken. */
  #remaining = 0;
  #padding = 0;
  /** Grows with the largest meta header. */
  #body: Buffer = Buffer.alloc(0);
  #headerOffset = 0;
  #ended = false;
  #failure: unknown;

  /** @param layer what messages call the archive: `layer 0123456789ab`. */
  constructor(source: ByteSource, layer: string) {
    this.#stream = new BlockStream(source);
    this.#layer = layer;
  }

  next(): Entry | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended) return undefined;
    try {
      return this.#advance();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  data(): Uint8Array | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#remaining === 0) return undefined;
    try {
      return this.#take();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #advance(): Entry | undefined {
    const stream = this.#stream;
    const sequence = this.#sequence;
    this.#skipRest();
    sequence.leaveEntry();
    for (;;) {
      this.#headerOffset = stream.offset;
      if (!stream.nextBlock()) {
        sequence.finish();
        this.#ended = true;
        return undefined;
      }
      switch (sequence.accept(stream)) {
        case 'entry':
          this.#startData(sequence.size);
          return sequence.entry;
        case 'body':
          sequence.acceptBody(this.#readBody(sequence.size));
          break;
        case 'skip':
          this.#startData(sequence.size);
          this.#skipRest();
          break;
        case 'end':
          this.#ended = true;
          return undefined;
        default: // block
      }
    }
  }

  #startData(size: number): void {
    this.#remaining = size;
    this.#padding = -size & (BLOCK_SIZE - 1);
  }

  #take(): Uint8Array {
    const bytes = this.#stream.take(this.#remaining);
    if (bytes === undefined) throw new MalformedTarError('the archive ends within its data');
    this.#remaining -= bytes.length;
    return bytes;
  }

  #skipRest(): void {
    if (this.#remaining === 0 && this.#padding === 0) return;
    if (!this.#stream.skip(this.#remaining)) throw new MalformedTarError('the archive ends within its data');
    this.#remaining = 0;
    if (!this.#stream.skip(this.#padding))
      throw new MalformedTarError('the archive ends within the padding after it');
    this.#padding = 0;
  }

  /** The body of a meta header, valid until the next one: memory of its own for each would be garbage of a MiB. */
  #readBody(size: number): Buffer {
    this.#startData(size);
    if (this.#body.length < size) this.#body = Buffer.allocUnsafeSlow(size);
    const body = this.#body.subarray(0, size);
    while (this.#remaining > 0) {
      const from = size - this.#remaining;
      body.set(this.#take(), from);
    }
    this.#skipRest();
    return body;
  }

  #fail(error: unknown): unknown {
    this.#failure = this.#sequence.located(error, this.#layer, this.#headerOffset);
    return this.#failure;
  }
}
