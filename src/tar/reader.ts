import { type ByteSource, type Entry, type EntryReader, MalformedTarError } from './entry.ts';
import { HeaderSequence } from './header-sequence.ts';
import { type Block, BLOCK_SIZE, paddingOf } from './header.ts';

const READ_SIZE = 1 << 20;
const nothing = Buffer.alloc(0);

/**
 * Reads one archive: v7, ustar, GNU, star and pax, by the rules of `HeaderSequence`. It may end without its end mark at a block
 * border, nowhere else. Bytes after an end mark are left in the source.
 *
 * All errors are MalformedTarError, with the layer and the entry in the message, but for those that the source throws; after one,
 * every call throws it again.
 */
export class TarReader implements EntryReader {
  /** The archive's bytes. */
  readonly stream: BlockStream;
  readonly #layer: string;
  readonly #sequence = new HeaderSequence();
  readonly #steps = this.#read();
  #headerOffset = 0;
  /** The body of a meta header, valid until the next one: memory of its own for each would be garbage of a MiB. */
  #body: Buffer = nothing;
  #failure: unknown;

  /** @param layer what messages call the archive: `layer 0123456789ab` */
  constructor(source: ByteSource, layer: string) {
    this.stream = new BlockStream(source);
    this.#layer = layer;
  }

  next(): Entry | undefined {
    for (;;) {
      const step = this.step();
      if (typeof step !== 'number') return step;
    }
  }

  /** As `next`; or the number of bytes, at most a block, for which an asynchronous source has to wait before the next step. */
  step(): Entry | number | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#steps.next().value ?? undefined;
    } catch (error) {
      throw this.#fail(error);
    }
  }

  data(): Uint8Array | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.stream.remaining === 0) return undefined;
    try {
      return this.stream.takeData();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #fail(error: unknown): unknown {
    this.#failure = this.#sequence.located(error, this.#layer, this.#headerOffset);
    return this.#failure;
  }

  *#read(): Generator<Entry | number, void, undefined> {
    const stream = this.stream;
    const sequence = this.#sequence;
    for (;;) {
      this.#headerOffset = stream.offset;
      if (stream.buffered < BLOCK_SIZE) yield BLOCK_SIZE;
      if (!stream.nextBlock()) {
        sequence.finish();
        return;
      }
      const step = sequence.accept(stream);
      if (step === 'end') return;
      if (step === 'block') continue;
      stream.startData(sequence.size);
      if (step === 'entry') yield sequence.entry;
      if (step === 'body') sequence.acceptBody(yield* this.#readBody(sequence.size));
      if (stream.buffered < stream.remaining + stream.padding) yield* this.#awaitData();
      stream.skipData();
      if (step === 'entry') sequence.leaveEntry();
    }
  }

  *#readBody(size: number): Generator<number, Buffer, undefined> {
    if (this.#body.length < size) this.#body = Buffer.allocUnsafeSlow(size);
    const body = this.#body.subarray(0, size);
    while (this.stream.remaining > 0) {
      if (this.stream.buffered === 0) yield 1;
      const from = size - this.stream.remaining;
      body.set(this.stream.takeData(), from);
    }
    return body;
  }

  /** Passes over the data while it arrives, until its end and the padding are here. */
  *#awaitData(): Generator<number, void, undefined> {
    while (this.stream.remaining > 0) {
      if (this.stream.buffered === 0) yield 1;
      this.stream.takeData();
    }
    if (this.stream.buffered < this.stream.padding) yield this.stream.padding;
  }
}

/**
 * `TarReader` over an asynchronous source: the same rules and errors, without blocking the thread.
 * A chunk has to be valid only until the next is requested. Bytes after the end mark stay in the iterator.
 */
export class AsyncTarReader {
  readonly #chunks: ChunkQueue;
  readonly #reader: TarReader;

  /** @param layer what messages call the archive: `layer 0123456789ab` */
  constructor(chunks: AsyncIterator<Uint8Array>, layer: string) {
    this.#chunks = new ChunkQueue(chunks);
    this.#reader = new TarReader(this.#chunks, layer);
  }

  /** The next entry, or undefined after the last one; skips what was not read of the one before. */
  async next(): Promise<Entry | undefined> {
    for (;;) {
      const step = this.#reader.step();
      if (typeof step !== 'number') return step;
      await this.#fill(step);
    }
  }

  /** More of the current file's stored data, undefined at its end. The view is valid until the next call. */
  async data(): Promise<Uint8Array | undefined> {
    if (this.#reader.stream.remaining > 0) await this.#fill(1);
    return this.#reader.data();
  }

  /** Waits until `size` bytes (not more than a block) are here, or no more come. */
  async #fill(size: number): Promise<void> {
    const { stream } = this.#reader;
    if (stream.buffered + this.#chunks.length >= size) return;
    stream.detach();
    while (stream.buffered + this.#chunks.length < size && (await this.#chunks.pull()));
  }
}

/**
 * An archive's bytes as header blocks and runs of data. Blocks lie where the source has them; only one that straddles two of the
 * source's chunks, or is not aligned to four bytes, is copied.
 */
class BlockStream implements Block {
  /** Where the block from the last `nextBlock` is, valid until the next call of any method. */
  block: Buffer;
  at = 0;
  /** The same block as words. */
  words: Int32Array;
  wordsAt = 0;
  /** Bytes of the run of data that were not taken. */
  remaining = 0;
  /** Bytes between the run of data and the next block that were not passed over. */
  padding = 0;

  readonly #source: ByteSource;
  readonly #scratch = Buffer.from(new ArrayBuffer(BLOCK_SIZE));
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);
  #chunk: Buffer = nothing;
  #chunkWords: Int32Array = this.#scratchWords;
  /** Add it to a position in the chunk: the byte in `#chunkWords`. */
  #chunkShift = 0;
  #position = 0;
  #bytesBefore = 0;

  constructor(source: ByteSource) {
    this.#source = source;
    this.block = this.#scratch;
    this.words = this.#scratchWords;
  }

  /** Bytes taken so far. */
  get offset(): number {
    return this.#bytesBefore + this.#position;
  }

  /** Bytes that are here without another read of the source. */
  get buffered(): number {
    return this.#chunk.length - this.#position;
  }

  /**
   * Takes one block.
   *
   * @returns false where the archive ends before it.
   * @throws MalformedTarError where it ends within.
   */
  nextBlock(): boolean {
    const start = this.#position;
    if (start + BLOCK_SIZE > this.#chunk.length) return this.#collectBlock();
    this.#position = start + BLOCK_SIZE;
    const wordByte = start + this.#chunkShift;
    if ((wordByte & 3) === 0) {
      this.block = this.#chunk;
      this.at = start;
      this.words = this.#chunkWords;
      this.wordsAt = wordByte >> 2;
    } else {
      this.#chunk.copy(this.#scratch, 0, start, start + BLOCK_SIZE);
      this.#useScratch();
    }
    return true;
  }

  /** The next bytes are data of this length, padded to whole blocks. */
  startData(size: number): void {
    this.remaining = size;
    this.padding = paddingOf(size);
  }

  /**
   * The next bytes of the run, valid until the next call.
   *
   * @throws MalformedTarError where the archive ends
   */
  takeData(): Uint8Array {
    const bytes = this.#take(this.remaining);
    if (bytes === undefined) throw new MalformedTarError('the archive ends within its data');
    this.remaining -= bytes.length;
    return bytes;
  }

  /**
   * Passes over what is left of the run, and its padding.
   *
   * @throws MalformedTarError where the archive ends before
   */
  skipData(): void {
    if (this.remaining === 0 && this.padding === 0) return;
    if (!this.#skip(this.remaining)) throw new MalformedTarError('the archive ends within its data');
    this.remaining = 0;
    if (!this.#skip(this.padding))
      throw new MalformedTarError('the archive ends within the padding after it');
    this.padding = 0;
  }

  /** At most `max` bytes; undefined at the end of the archive. */
  #take(max: number): Uint8Array | undefined {
    if (this.#position === this.#chunk.length && !this.#refill()) return undefined;
    const start = this.#position;
    const end = Math.min(start + max, this.#chunk.length);
    this.#position = end;
    return this.#chunk.subarray(start, end);
  }

  /** Passes over `count` bytes; false where the archive ends before. */
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
    while (filled < BLOCK_SIZE) {
      const bytes = this.#take(BLOCK_SIZE - filled);
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

  /** Copies what is left of the source's last chunk, so that the chunk may go. */
  detach(): void {
    const rest = Buffer.from(this.#chunk.subarray(this.#position));
    this.#bytesBefore += this.#position;
    this.#useChunk(rest);
  }

  #refill(): boolean {
    this.#bytesBefore += this.#chunk.length;
    const bytes = this.#source.read(READ_SIZE);
    this.#useChunk(bytes ?? nothing);
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
