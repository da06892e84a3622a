import type { FileHandle } from 'node:fs/promises';
import type { ByteReader } from './decode/byte-reader.ts';
import type { StarvationMeter } from './pace.ts';
import { diskError } from './store-files.ts';

/** Limit on the bytes in memory between a connection and its reader. */
const MEMORY = 512 * 1024;
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
  /** Bytes given to `append`. */
  #received = 0;
  /** Up to here bytes can be read from the file, unless they went through memory. */
  #written = 0;
  readonly #writes: WriteBehind;
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
    this.#writes = new WriteBehind(
      () => this.file(),
      (end) => {
        this.#written = end;
        this.#notify();
      },
      (error) => this.fail(diskError(error, options.where)),
    );
  }

  /** Number of received bytes. */
  get received(): number {
    return this.#received;
  }

  /** Up to here the file has all bytes, unless they are not kept. */
  get written(): number {
    return this.#written;
  }

  /** The directory of the file, for messages. */
  get where(): string {
    return this.#options.where;
  }

  get keeps(): boolean {
    return this.#options.keep;
  }

  /** A reader has received bytes. */
  get isRead(): boolean {
    return this.#isRead;
  }

  async file(): Promise<FileHandle> {
    this.#file ??= this.#options.file();
    return this.#file;
  }

  /** Takes the next bytes. `patient`: whether the caller may wait for the reader rather than fill the disk. */
  async append(chunk: Uint8Array, patient: () => boolean): Promise<void> {
    const deadline = performance.now() + PATIENCE;
    let route = this.#route(chunk.length, patient);
    while (route === 'wait') {
      await this.#change(Math.min(deadline - performance.now(), RECONSIDER));
      this.#gaveUp ||= performance.now() >= deadline;
      route = this.#route(chunk.length, patient);
    }
    this.#throwIfFailed();
    const offset = this.#received;
    this.#received += chunk.length;
    if (route === 'file') await this.#onDisk(this.#writes.write(chunk, offset));
    if (route === 'memory') {
      this.#gaveUp = false;
      this.#memory.push(chunk);
      this.#notify();
    }
  }

  /** Where the next bytes go. */
  #route(bytes: number, patient: () => boolean): 'file' | 'memory' | 'wait' | 'nowhere' {
    if (this.#left) return 'nowhere';
    if (this.#fileOnly || this.#state !== 'arriving') return 'file';
    const inFile = this.#position + this.#memory.bytes < this.#received;
    if (!inFile && (this.#memory.bytes === 0 || this.#memory.bytes + bytes <= MEMORY)) return 'memory';
    return !this.#gaveUp && patient() ? 'wait' : 'file';
  }

  /** From now on all bytes go to the file; the caller writes them there in any order. */
  async toFile(): Promise<FileHandle> {
    this.#fileOnly = true;
    await this.#settle();
    return this.file();
  }

  /** All bytes before `front` are in the file. */
  advance(front: number): void {
    this.#received = front;
    this.#written = front;
    this.#notify();
  }

  /** The blob is complete and its digest right. */
  async finish(): Promise<void> {
    await this.#settle();
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
    await this.#writes.settled().catch(() => undefined);
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
    if (!this.#options.keep) return { read: (into) => this.#readOnce(into) };
    let position = 0;
    return {
      read: async (into) => {
        const count = await this.#readKept(into, position, true);
        position += count;
        return count;
      },
    };
  }

  /** Reads bytes of the file from `position` on, as soon as there are any, for the digest; 0 at the end. */
  async readAt(into: Uint8Array, position: number): Promise<number> {
    return this.#readKept(into, position, false);
  }

  async #readKept(into: Uint8Array, position: number, handOut: boolean): Promise<number> {
    const ready = () => position < this.#written && !(handOut && this.#holding);
    while (!ready()) {
      this.#throwIfFailed();
      if (this.#state === 'whole') return 0;
      await this.#options.starvation.during(this.#change());
    }
    this.#throwIfFailed();
    this.#isRead ||= handOut;
    return this.#pread(into, position);
  }

  get #holding(): boolean {
    return this.#options.held && this.#state === 'arriving';
  }

  async #pread(into: Uint8Array, position: number): Promise<number> {
    const length = Math.min(into.length, this.#written - position);
    const { bytesRead } = await this.#onDisk((await this.file()).read(into, 0, length, position));
    if (bytesRead === 0) throw new Error('the file was truncated while it was read');
    return bytesRead;
  }

  async #readOnce(into: Uint8Array): Promise<number> {
    for (;;) {
      this.#throwIfFailed();
      if (!this.#holding && this.#memory.bytes > 0) return this.#took(this.#memory.take(into));
      if (!this.#holding && this.#position < this.#written) {
        return this.#took(await this.#pread(into, this.#position));
      }
      if (this.#state === 'whole' && this.#position >= this.#received) return 0;
      await this.#options.starvation.during(this.#change());
    }
  }

  #took(count: number): number {
    this.#position += count;
    this.#isRead = true;
    this.#notify();
    return count;
  }

  #onDisk<T>(access: Promise<T>): Promise<T> {
    return access.catch((error: unknown) => Promise.reject(diskError(error, this.#options.where)));
  }

  async #settle(): Promise<void> {
    await this.#writes.settled().catch(() => undefined);
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

/** Limit on the bytes that wait for a write. */
const LIMIT = 512 * 1024;

/** Writes to a file, one write after the other; bytes that arrive during a write are part of the next one. */
export class WriteBehind {
  readonly #file: () => Promise<FileHandle>;
  readonly #wrote: (end: number) => void;
  readonly #failed: (error: unknown) => void;
  #pending: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;

  /** `wrote` gets the end of each write, `failed` the error of the first that failed. */
  constructor(
    file: () => Promise<FileHandle>,
    wrote: (end: number) => void,
    failed: (error: unknown) => void,
  ) {
    this.#file = file;
    this.#wrote = wrote;
    this.#failed = failed;
  }

  /** Takes bytes for `offset`, which follow the previous ones. Waits while too many bytes wait for a write. */
  async write(chunk: Uint8Array, offset: number): Promise<void> {
    this.#pending.push(chunk);
    this.#bytes += chunk.length;
    if (!this.#writing) {
      this.#writing = this.#flush(offset);
      this.#writing.catch(this.#failed);
    }
    if (this.#bytes > LIMIT) await this.#writing;
  }

  /** Resolves when all bytes are in the file. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #flush(start: number): Promise<void> {
    try {
      const file = await this.#file();
      for (let offset = start; this.#pending.length > 0; this.#wrote(offset)) {
        const chunks = this.#pending;
        this.#pending = [];
        this.#bytes = 0;
        offset = await writeFully(file, chunks, offset);
      }
    } finally {
      // Before the promise settles: a `write` in between would wait for a flush that has ended.
      this.#writing = undefined;
    }
  }
}

/** Writes all chunks from `offset` on; returns the offset of their end. */
export async function writeFully(
  file: FileHandle,
  chunks: readonly Uint8Array[],
  offset: number,
): Promise<number> {
  let end = offset;
  for (let rest = chunks; rest.length > 0;) {
    const { bytesWritten } = await file.writev(rest, end);
    end += bytesWritten;
    rest = skip(rest, bytesWritten);
  }
  return end;
}

function skip(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes;
  const index = chunks.findIndex((chunk) => {
    if (chunk.length > left) return true;
    left -= chunk.length;
    return false;
  });
  if (index === -1) return [];
  return [chunks[index]!.subarray(left), ...chunks.slice(index + 1)];
}
