import { readSync, writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { ByteReader } from './decode/byte-reader.ts';
import { diskError } from './store-files.ts';

/** A file for the bytes of a blob. */
export interface BufferFile {
  /** Opens it, before the first byte goes there. */
  readonly open: () => Promise<FileHandle>;
  /** The directory of the file, for messages. */
  readonly where: string;
}

export interface BlobBufferOptions {
  readonly file: BufferFile;
  /** The file that takes its place when it cannot be written, for the error that is given. Left out: such an error ends the blob. */
  readonly instead?: ((error: unknown) => BufferFile) | undefined;
  /** Readers wait until the blob is complete and checked. */
  readonly held: boolean;
}

/**
 * The bytes of one blob between its connections and its readers: in a file, which each reader reads from the start, while it grows.
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
  #received = 0;
  #state: 'arriving' | 'whole' | 'failed' = 'arriving';
  #failure: unknown;
  #changed = Promise.withResolvers<void>();

  constructor(options: BlobBufferOptions) {
    this.#options = options;
    this.#where = options.file.where;
  }

  /** Number of received bytes from the start. */
  get received(): number {
    return this.#received;
  }

  /** Takes the next bytes. */
  async append(chunk: Uint8Array): Promise<void> {
    this.#throwIfFailed();
    await this.writeAt(chunk, this.#received);
    this.advance(this.#received + chunk.length);
  }

  /** Opens the file, for a `readBack` before the first write. */
  async openFile(): Promise<void> {
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

  /** The bytes from the start. */
  reader(): ByteReader {
    let position = 0;
    return {
      read: async (into) => {
        const count = await this.#read(into, position);
        position += count;
        return count;
      },
    };
  }

  /** Reads bytes that are in the file, for the digest; returns how many: 0 while the file is replaced. After `openFile`. */
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
        if (position < this.#received) return this.#pread(into, position);
        if (this.#state === 'whole') return 0;
      }
      await this.#changed.promise;
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
