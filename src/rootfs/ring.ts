import type { ByteSource } from '../tar/entry.ts';
import { loadNative } from '../sys/native.ts';

/** Of a ring for tar bytes: a power of two, in bytes. */
const CAPACITY = 4 * 1024 * 1024;

/** Indexes of the control words. The byte counters wrap around; only their difference matters. */
const HEAD = 0;
const TAIL = 1;
const STATE = 2;
/** Incremented when bytes or the end arrive; the reader waits on it. */
const NEWS = 3;
/** Incremented when space is free, the reader has failed, or the writer has other work; the writer waits on it. */
const ROOM = 4;
const WRITER_WAITS = 5;
/** Number of the stream, from 1 on, and of the last one that the reader is done with. */
const STREAM = 6;
const LEFT = 7;
const CONTROL_BYTES = 64;
/** From this length on a call of memcpy(3) is faster than V8. */
const MEMCPY_MIN_BYTES = 512;

const State = { open: 0, ended: 1, aborted: 2, failed: 3 } as const;

/** Thrown by the reader when the writer has aborted. */
export class RingAborted extends Error {}

/**
 * The shared memory of one ring, for its writer and its reader.
 *
 * @param capacity in bytes, a power of two
 */
export function createRing(capacity = CAPACITY): SharedArrayBuffer {
  return new SharedArrayBuffer(CONTROL_BYTES + capacity);
}

/** One thread's end of a ring. */
class RingEnd {
  /** All bytes of the ring. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** Of the stream that this end writes or reads. */
  stream = 0;
  protected readonly control: Int32Array<SharedArrayBuffer>;
  protected readonly capacity: number;

  constructor(memory: SharedArrayBuffer) {
    this.control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.bytes = new Uint8Array(memory, CONTROL_BYTES);
    this.capacity = this.bytes.length;
  }

  /** Ends a wait of the thread that writes, for room or for something to do. */
  wakeWriter(): void {
    if (Atomics.load(this.control, WRITER_WAITS) === 0) return;
    Atomics.store(this.control, WRITER_WAITS, 0);
    this.signal(ROOM);
  }

  /** Nothing more is read: ends a waiting `write`. */
  fail(): void {
    Atomics.store(this.control, STATE, State.failed);
    this.signal(ROOM);
  }

  /** Ends each wait for this word. */
  protected signal(word: typeof NEWS | typeof ROOM): void {
    Atomics.add(this.control, word, 1);
    Atomics.notify(this.control, word);
  }
}

/** Writes into the ring. */
export class RingWriter extends RingEnd {
  readonly #onNews: (() => void) | undefined;
  readonly #batch: number;
  /** Bytes that were written since the reader was last woken. */
  #pending = 0;
  #copy: ReturnType<typeof copyIntoShared> | undefined;
  #head = Atomics.load(this.control, HEAD);

  /**
   * @param onNews called when bytes or the end have come, for a reader that does not wait in `read`
   * @param batch a waiting reader is woken when this many bytes have come, the ring is full, or `flush` is called
   */
  constructor(memory: SharedArrayBuffer, onNews?: () => void, batch = 1) {
    super(memory);
    this.#onNews = onNews;
    this.#batch = batch;
  }

  /**
   * Copies `chunk` into the ring; waits asynchronously while the ring is full (back-pressure). False as soon as the reader has failed
   * or this writer has aborted.
   */
  async write(chunk: Uint8Array): Promise<boolean> {
    for (let rest = chunk; rest.length > 0;) {
      if (!this.open) return false;
      const count = this.#put(rest);
      if (count === 0) await this.#roomToCome();
      rest = rest.subarray(count);
    }
    return true;
  }

  /** The same, blocking the thread while the ring is full. */
  writeBlocking(chunk: Uint8Array): boolean {
    for (let rest = chunk; rest.length > 0;) {
      if (!this.open) return false;
      const count = this.#put(rest);
      if (count === 0) this.#blockUntilRoom();
      rest = rest.subarray(count);
    }
    return true;
  }

  /** Wakes a reader that waits for bytes written so far. */
  flush(): void {
    if (this.#pending > 0) this.#tell();
  }

  /** Whether the reader has failed. */
  get failed(): boolean {
    return Atomics.load(this.control, STATE) === State.failed;
  }

  get open(): boolean {
    return Atomics.load(this.control, STATE) === State.open;
  }

  /** Whether the reader is not yet done with the stream; it may be done with later ones already, which others wrote. */
  get isRead(): boolean {
    return ((Atomics.load(this.control, LEFT) - this.stream) | 0) < 0;
  }

  get unread(): number {
    return (this.#head - Atomics.load(this.control, TAIL)) | 0;
  }

  /** Where the next byte belongs, counted from the first: it wraps around. */
  get position(): number {
    return this.#head;
  }

  /** Begins to write in another thread than the one that opened the stream. */
  join(): void {
    this.#head = Atomics.load(this.control, HEAD);
    this.stream = Atomics.load(this.control, STREAM);
  }

  /**
   * Free bytes in one piece, to be filled in place; then `commit`.
   *
   * @param firstNeeded answers the position of the first byte that is still in use beyond the reader's, undefined where none is
   */
  reserve(most: number, firstNeeded: () => number | undefined): Uint8Array<SharedArrayBuffer> {
    // In this order: the reader notes which slots it keeps before it continues.
    const tail = Atomics.load(this.control, TAIL);
    const used = Math.max((this.#head - tail) | 0, (this.#head - (firstNeeded() ?? tail)) | 0);
    const start = this.#head & (this.capacity - 1);
    return this.bytes.subarray(start, start + Math.min(most, this.capacity - used, this.capacity - start));
  }

  /** Hands the next `length` bytes to the reader. */
  commit(length: number): void {
    this.#advance(length);
    if (length > 0) this.#tell();
  }

  /** Blocks the thread until there is room or `wake` is called, unless `ready` returns true first. */
  waitUnless(ready: () => boolean): void {
    const seen = Atomics.load(this.control, ROOM);
    Atomics.store(this.control, WRITER_WAITS, 1);
    // The word stays set: by now the wait may be that of another thread, which writes the next stream. It costs one signal at most.
    if (!ready()) Atomics.wait(this.control, ROOM, seen);
  }

  /** Ends a wait of the reader's, so that it looks again. */
  wakeReader(): void {
    this.signal(NEWS);
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
    Atomics.add(this.control, STREAM, 1);
    this.join();
    Atomics.store(this.control, TAIL, this.#head);
    Atomics.store(this.control, STATE, State.open);
  }

  /** The reader has died. */
  override fail(): void {
    Atomics.store(this.control, LEFT, Atomics.load(this.control, STREAM));
    super.fail();
  }

  #change(to: number): void {
    if (Atomics.compareExchange(this.control, STATE, State.open, to) !== State.open) return;
    this.#tell();
    this.signal(ROOM);
  }

  #tell(): void {
    this.#pending = 0;
    this.wakeReader();
    this.#onNews?.();
  }

  /** Copies as many bytes as fit in one piece; returns how many. */
  #put(bytes: Uint8Array): number {
    const free = this.capacity - this.unread;
    if (free === 0) return 0;
    const start = this.#head & (this.capacity - 1);
    const part = bytes.subarray(0, Math.min(free, this.capacity - start));
    (this.#copy ??= copyIntoShared(this.bytes))(part, start);
    this.#advance(part.length);
    this.#pending += part.length;
    if (this.#pending >= this.#batch) this.#tell();
    return part.length;
  }

  #advance(length: number): void {
    this.#head = (this.#head + length) | 0;
    Atomics.store(this.control, HEAD, this.#head);
  }

  async #roomToCome(): Promise<void> {
    const seen = this.#askForRoom();
    if (seen === undefined) return;
    const wait = Atomics.waitAsync(this.control, ROOM, seen);
    if (wait.async) await wait.value;
  }

  #blockUntilRoom(): void {
    const seen = this.#askForRoom();
    if (seen !== undefined) Atomics.wait(this.control, ROOM, seen);
  }

  /** Asks the reader to signal free space. Returns the counter's value to wait on, undefined if no wait is needed. */
  #askForRoom(): number | undefined {
    this.flush();
    const seen = Atomics.load(this.control, ROOM);
    Atomics.store(this.control, WRITER_WAITS, 1);
    return this.unread < this.capacity || !this.open ? undefined : seen;
  }
}

/** Reads from the ring. */
export class RingReader extends RingEnd implements ByteSource {
  /** The most bytes read, or released to a waiting writer, at once. */
  readonly #quarter = this.capacity / 4;
  #tail = 0;
  /** Length of the last view, whose bytes are still in the ring. */
  #taken = 0;
  readonly #buffer = Buffer.from(this.bytes.buffer, CONTROL_BYTES);
  /** Called before the thread blocks; true if it did some work, after which the ring is checked again. */
  beforeWait: (() => boolean) | undefined;

  /**
   * The next bytes; blocks the thread while there are none.
   *
   * @throws RingAborted when the writer has aborted
   */
  read(max: number): Uint8Array | undefined {
    this.#release();
    for (;;) {
      const seen = Atomics.load(this.control, NEWS);
      const now = this.#state();
      if (this.#available() > 0) return this.#take(max);
      if (now === State.ended) return undefined;
      if (this.beforeWait?.() !== true) Atomics.wait(this.control, NEWS, seen);
    }
  }

  /** The same, copied to the front of `into`; returns how many bytes, 0 at the end. */
  readInto(into: Uint8Array): number {
    const bytes = this.read(into.length);
    if (bytes === undefined) return 0;
    const start = bytes.byteOffset - CONTROL_BYTES;
    return this.#buffer.copy(into, 0, start, start + bytes.length);
  }

  /**
   * The next bytes, without waiting: `none` where they have not come, undefined at the end.
   *
   * @throws RingAborted when the writer has aborted
   */
  poll(max: number): Uint8Array | 'none' | undefined {
    this.#release();
    const now = this.#state();
    if (this.#available() > 0) return this.#take(max);
    return now === State.ended ? undefined : 'none';
  }

  /** Whether `poll` would return anything but `none`. */
  get hasNews(): boolean {
    return Atomics.load(this.control, STATE) !== State.open || this.#available() - this.#taken > 0;
  }

  get head(): number {
    return Atomics.load(this.control, HEAD);
  }

  /** Bytes behind the last view that are here already. */
  get ahead(): number {
    return this.#available() - this.#taken;
  }

  /** The position of a byte in the last view, as `RingWriter.position` counts. */
  positionOf(bytes: Uint8Array): number {
    return (this.#tail + bytes.byteOffset - CONTROL_BYTES - (this.#tail & (this.capacity - 1))) | 0;
  }

  /** Blocks the thread until something comes, unless `ready` returns true first. */
  waitUnless(ready: () => boolean): void {
    const seen = Atomics.load(this.control, NEWS);
    if (!ready()) Atomics.wait(this.control, NEWS, seen);
  }

  /** @throws RingAborted when the writer has aborted, also with bytes left in the ring */
  throwIfAborted(): void {
    this.#state();
  }

  /** Begins to read the next stream. */
  restart(): void {
    this.#taken = 0;
    this.#tail = Atomics.load(this.control, TAIL);
    this.stream = Atomics.load(this.control, STREAM);
  }

  /** Tells the writer that the stream is done with, also with what was made of its bytes. */
  leave(): void {
    Atomics.store(this.control, LEFT, this.stream);
    this.wakeWriter();
  }

  #state(): number {
    const now = Atomics.load(this.control, STATE);
    if (now === State.aborted) throw new RingAborted('the stream was given up');
    return now;
  }

  #available(): number {
    return (Atomics.load(this.control, HEAD) - this.#tail) | 0;
  }

  #take(max: number): Uint8Array {
    const start = this.#tail & (this.capacity - 1);
    this.#taken = Math.min(this.#available(), max, this.#quarter, this.capacity - start);
    return this.bytes.subarray(start, start + this.#taken);
  }

  #release(): void {
    if (this.#taken === 0) return;
    this.#tail = (this.#tail + this.#taken) | 0;
    this.#taken = 0;
    Atomics.store(this.control, TAIL, this.#tail);
    if (Atomics.load(this.control, WRITER_WAITS) === 0) return;
    if (this.capacity - this.#available() >= this.#quarter) this.wakeWriter();
  }
}

/**
 * A copy into shared memory, by memcpy(3) where it can be called. That is three times as fast as V8, which copies word by word, or byte by
 * byte if source and target are aligned differently.
 */
function copyIntoShared(bytes: Uint8Array<SharedArrayBuffer>) {
  const native = loadNative();
  if (!native) return (chunk: Uint8Array, position: number) => bytes.set(chunk, position);
  const { koffi, library } = native;
  const memcpy = library.func('memcpy', 'intptr_t', ['intptr_t', 'const void *', 'size_t']);
  const address = koffi.address(bytes);
  return (chunk: Uint8Array, position: number) => {
    if (chunk.length < MEMCPY_MIN_BYTES) bytes.set(chunk, position);
    else memcpy(address + BigInt(position), chunk, chunk.length);
  };
}
