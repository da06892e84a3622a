import type { FileHandle } from 'node:fs/promises';
import type { ByteReader } from './decode/byte-reader.ts';
import type { StarvationMeter } from './scheduler.ts';
import { diskError } from './store-files.ts';

/** Limit on the bytes in memory between a connection and its reader. */
const MEMORY = 512 * 1024;
/** Limit on the bytes that wait for a write to the file. */
const UNWRITTEN = 512 * 1024;
/** Milliseconds for which a connection waits for the reader; servers hang up after 20 s and more. */
const PATIENCE = 5000;
/** Milliseconds between two checks whether to wait on. */
const RECONSIDER = 100;

export interface BlobBufferOptions {
  /** Opens the file, before the first byte goes there. */
  readonly file: () => Promise<FileHandle>;
  /** The directory of the file, for messages. */
  readonly where: string;
  /** Every byte goes to the file and stays, so that there may be several readers, each from the start. */
  readonly keep: boolean;
  /** Readers wait until the blob is complete and checked. */
  readonly held: boolean;
  /** Measures how long the reader waits. */
  readonly starvation: StarvationMeter;
}

/**
 * The bytes of one blob between its connections and its readers. Bytes that are not kept go to the reader through memory; while the reader
 * is busy, they go to the file, or a fast connection waits.
 */
export class BlobBuffer {
  readonly #options: BlobBufferOptions;
  #file: Promise<FileHandle> | undefined;
  readonly #memory = new MemoryQueue();
  /** Bytes that wait for a write: those that arrive during one are part of the next one. */
  #unwritten: Uint8Array[] = [];
  #unwrittenBytes = 0;
  /** Never rejects. */
  #writing: Promise<void> | undefined;
  #received = 0;
  #written = 0;
  /** Position of the only reader of bytes that are not kept. */
  #position = 0;
  #isRead = false;
  #left = false;
  /** The reader was too slow: no connection waits for it again until it has caught up. */
  #gaveUp = false;
  #fileOnly: boolean;
  #state: 'arriving' | 'whole' | 'failed' = 'arriving';
  #failure: unknown;
  #changed = Promise.withResolvers<void>();

  constructor(options: BlobBufferOptions) {
    this.#options = options;
    this.#fileOnly = options.keep || options.held;
  }

  /** Number of received bytes. */
  get received(): number {
    return this.#received;
  }

  /** Up to here the file has all bytes, unless they went through memory. */
  get written(): number {
    return this.#written;
  }

  /** A reader has received bytes. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /** Takes the next bytes. `patient`: whether the caller may wait for the reader rather than fill the disk. */
  async append(chunk: Uint8Array, patient: () => boolean): Promise<void> {
    const route = await this.#route(chunk.length, patient);
    this.#throwIfFailed();
    const offset = this.#received;
    this.#received += chunk.length;
    if (route === 'memory') {
      this.#memory.push(chunk);
      this.#notify();
    } else if (route === 'file') {
      this.#unwritten.push(chunk);
      this.#unwrittenBytes += chunk.length;
      this.#writing ??= this.#write(offset);
      if (this.#unwrittenBytes > UNWRITTEN) await this.#awaitWrites();
    }
  }

  /**
   * Where the next bytes go:
   *
   * | reader                                   | bytes go to                                              |
   * | ---------------------------------------- | -------------------------------------------------------- |
   * | has left                                 | nowhere                                                  |
   * | gets everything from the file            | the file                                                 |
   * | needs nothing from the file, memory free | memory                                                   |
   * | is behind                                | the file, after a wait if the caller is patient for long |
   */
  async #route(bytes: number, patient: () => boolean): Promise<'file' | 'memory' | 'nowhere'> {
    const deadline = performance.now() + PATIENCE;
    for (;;) {
      if (this.#left) return 'nowhere';
      if (this.#fileOnly || this.#state !== 'arriving') return 'file';
      const inFile = this.#position + this.#memory.bytes < this.#received;
      if (!inFile && (this.#memory.bytes === 0 || this.#memory.bytes + bytes <= MEMORY)) {
        this.#gaveUp = false;
        return 'memory';
      }
      this.#gaveUp ||= performance.now() >= deadline;
      if (this.#gaveUp || !patient()) return 'file';
      await this.#change(Math.min(deadline - performance.now(), RECONSIDER));
    }
  }

  /** From now on all bytes go to the file, by `writeAt`. */
  async toFile(): Promise<void> {
    this.#fileOnly = true;
    await this.#awaitWrites();
  }

  /** Writes bytes to their place in the file; `advance` makes them known to readers. */
  async writeAt(chunk: Uint8Array, offset: number): Promise<void> {
    await this.#onDisk(writeFully(await this.#open(), [chunk], offset));
  }

  /** All bytes before `front` are in the file. */
  advance(front: number): void {
    this.#received = front;
    this.#written = front;
    this.#notify();
  }

  /** The blob is complete and its digest right. */
  async finish(): Promise<void> {
    await this.#awaitWrites();
    this.#state = 'whole';
    this.#notify();
  }

  /** Readers get `error` from now on. */
  fail(error: unknown): void {
    if (this.#state !== 'arriving') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#notify();
  }

  /** Closes the file, if there is one. */
  async close(): Promise<void> {
    await this.#writing;
    await (await this.#file)?.close();
  }

  /** The only reader stops: further bytes are dropped, unless bytes are kept. */
  leave(): void {
    if (this.#options.keep) return;
    this.#left = true;
    this.#memory.clear();
    this.#notify();
  }

  /** The bytes from the start. Without `keep` there is only one reader. */
  reader(): ByteReader {
    let position = 0;
    return {
      read: async (into) => {
        const count = await this.#read(into, position, 'reader');
        position += count;
        this.#isRead ||= count > 0;
        if (this.#options.keep) return count;
        this.#position = position;
        this.#notify();
        return count;
      },
    };
  }

  /** Reads bytes of the file from `position` on, as soon as there are any, for the digest; 0 at the end. */
  async readAt(into: Uint8Array, position: number): Promise<number> {
    return this.#read(into, position, 'digest');
  }

  async #read(into: Uint8Array, position: number, purpose: 'reader' | 'digest'): Promise<number> {
    for (;;) {
      this.#throwIfFailed();
      const isHeld = purpose === 'reader' && this.#options.held && this.#state === 'arriving';
      if (purpose === 'reader' && !isHeld && this.#memory.bytes > 0) {
        const count = this.#memory.take(into);
        // At once: `#route` compares it with what is left in memory.
        this.#position += count;
        return count;
      }
      if (!isHeld && position < this.#written) return this.#pread(into, position);
      if (this.#state === 'whole' && position >= this.#received) return 0;
      await this.#options.starvation.during(this.#change());
    }
  }

  async #pread(into: Uint8Array, position: number): Promise<number> {
    const length = Math.min(into.length, this.#written - position);
    const { bytesRead } = await this.#onDisk((await this.#open()).read(into, 0, length, position));
    if (bytesRead === 0) throw new Error('the file was truncated while it was read');
    return bytesRead;
  }

  async #open(): Promise<FileHandle> {
    this.#file ??= this.#options.file();
    return this.#file;
  }

  /** Writes all that waits, one write after the other; a failure is that of the buffer. */
  async #write(start: number): Promise<void> {
    try {
      const file = await this.#open();
      for (let offset = start; this.#unwritten.length > 0;) {
        const chunks = this.#unwritten;
        this.#unwritten = [];
        this.#unwrittenBytes = 0;
        offset = await writeFully(file, chunks, offset);
        this.#written = offset;
        this.#notify();
      }
    } catch (error) {
      this.fail(diskError(error, this.#options.where));
    } finally {
      // Before the promise settles: an `append` in between would wait for a write that has ended.
      this.#writing = undefined;
    }
  }

  #onDisk<T>(access: Promise<T>): Promise<T> {
    return access.catch((error: unknown) => Promise.reject(diskError(error, this.#options.where)));
  }

  async #awaitWrites(): Promise<void> {
    await this.#writing;
    this.#throwIfFailed();
  }

  #throwIfFailed(): void {
    if (this.#state === 'failed') throw this.#failure;
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #change(milliseconds?: number): Promise<void> {
    const timer = milliseconds === undefined ? undefined : setTimeout(() => this.#notify(), milliseconds);
    await this.#changed.promise;
    clearTimeout(timer);
  }
}

/** Writes all chunks from `offset` on; returns the offset of their end. */
async function writeFully(file: FileHandle, chunks: readonly Uint8Array[], offset: number): Promise<number> {
  const size = chunks.reduce((sum, { length }) => sum + length, 0);
  let { bytesWritten: written } = await file.writev(chunks, offset);
  // A disk that is nearly full takes a part.
  while (written < size) {
    const rest = Buffer.concat(chunks).subarray(written);
    written += (await file.write(rest, 0, rest.length, offset + written)).bytesWritten;
  }
  return offset + size;
}

/** Chunks in the order of their arrival. A pushed chunk belongs to the queue, which frees its memory after the last byte was taken. */
class MemoryQueue {
  #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that were taken already. */
  #offset = 0;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** Moves as many bytes as fit into `into`; returns their number. */
  take(into: Uint8Array): number {
    let count = 0;
    while (this.#chunks.length > 0 && count < into.length) {
      const first = this.#chunks[0]!;
      const part = first.subarray(this.#offset, this.#offset + into.length - count);
      into.set(part, count);
      count += part.length;
      this.#offset += part.length;
      if (this.#offset < first.length) break;
      this.#chunks.shift();
      this.#offset = 0;
      release(first);
    }
    this.#bytes -= count;
    return count;
  }

  clear(): void {
    this.#chunks = [];
    this.#offset = 0;
    this.#bytes = 0;
  }
}

/** In bytes; smaller chunks may be part of a shared pool. */
const WORTH_RELEASING = 32 * 1024;

/** Frees the memory of a chunk with a buffer of its own at once: V8 collects such buffers only after 64 MiB. */
function release({ buffer, byteLength }: Uint8Array): void {
  const alone = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
  if (alone && byteLength >= WORTH_RELEASING) buffer.transfer(0);
}
