import { type ByteReader, ENDS_EARLY, MalformedDataError, readFully, TRAILING_BYTES } from './byte-reader.ts';

/** Most bytes of a block: it has at most 900,001 symbols of at most 20 bits. */
const MAX_BLOCK_BYTES = 2_500_000;
const BLOCK_UNIT = 100_000;
/** Size of a piece of output, in bytes. A block of 900,000 bytes may grow to 46 MB (runs of 259 from 5). */
const BZIP2_PIECE = 256 * 1024;

/**
 * Decodes bzip2: streams one after another, and nothing else after them. It is slow, and blocks the thread
 * for 0.1 s per block. Only a few old images need it.
 *
 * @throws MalformedDataError
 * @throws what the reader throws
 */
export async function* bunzip2(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const { default: decoder } = await import('unbzip2-stream/lib/bzip2.js');
  const input = new BitInput(reader);
  const output = new Output();
  let work = new Int32Array(0);
  while (await input.more()) {
    const blockSize = guard(() => decoder.header(input.bits)) * BLOCK_UNIT;
    if (work.length < blockSize) work = new Int32Array(blockSize);
    for (let checksum: number | null = 0; ;) {
      await input.more();
      const before: number = checksum;
      checksum = guard(() => decoder.decompress(input.bits, output.write, work, blockSize, before));
      if (checksum === null) break;
      yield* output.fullPieces();
    }
  }
  yield output.rest();
}

/** Reads bits for the synchronous decoder. All input of a block is read before the block is decoded. */
class BitInput {
  readonly #reader: ByteReader;
  #bytes = new Uint8Array(2 * MAX_BLOCK_BYTES);
  #length = 0;
  #position = 0;
  #bit = 0;
  #ended = false;

  constructor(reader: ByteReader) {
    this.#reader = reader;
  }

  /** Reads enough input for the longest block, or all that is left. Returns false at the end. */
  async more(): Promise<boolean> {
    if (!this.#ended && this.#length - this.#position < MAX_BLOCK_BYTES) {
      this.#bytes.copyWithin(0, this.#position, this.#length);
      this.#length -= this.#position;
      this.#position = 0;
      this.#length += await readFully(this.#reader, this.#bytes.subarray(this.#length));
      this.#ended = this.#length < this.#bytes.length;
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

/** Collects the output of all blocks. The blocks of many small streams share a piece. */
class Output {
  #full: Uint8Array[] = [];
  #piece = new Uint8Array(BZIP2_PIECE);
  #length = 0;

  readonly write = (byte: number): void => {
    if (this.#length === BZIP2_PIECE) {
      this.#full.push(this.#piece);
      this.#piece = new Uint8Array(BZIP2_PIECE);
      this.#length = 0;
    }
    this.#piece[this.#length] = byte;
    this.#length += 1;
  };

  *fullPieces(): Generator<Uint8Array> {
    const full = this.#full;
    this.#full = [];
    yield* full;
  }

  rest(): Uint8Array {
    return this.#piece.subarray(0, this.#length);
  }
}

/** Runs a step of the decoder. Its errors become MalformedDataError. */
function guard<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof MalformedDataError) throw error;
    const noMagic = error instanceof Error && error.message.includes('magic');
    throw new MalformedDataError(noMagic ? TRAILING_BYTES : 'is corrupt', { cause: error });
  }
}
