import { readSync, writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { ByteReader } from './decode/byte-reader.ts';
import type { StarvationMeter } from './scheduler.ts';
import { diskError } from './store-files.ts';

/** Limit on the bytes in memory between a connection and its reader. */
const MEMORY = 512 * 1024;
/** Milliseconds for which a connection waits for the reader; servers hang up after 20 s and more. */
const PATIENCE = 5000;
/** Milliseconds between two checks whether to wait on. */
const RECONSIDER = 100;

/** A file for the bytes of a blob. */
export interface BlobFile {
  /** Opens it, before the first byte goes there. */
  readonly open: () => Promise<FileHandle>;
  /** The directory of the file, for messages. */
  readonly where: string;
}

export interface BlobBufferOptions {
  readonly file: BlobFile;
  /** The file that takes its place when it cannot be written, for the error that is given. Left out: such an error ends the blob. */
  readonly instead?: ((error: unknown) => BlobFile) | undefined;
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
 *
 * Writes are synchronous: into the page cache they take less time than their way through Node's pool, see docs/blobs.md.
 */
export class BlobBuffer {
  readonly #options: BlobBufferOptions;
  #opening: Promise<FileHandle> | undefined;
  /** Undefined before it is opened, and while another one takes its place. */
  #file: FileHandle | undefined;
  #where: string;
  /** The file is the one that took the place of the first. */
  #isMoved = false;
  readonly #memory = new MemoryQueue();
  #received = 0;
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
    this.#where = options.file.where;
    this.#fileOnly = options.keep || options.held;
  }

  /** Number of received bytes. The file has all of them, unless they went through memory. */
  get received(): number {
    return this.#received;
  }

  /** A reader has received bytes. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /** Takes the next bytes. `patient`: whether the caller may wait for the reader rather than fill the disk. */
  async append(chunk: Uint8Array, patient: () => boolean): Promise<void> {
    const route = await this.#route(chunk.length, patient);
    this.#throwIfFailed();
    if (route === 'memory') this.#memory.push(chunk);
    else if (route === 'file') await this.writeAt(chunk, this.#received);
    this.advance(this.#received + chunk.length);
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
    await this.#open();
  }

  /** Writes bytes to their place in the file; `advance` makes them known to readers. */
  async writeAt(chunk: Uint8Array, offset: number): Promise<void> {
    for (;;) {
      const file = await this.#open();
      // Another connection has found that the file cannot be written.
      if (this.#file !== file) continue;
      try {
        // A disk that is nearly full takes a part.
        for (let done = 0; done < chunk.length;)
          done += writeSync(file.fd, chunk, done, chunk.length - done, offset + done);
        return;
      } catch (error) {
        this.#move(file, error);
      }
    }
  }

  /**
   * The disk of the file is full or fails: continues in another file.
   *
   * @throws DestinationError where it has no other, or it cannot be written either
   */
  async leaveFile(error: unknown): Promise<void> {
    const file = await this.#open();
    if (!this.#isMoved) this.#move(file, error);
    await this.#open();
  }

  #move(file: FileHandle, error: unknown): void {
    const { instead } = this.#options;
    if (!instead || this.#isMoved) throw this.#diskError(error);
    this.#isMoved = true;
    const other = instead(this.#diskError(error));
    this.#where = other.where;
    this.#file = undefined;
    this.#opening = other.open().then(async (to) => {
      try {
        await copyContents(file, to);
        return to;
      } catch (failure) {
        await to.close();
        throw this.#diskError(failure);
      }
    });
    this.#opening.catch(() => undefined);
  }

  /** All bytes before `front` are here. */
  advance(front: number): void {
    this.#received = front;
    this.#notify();
  }

  /** The blob is complete and its digest right. */
  finish(): void {
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
    const file = await this.#opening?.catch(() => undefined);
    await file?.close();
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
        const count = await this.#read(into, position);
        position += count;
        this.#isRead ||= count > 0;
        if (this.#options.keep) return count;
        this.#position = position;
        this.#notify();
        return count;
      },
    };
  }

  /** Reads bytes that are in the file, for the digest; returns how many: 0 while the file is replaced. After `toFile`. */
  readBack(into: Uint8Array, position: number): number {
    if (!this.#file) return 0;
    const length = Math.min(into.length, this.#received - position);
    try {
      return requireBytes(readSync(this.#file.fd, into, 0, length, position));
    } catch (error) {
      throw this.#diskError(error);
    }
  }

  async #read(into: Uint8Array, position: number): Promise<number> {
    for (;;) {
      this.#throwIfFailed();
      if (!this.#options.held || this.#state === 'whole') {
        if (this.#memory.bytes > 0) {
          const count = this.#memory.take(into);
          // At once: `#route` compares it with what is left in memory.
          this.#position += count;
          return count;
        }
        if (position < this.#received) return this.#pread(into, position);
        if (this.#state === 'whole') return 0;
      }
      await this.#options.starvation.during(this.#change());
    }
  }

  /** Not synchronous: the bytes may no longer be in the page cache. */
  async #pread(into: Uint8Array, position: number): Promise<number> {
    const file = await this.#open();
    const length = Math.min(into.length, this.#received - position);
    const reading = file.read(into, 0, length, position);
    const { bytesRead } = await reading.catch((error: unknown) => {
      throw this.#diskError(error);
    });
    return requireBytes(bytesRead);
  }

  async #open(): Promise<FileHandle> {
    for (;;) {
      const opening = (this.#opening ??= this.#options.file.open());
      const file = await opening;
      if (this.#opening !== opening) continue;
      this.#file = file;
      return file;
    }
  }

  #diskError(error: unknown): unknown {
    return diskError(error, this.#where);
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

/** Bytes copied at once. */
const COPY = 2 ** 20;

async function copyContents(from: FileHandle, to: FileHandle): Promise<void> {
  const buffer = new Uint8Array(COPY);
  for (let at = 0; ;) {
    const { bytesRead } = await from.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    for (let done = 0; done < bytesRead;)
      done += (await to.write(buffer, done, bytesRead - done, at + done)).bytesWritten;
    at += bytesRead;
  }
}

function requireBytes(count: number): number {
  if (count === 0) throw new Error('the file was truncated while it was read');
  return count;
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
