import { readSync, writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { ByteReader } from './decode/byte-reader.ts';
import { diskError } from './store-files.ts';

/** A file for the bytes of a blob. */
export interface BufferFile {
  /** Opens the file; called before the first byte is written. */
  readonly open: () => Promise<FileHandle>;
  /** The directory of the file, for messages. */
  readonly where: string;
}

export interface BlobBufferOptions {
  readonly file: BufferFile;
  /**
   * Returns the file that replaces one that cannot be written, for this error. Left out: the error ends the
   * blob.
   */
  readonly instead?: ((error: unknown) => BufferFile) | undefined;
  /** Readers wait until the blob is complete and checked. */
  readonly held: boolean;
}

/**
 * The bytes of one blob between its connections and its readers. They are in a file, which each reader reads
 * from the start while it grows.
 *
 * Writes are synchronous: into the page cache they take less time than through Node's thread pool, see
 * docs/blobs.md.
 */
export class BlobBuffer {
  readonly #options: BlobBufferOptions;
  #opening: Promise<FileHandle> | undefined;
  /** The open file; undefined before it is opened, and while another one replaces it. */
  #file: FileHandle | undefined;
  #where: string;
  /** The file has replaced the first one. */
  #isMoved = false;
  #received = 0;
  #state: 'arriving' | 'whole' | 'failed' = 'arriving';
  #failure: unknown;
  #changed = Promise.withResolvers<void>();

  constructor(options: BlobBufferOptions) {
    this.#options = options;
    this.#where = options.file.where;
  }

  /** Number of bytes received from the start, without a hole. */
  get received(): number {
    return this.#received;
  }

  /** Appends the next bytes. */
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
        // A disk that is nearly full may take only a part.
        for (let done = 0; done < chunk.length;)
          done += writeSync(file.fd, chunk, done, chunk.length - done, offset + done);
        return;
      } catch (error) {
        this.#move(file, error);
      }
    }
  }

  /**
   * Continues in another file, because the disk of the first is full or fails.
   *
   * @throws DestinationError if no other file is left, or it cannot be written either
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

  /** Records that all bytes before `front` have been received. */
  advance(front: number): void {
    this.#received = front;
    this.#notify();
  }

  /** Records that the blob is complete and its digest right. */
  finish(): void {
    this.#state = 'whole';
    this.#notify();
  }

  /** Makes readers throw `error` from now on. */
  fail(error: unknown): void {
    if (this.#state !== 'arriving') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#notify();
  }

  /** Closes the file, if it is open. */
  async close(): Promise<void> {
    const file = await this.#opening?.catch(() => undefined);
    await file?.close();
  }

  /** Returns a reader of the bytes from the start. */
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

  /**
   * Reads bytes of the file for the digest, after `openFile`. Returns their number, 0 while the file is
   * replaced.
   */
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

  /** Reads asynchronously, since the bytes may no longer be in the page cache. */
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

/** Number of bytes copied at once. */
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
