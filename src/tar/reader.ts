import { BlockStream } from './block-stream.ts';
import type { ByteSource, Entry, EntryReader } from './entry.ts';
import { HeaderSequence } from './header-sequence.ts';

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
    if (this.#stream.remaining === 0) return undefined;
    try {
      return this.#stream.takeData();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #advance(): Entry | undefined {
    const stream = this.#stream;
    const sequence = this.#sequence;
    stream.skipData();
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
          stream.startData(sequence.size);
          return sequence.entry;
        case 'body':
          sequence.acceptBody(this.#readBody(sequence.size));
          break;
        case 'skip':
          stream.startData(sequence.size);
          stream.skipData();
          break;
        case 'end':
          this.#ended = true;
          return undefined;
        default: // block
      }
    }
  }

  /** The body of a meta header, valid until the next one: memory of its own for each would be garbage of a MiB. */
  #readBody(size: number): Buffer {
    const stream = this.#stream;
    stream.startData(size);
    if (this.#body.length < size) this.#body = Buffer.allocUnsafeSlow(size);
    const body = this.#body.subarray(0, size);
    while (stream.remaining > 0) {
      const from = size - stream.remaining;
      body.set(stream.takeData(), from);
    }
    stream.skipData();
    return body;
  }

  #fail(error: unknown): unknown {
    this.#failure = this.#sequence.located(error, this.#layer, this.#headerOffset);
    return this.#failure;
  }
}
