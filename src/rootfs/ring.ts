import { loadNative } from '../sys/native.ts';
import type { ByteSource } from '../tar/entry.ts';

/** A power of two, in bytes. */
const CAPACITY = 4 * 1024 * 1024;
/** The most bytes read, or released to the writer, at once. */
const QUARTER = CAPACITY / 4;

/** Indexes of the control words. The byte counters wrap around; only their difference matters. */
const HEAD = 0;
const TAIL = 1;
const STATE = 2;
/** Incremented when bytes or the end arrive; the reader waits on it. */
const NEWS = 3;
/** Incremented when space is free or the reader has failed; the writer waits on it. */
const ROOM = 4;
const WRITER_WAITS = 5;
const CONTROL_BYTES = 64;

const State = { open: 0, ended: 1, aborted: 2, failed: 3 } as const;

/** Thrown by the reader when the writer has aborted. */
export class RingAborted extends Error {}

/** The shared memory of one ring, for its writer and its reader. */
export function createRing(): SharedArrayBuffer {
  return new SharedArrayBuffer(CONTROL_BYTES + CAPACITY);
}

/** Writes into the ring. */
export class RingWriter {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #copy: SharedCopy;
  #head: number;

  constructor(memory: SharedArrayBuffer) {
    this.#control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.#copy = sharedCopy(new Uint8Array(memory, CONTROL_BYTES));
    this.#head = Atomics.load(this.#control, HEAD);
  }

  /**
   * Copies `chunk` into the ring; waits asynchronously while the ring is full (back-pressure). False as soon as the reader has failed
   * or this writer has aborted.
   */
  async write(chunk: Uint8Array): Promise<boolean> {
    for (let rest = chunk; rest.length > 0;) {
      if (Atomics.load(this.#control, STATE) !== State.open) return false;
      const count = this.#put(rest);
      if (count === 0) await this.#roomToCome();
      rest = rest.subarray(count);
    }
    return true;
  }

  /** The same, blocking the thread while the ring is full. */
  writeBlocking(chunk: Uint8Array): boolean {
    for (let rest = chunk; rest.length > 0;) {
      if (Atomics.load(this.#control, STATE) !== State.open) return false;
      const count = this.#put(rest);
      if (count === 0) this.#blockUntilRoom();
      rest = rest.subarray(count);
    }
    return true;
  }

  /** Whether the reader has failed. */
  get failed(): boolean {
    return Atomics.load(this.#control, STATE) === State.failed;
  }

  /** Marks the end of the stream: the reader gets it after the bytes in the ring. */
  end(): void {
    this.#change(State.ended);
  }

  /** Makes the reader throw RingAborted at once, also with bytes left in the ring. */
  abort(): void {
    this.#change(State.aborted);
  }

  /** Begins the next stream, after the reader has finished the previous one. */
  reopen(): void {
    Atomics.store(this.#control, TAIL, this.#head);
    Atomics.store(this.#control, STATE, State.open);
  }

  /** Ends a waiting `write`: the reader has died. */
  fail(): void {
    failRing(this.#control);
  }

  #change(to: number): void {
    if (Atomics.compareExchange(this.#control, STATE, State.open, to) !== State.open) return;
    this.#tell();
    Atomics.add(this.#control, ROOM, 1);
    Atomics.notify(this.#control, ROOM);
  }

  #tell(): void {
    Atomics.add(this.#control, NEWS, 1);
    Atomics.notify(this.#control, NEWS);
  }

  /** Copies as many bytes as fit in one piece; answers how many. */
  #put(bytes: Uint8Array): number {
    const free = this.#free();
    if (free === 0) return 0;
    const start = this.#head & (CAPACITY - 1);
    const part = bytes.subarray(0, Math.min(free, CAPACITY - start));
    this.#copy(part, start);
    this.#head = (this.#head + part.length) | 0;
    Atomics.store(this.#control, HEAD, this.#head);
    this.#tell();
    return part.length;
  }

  #free(): number {
    return CAPACITY - ((this.#head - Atomics.load(this.#control, TAIL)) | 0);
  }

  async #roomToCome(): Promise<void> {
    const seen = this.#askForRoom();
    if (seen === undefined) return;
    const wait = Atomics.waitAsync(this.#control, ROOM, seen);
    if (wait.async) await wait.value;
  }

  #blockUntilRoom(): void {
    const seen = this.#askForRoom();
    if (seen !== undefined) Atomics.wait(this.#control, ROOM, seen);
  }

  /** Asks the reader to signal free space. Answers the counter's value to wait on, undefined if no wait is needed. */
  #askForRoom(): number | undefined {
    const seen = Atomics.load(this.#control, ROOM);
    Atomics.store(this.#control, WRITER_WAITS, 1);
    return this.#free() > 0 || Atomics.load(this.#control, STATE) !== State.open ? undefined : seen;
  }
}

/** Reads from the ring; blocks the thread while the ring is empty. */
export class RingReader implements ByteSource {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  #tail = 0;
  /** Length of the last view, whose bytes are still in the ring. */
  #taken = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.#bytes = new Uint8Array(memory, CONTROL_BYTES);
  }

  /** @throws RingAborted when the writer has aborted */
  read(max: number): Uint8Array | undefined {
    this.#release();
    for (;;) {
      const seen = Atomics.load(this.#control, NEWS);
      const now = Atomics.load(this.#control, STATE);
      if (now === State.aborted) throw new RingAborted('the stream was given up');
      const available = (Atomics.load(this.#control, HEAD) - this.#tail) | 0;
      if (available > 0) {
        const start = this.#tail & (CAPACITY - 1);
        this.#taken = Math.min(available, max, QUARTER, CAPACITY - start);
        return this.#bytes.subarray(start, start + this.#taken);
      }
      if (now === State.ended) return undefined;
      Atomics.wait(this.#control, NEWS, seen);
    }
  }

  /** @throws RingAborted when the writer has aborted, also with bytes left in the ring */
  throwIfAborted(): void {
    if (Atomics.load(this.#control, STATE) === State.aborted)
      throw new RingAborted('the stream was given up');
  }

  /** Begins to read the next stream. */
  restart(): void {
    this.#taken = 0;
    this.#tail = Atomics.load(this.#control, TAIL);
  }

  /** Tells the writer that nothing more is read. */
  fail(): void {
    failRing(this.#control);
  }

  #release(): void {
    if (this.#taken === 0) return;
    this.#tail = (this.#tail + this.#taken) | 0;
    this.#taken = 0;
    Atomics.store(this.#control, TAIL, this.#tail);
    if (Atomics.load(this.#control, WRITER_WAITS) === 0) return;
    const used = (Atomics.load(this.#control, HEAD) - this.#tail) | 0;
    if (CAPACITY - used < QUARTER) return;
    Atomics.store(this.#control, WRITER_WAITS, 0);
    Atomics.add(this.#control, ROOM, 1);
    Atomics.notify(this.#control, ROOM);
  }
}

function failRing(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(control, STATE, State.failed);
  Atomics.add(control, ROOM, 1);
  Atomics.notify(control, ROOM);
}

/** From this length on a call of memcpy(3) is faster than V8. */
const MEMCPY_MIN_BYTES = 512;

/** Copies `chunk` to `position` in the shared memory. */
type SharedCopy = (chunk: Uint8Array, position: number) => void;

/**
 * A copy into shared memory: memcpy(3) where it can be called, three times as fast as V8, which copies there word by word, and byte by
 * byte where source and target are not aligned alike.
 */
function sharedCopy(bytes: Uint8Array<SharedArrayBuffer>): SharedCopy {
  const native = loadNative();
  if (!native) return (chunk, position) => bytes.set(chunk, position);
  const { koffi, library } = native;
  const memcpy = library.func('memcpy', 'intptr_t', ['intptr_t', 'const void *', 'size_t']);
  const address = koffi.address(bytes);
  return (chunk, position) => {
    if (chunk.length < MEMCPY_MIN_BYTES) bytes.set(chunk, position);
    else memcpy(address + BigInt(position), chunk, chunk.length);
  };
}
