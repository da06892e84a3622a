import { DestinationError } from '../errors.ts';
import type { ByteSource } from '../tar/entry.ts';
import type { RingWriter } from './ring.ts';

// Format of the ring: for each content its size in eight bytes, then its bytes.

const HEADER_SIZE = 8;
/** Instead of a size: the other side may have to wait for the next content. */
const PAUSE = -1;
const BATCH_SIZE = 256 * 1024;
const zeros = new Uint8Array(BATCH_SIZE);

/**
 * Hands what files and symlinks hold on to another thread, in the order in which they are written: for each file, and for each target
 * of a symlink, one content. It blocks while the other side is behind.
 *
 * @throws DestinationError from each method when the other side has given up
 */
export class ContentWriter {
  readonly #ring: RingWriter;
  /** Small contents go many at a time, so that the other side is not woken for each. */
  readonly #batch = Buffer.allocUnsafeSlow(BATCH_SIZE);
  #length = 0;

  constructor(ring: RingWriter) {
    this.#ring = ring;
  }

  /** The next content, of which `size` bytes are to be added. */
  begin(size: number): void {
    if (this.#length + HEADER_SIZE > BATCH_SIZE) this.#send();
    this.#length = this.#batch.writeDoubleLE(size, this.#length);
  }

  add(bytes: Uint8Array): void {
    if (this.#length + bytes.length > BATCH_SIZE) this.#send();
    if (bytes.length > BATCH_SIZE / 4) {
      this.#send();
      this.#put(bytes);
      return;
    }
    this.#batch.set(bytes, this.#length);
    this.#length += bytes.length;
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

  /** Has the other side answer for all contents so far. */
  settle(): void {
    this.begin(PAUSE);
    this.#send();
  }

  /** There are no more. */
  end(): void {
    this.#send();
    this.#ring.end();
  }

  /** What is not yet read need not be. */
  abort(): void {
    this.#ring.abort();
  }

  #send(): void {
    if (this.#length === 0) return;
    const bytes = this.#batch.subarray(0, this.#length);
    this.#length = 0;
    this.#put(bytes);
  }

  #put(bytes: Uint8Array): void {
    if (this.#ring.writeBlocking(bytes)) return;
    throw new DestinationError('what files hold was not taken', { code: 'CONTENTS_REFUSED' });
  }
}

/** The other side of a ContentWriter. */
export class ContentReader {
  readonly #source: ByteSource;
  readonly #header = Buffer.alloc(HEADER_SIZE);

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /**
   * Size of the next content; `settle` where an answer is awaited; undefined after the last one.
   *
   * @throws what the source throws
   */
  next(): number | 'settle' | undefined {
    if (!this.fill(this.#header, 0, HEADER_SIZE)) return undefined;
    const size = this.#header.readDoubleLE();
    return size === PAUSE ? 'settle' : size;
  }

  /** Puts the next `length` bytes of the content into `into`; false where the writer has ended. */
  fill(into: Uint8Array, at: number, length: number): boolean {
    for (let done = 0; done < length;) {
      const bytes = this.#source.read(length - done);
      if (bytes === undefined) return false;
      into.set(bytes, at + done);
      done += bytes.length;
    }
    return true;
  }
}
