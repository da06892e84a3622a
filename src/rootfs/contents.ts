import { DestinationError } from '../errors.ts';
import { type RingReader, RingWriter } from '../sys/ring.ts';

// Format of the ring: for each content its number in four bytes, its size in eight, then its bytes.

const HEADER_SIZE = 4 + 8;
/** In place of a size: send all ids so far. */
const FLUSH = -1;
/** Many small contents go at a time, in bytes, so that the other side is not woken for each. */
const BATCH_SIZE = 256 * 1024;
const zeros = new Uint8Array(BATCH_SIZE);

/**
 * Hands the contents of files and the targets of symlinks to another thread, numbered from 0 in the order in which they are written. It blocks
 * while the ring is full.
 *
 * @throws DestinationError from each method when the other side has given up
 */
export class ContentWriter {
  readonly #ring: RingWriter;
  readonly #header = Buffer.alloc(HEADER_SIZE);
  /** Contents so far, the one that was begun last among them. */
  count = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#ring = new RingWriter(memory, undefined, BATCH_SIZE);
  }

  /** The next content, of which `size` bytes are to be added. */
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
    throw new DestinationError('what files hold was not taken', { code: 'CONTENTS_REFUSED' });
  }

  /** Adds so many zeros: a hole. */
  addHole(size: number): void {
    for (let rest = size; rest > 0; rest -= zeros.length) {
      this.add(rest < zeros.length ? zeros.subarray(0, rest) : zeros);
    }
  }

  /** A whole content. */
  write(bytes: Uint8Array): void {
    this.begin(bytes.length);
    this.add(bytes);
  }

  /** Has the other side send the ids of all contents so far. */
  flush(): void {
    this.#announce(FLUSH);
    this.#ring.flush();
  }

  /** There are no more. */
  end(): void {
    this.#ring.end();
  }

  /** The other side need not read the rest. */
  abort(): void {
    this.#ring.abort();
  }
}

/** The other side of a ContentWriter. */
export class ContentReader {
  readonly #source: Pick<RingReader, 'readInto'>;
  readonly #header = Buffer.alloc(HEADER_SIZE);

  constructor(source: Pick<RingReader, 'readInto'>) {
    this.#source = source;
  }

  /** The number of the next content, which `next` has found. */
  get number(): number {
    return this.#header.readUInt32LE();
  }

  /**
   * Size of the next content; `flush` where all ids so far are to be sent; undefined after the last one.
   *
   * @throws what the source throws
   */
  next(): number | 'flush' | undefined {
    if (!this.fill(this.#header, 0, HEADER_SIZE)) return undefined;
    const size = this.#header.readDoubleLE(4);
    return size === FLUSH ? 'flush' : size;
  }

  /** Puts the next `length` bytes of the content into `into`; false where the writer has ended. */
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
