import { type ByteReader, readFully } from './byte-reader.ts';
import { ENDS_EARLY, MalformedDataError, TRAILING_BYTES } from './malformed-data.ts';

/** A block has at most 900,001 symbols of at most 20 bits. In bytes. */
const LONGEST_BLOCK = 2_500_000;
const BUFFER = 2 * LONGEST_BLOCK;
const BLOCK_UNIT = 100_000;
/** A piece of output, in bytes. A block of 900,000 may grow to 46 MB (runs of 259 from 5). */
const OUTPUT = 256 * 1024;

/**
 * bzip2: streams one after another, nothing else after them. It is slow, and blocks the thread for 0.1 s per block: for a few
 * old images.
 *
 * @throws MalformedDataError
 */
export async function* bunzip2(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const { default: decoder } = await import('unbzip2-stream/lib/bzip2.js');
  const input = new BitInput(reader);
  let work = new Int32Array(0);
  while (await input.more()) {
    const unit = guard(() => decoder.header(input.bits));
    if (work.length !== unit * BLOCK_UNIT) work = new Int32Array(unit * BLOCK_UNIT);
    for (let checksum: number | null = 0; ;) {
      await input.more();
      const output = new Output();
      const before: number = checksum;
      checksum = guard(() => decoder.decompress(input.bits, output.write, work, work.length, before));
      if (checksum === null) break;
      yield* output.pieces();
    }
  }
}

/** Decoding is synchronous: the input of a whole block must be there before. */
class BitInput {
  readonly #reader: ByteReader;
  #bytes = new Uint8Array(BUFFER);
  #length = 0;
  #position = 0;
  #bit = 0;

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /** Makes sure of the longest block's input, or of all there is; false at the end. */
  async more(): Promise<boolean> {
    if (this.#length - this.#position < LONGEST_BLOCK) {
      this.#bytes.copyWithin(0, this.#position, this.#length);
      this.#length -= this.#position;
      this.#position = 0;
      this.#length += await readFully(this.#reader, this.#bytes.subarray(this.#length));
    }
    return this.#position < this.#length;
  }

  readonly bits = (count: number | null): number => {
    if (count === null) {
      if (this.#bit > 0) this.#position += 1;
      this.#bit = 0;
      return 0;
    }
    let result = 0;
    for (let wanted = count; wanted > 0;) {
      if (this.#position >= this.#length) throw new MalformedDataError(ENDS_EARLY);
      const step = Math.min(wanted, 8 - this.#bit);
      const byte = this.#bytes[this.#position]!;
      result = (result << step) | ((byte >> (8 - this.#bit - step)) & ((1 << step) - 1));
      this.#bit += step;
      if (this.#bit === 8) {
        this.#bit = 0;
        this.#position += 1;
      }
      wanted -= step;
    }
    return result;
  };
}

class Output {
  readonly #full: Uint8Array[] = [];
  #piece = new Uint8Array(OUTPUT);
  #length = 0;

  readonly write = (byte: number): void => {
    if (this.#length === OUTPUT) {
      this.#full.push(this.#piece);
      this.#piece = new Uint8Array(OUTPUT);
      this.#length = 0;
    }
    this.#piece[this.#length] = byte;
    this.#length += 1;
  };

  *pieces(): Generator<Uint8Array> {
    yield* this.#full;
    if (this.#length > 0) yield this.#piece.subarray(0, this.#length);
  }
}

/** Runs a step of the decoder, which throws errors of its own kind. */
function guard<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw explain(error);
  }
}

function explain(error: unknown): unknown {
  if (error instanceof MalformedDataError) return error;
  const noMagic = error instanceof Error && error.message.includes('magic');
  return new MalformedDataError(noMagic ? TRAILING_BYTES : 'is corrupt', { cause: error });
}
