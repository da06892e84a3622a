import { DestinationError } from '../errors.ts';
import { type RingReader, RingWriter } from '../sys/ring.ts';

// Format of the stream: for each content its number in four bytes, its size in eight, then its bytes.

const HEADER_BYTES = 4 + 8;
/** In place of a size: send all ids so far. */
const FLUSH = -1;
/** The reader is woken after so many bytes, not for each small content. */
const BATCH_BYTES = 256 * 1024;
const zeros = new Uint8Array(BATCH_BYTES);

/**
 * Hands the contents of files and the targets of symlinks to another thread. They are numbered from 0 in the
 * order in which they are written. It blocks while the ring is full.
 *
 * @throws DestinationError from each method that writes, after the reader has failed
 */
export class ContentWriter {
  readonly #ring: RingWriter;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  /** Number of contents so far, with the one that was begun last. */
  count = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#ring = new RingWriter(memory, undefined, BATCH_BYTES);
  }

  /** Begins the next content, to which `size` bytes are then added. */
  begin(size: number): void {
    this.#announce(size);
    this.count += 1;
  }

  #announce(size: number): void {
    this.#header.writeUInt32LE(this.count);
    this.#header.writeDoubleLE(size, 4);
    this.add(this.#header);
  }

  add(bytes: Uint8Array): void {
    if (this.#ring.writeBlocking(bytes)) return;
    throw new DestinationError('the contents of files were not accepted', { code: 'CONTENTS_REFUSED' });
  }

  /** Adds a hole: `size` zeros. */
  addHole(size: number): void {
    for (let rest = size; rest > 0; rest -= zeros.length) {
      this.add(rest < zeros.length ? zeros.subarray(0, rest) : zeros);
    }
  }

  /** Writes a whole content. */
  write(bytes: Uint8Array): void {
    this.begin(bytes.length);
    this.add(bytes);
  }

  /** Asks the reader's thread to send the ids of all contents so far. */
  flush(): void {
    this.#announce(FLUSH);
    this.#ring.flush();
  }

  /** Ends the stream: no content follows. */
  end(): void {
    this.#ring.end();
  }

  /** Aborts the stream: the reader throws RingAborted at once. */
  abort(): void {
    this.#ring.abort();
  }
}

/** Reads the contents that a ContentWriter writes. */
export class ContentReader {
  readonly #source: Pick<RingReader, 'readInto'>;
  readonly #header = Buffer.alloc(HEADER_BYTES);

  constructor(source: Pick<RingReader, 'readInto'>) {
    this.#source = source;
  }

  /** Number of the content that `next` has found. */
  get number(): number {
    return this.#header.readUInt32LE();
  }

  /**
   * Returns the size of the next content. Returns `flush` if all ids so far are to be sent, undefined after
   * the last content.
   *
   * @throws what the source throws
   */
  next(): number | 'flush' | undefined {
    if (!this.fill(this.#header, 0, HEADER_BYTES)) return undefined;
    const size = this.#header.readDoubleLE(4);
    return size === FLUSH ? 'flush' : size;
  }

  /**
   * Puts the next `length` bytes of the content into `into`, from `at` on. Returns false if the writer has
   * ended.
   */
  fill(into: Uint8Array, at: number, length: number): boolean {
    for (let done = 0; done < length;) {
      const isWhole = at + done === 0 && length === into.length;
      const count = this.#source.readInto(isWhole ? into : into.subarray(at + done, at + length));
      if (count === 0) return false;
      done += count;
    }
    return true;
  }
}
