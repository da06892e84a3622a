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
  /** Opens the file, when the first byte has to go there. */
  readonly file: () => Promise<FileHandle>;
  /** Where the file lies, for messages. */
  readonly where: string;
  /** Every byte goes to the file and stays, so that there may be several readers, each from the start. */
  readonly keep: boolean;
  /** Readers wait until the blob is whole and checked. */
  readonly held: boolean;
  /** Counts the waits of the reader. */
  readonly starvation: StarvationMeter;
}

/**
 * The bytes of one blob, from where they come in to where they are read, at the same time. When they are not to be kept, they go
 * from memory to the reader; those that come while it is busy wait in the file, or make a fast connection wait.
 */
export class BlobBuffer {
  readonly #options: BlobBufferOptions;
  #file: Promise<FileHandle> | undefined;
  readonly #memory = new MemoryQueue();
  /** Given to `append`. */
  #received = 0;
  /** Up to here bytes can be read from the file, unless they went through memory. */
  #written = 0;
  readonly #writes: WriteBehind;
  /** Of the one reader of bytes that are not kept. */
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

  /** How many bytes have come. */
  get received(): number {
    return this.#received;
  }

  /** Up to here the file has all bytes, unless they are not kept. */
  get written(): number {
    return this.#written;
  }

  /** Where the file lies, for messages. */
  get where(): string {
    return this.#options.where;
  }

  get keeps(): boolean {
    return this.#options.keep;
  }

  /** A reader has got bytes. */
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

  /** Where so many bytes go next. */
  #route(bytes: number, patient: () => boolean): 'file' | 'memory' | 'wait' | 'nowhere' {
    if (this.#left) return 'nowhere';
    if (this.#fileOnly || this.#state !== 'arriving') return 'file';
    const inFile = this.#position + this.#memory.bytes < this.#received;
    if (!inFile && (this.#memory.bytes === 0 || this.#memory.bytes + bytes <= MEMORY)) return 'memory';
    return !this.#gaveUp && patient() ? 'wait' : 'file';
  }

  /** From now on all bytes go to the file, written there by `writeAt` in any order. */
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

  /** The blob is whole and right. */
  async finish(): Promise<void> {
    await this.#settle();
    this.#state = 'whole';
    this.#notify();
  }

  /** Readers get `error`, now and later. */
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

  /** The reader of bytes that are not kept has gone: what still comes is dropped. */
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

  /** Bytes of the file from `position` on, as soon as there are any, for checking them; 0 at the end. */
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
    if (bytesRead === 0) throw new Error('a file was cut off while it was read');
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

/** Pieces of bytes in the order they came. What is pushed belongs to the queue: its memory is freed as soon as it was taken. */
class MemoryQueue {
  #chunks: Uint8Array[] = [];
  /** Of the first chunk, gone already. */
  #offset = 0;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** Moves as much as fits into `into`; how many bytes that were. */
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

/** In bytes; smaller ones may lie in a pool that others share. */
const WORTH_RELEASING = 32 * 1024;

/** Frees the memory of a chunk that has a buffer of its own now: V8 would let 64 MiB of them pile up. */
function release({ buffer, byteLength }: Uint8Array): void {
  const alone = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
  if (alone && byteLength >= WORTH_RELEASING) buffer.transfer(0);
}

/** On the way to the file, in bytes. */
const LIMIT = 512 * 1024;

/** Writes to a file one after the other; bytes that arrive during one write go out with the next. */
export class WriteBehind {
  readonly #file: () => Promise<FileHandle>;
  readonly #wrote: (end: number) => void;
  readonly #failed: (error: unknown) => void;
  #pending: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;

  /** `wrote` hears where each write ended, `failed` of the first that went wrong. */
  constructor(
    file: () => Promise<FileHandle>,
    wrote: (end: number) => void,
    failed: (error: unknown) => void,
  ) {
    this.#file = file;
    this.#wrote = wrote;
    this.#failed = failed;
  }

  /** Takes bytes that follow those before; `offset` is where they belong. Waits when too much is on the way. */
  async write(chunk: Uint8Array, offset: number): Promise<void> {
    this.#pending.push(chunk);
    this.#bytes += chunk.length;
    if (!this.#writing) {
      this.#writing = this.#flush(offset);
      this.#writing.catch(this.#failed);
    }
    if (this.#bytes > LIMIT) await this.#writing;
  }

  /** Resolves when all is in the file. */
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
      // At once, not when the promise is looked at: a write in between would wait for nobody.
      this.#writing = undefined;
    }
  }
}

/** Writes all chunks from `offset` on; answers where they end. */
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
