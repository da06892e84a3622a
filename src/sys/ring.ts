import { copyIntoShared } from './native.ts';

/** Number of bytes in a ring for a tar: a power of two. */
const CAPACITY = 4 * 1024 * 1024;

/**
 * The shared words before the bytes. docs/threads.md lists for each one its writers and the threads that wait
 * for it.
 */
const Word = {
  /**
   * Bytes written, and bytes that the reader is done with. Both wrap around, and only their difference
   * matters.
   */
  written: 0,
  read: 1,
  /** A `State`: each stream is open, then ended or aborted; failed follows any of them. */
  state: 2,
  /** 1 when the reader is done with the stream, and with the work that its bytes caused. */
  readerDone: 3,
  /**
   * Incremented when bytes have come or the writer has ended or aborted the stream. The reader waits for it;
   * the decoder, which reads by `poll`, waits for `bell` instead.
   */
  bytes: 4,
  /** Incremented when space is free or `state` has changed. A writer with no other condition waits for it. */
  space: 5,
  /**
   * Incremented when the decoder is to check its conditions. It has several, and a thread can wait for one
   * word only.
   */
  bell: 6,
} as const;

const CONTROL_BYTES = 64;

const State = { open: 0, ended: 1, aborted: 2, failed: 3 } as const;

/** Thrown by the reader when the writer has aborted. */
export class RingAborted extends Error {}

/**
 * Creates the shared memory of one ring, for its writer and its reader.
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
  protected readonly control: Int32Array<SharedArrayBuffer>;
  protected readonly capacity: number;

  constructor(memory: SharedArrayBuffer) {
    this.control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.bytes = new Uint8Array(memory, CONTROL_BYTES);
    this.capacity = this.bytes.length;
  }

  /** Records that nothing more is read, and ends a waiting `write`. */
  fail(): void {
    Atomics.store(this.control, Word.state, State.failed);
    this.signalSpace();
  }

  /** Ends the wait of `RingWriter.waitForBell`. */
  ringBell(): void {
    this.#signal(Word.bell);
  }

  protected signalBytes(): void {
    this.#signal(Word.bytes);
  }

  protected signalSpace(): void {
    this.#signal(Word.space);
    this.#signal(Word.bell);
  }

  #signal(word: number): void {
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
  #head = Atomics.load(this.control, Word.written);

  /**
   * @param onNews called when bytes or the end have come, for a reader that does not wait in `read`
   * @param batch number of new bytes that wake a waiting reader. A full ring and `flush` wake it too.
   */
  constructor(memory: SharedArrayBuffer, onNews?: () => void, batch = 1) {
    super(memory);
    this.#onNews = onNews;
    this.#batch = batch;
  }

  /**
   * Copies `chunk` into the ring. Waits asynchronously while the ring is full (back-pressure).
   * Returns false if the reader has failed or this writer has aborted.
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

  /** As `write`, but blocks the thread while the ring is full. */
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

  /** True after the reader has failed. */
  get failed(): boolean {
    return Atomics.load(this.control, Word.state) === State.failed;
  }

  get open(): boolean {
    return Atomics.load(this.control, Word.state) === State.open;
  }

  /** True when the reader is done with the stream, and with the work that its bytes caused. */
  get readerIsDone(): boolean {
    return Atomics.load(this.control, Word.readerDone) === 1;
  }

  get unread(): number {
    return (this.#head - Atomics.load(this.control, Word.read)) | 0;
  }

  /** Position of the next byte, counted from the first one. It wraps around at 32 bits. */
  get position(): number {
    return this.#head;
  }

  /** Begins to write a stream that another thread has opened. */
  join(): void {
    this.#head = Atomics.load(this.control, Word.written);
  }

  /**
   * Returns free bytes in one piece, which the caller fills in place and hands over with `commit`.
   *
   * @param firstNeeded returns the position of the first byte that is still needed although the reader has
   *   passed it; undefined if none is
   */
  reserve(most: number, firstNeeded: () => number | undefined): Uint8Array<SharedArrayBuffer> {
    // In this order: the reader records which bytes it still needs before it passes them.
    const tail = Atomics.load(this.control, Word.read);
    const used = Math.max((this.#head - tail) | 0, (this.#head - (firstNeeded() ?? tail)) | 0);
    const start = this.#head & (this.capacity - 1);
    return this.bytes.subarray(start, start + Math.min(most, this.capacity - used, this.capacity - start));
  }

  /** Hands the next `length` bytes to the reader. */
  commit(length: number): void {
    this.#advance(length);
    if (length > 0) this.#tell();
  }

  /**
   * Blocks the thread until the bell rings, unless `ready` returns true first. The caller then checks its
   * conditions again.
   */
  waitForBell(ready: () => boolean): void {
    const seen = Atomics.load(this.control, Word.bell);
    if (!ready()) Atomics.wait(this.control, Word.bell, seen);
  }

  /** Marks the end of the stream: the reader gets it after the bytes in the ring. */
  end(): void {
    this.#change(State.ended);
  }

  /**
   * Makes the reader throw RingAborted at once, also with bytes left in the ring. After `end` it changes
   * nothing: the reader takes the rest.
   */
  abort(): void {
    this.#change(State.aborted);
  }

  /** Opens the next stream, after the reader is done with the previous one. */
  reopen(): void {
    this.join();
    Atomics.store(this.control, Word.read, this.#head);
    Atomics.store(this.control, Word.readerDone, 0);
    Atomics.store(this.control, Word.state, State.open);
  }

  /** Called by the main thread when the reader's thread has died. */
  override fail(): void {
    Atomics.store(this.control, Word.readerDone, 1);
    super.fail();
  }

  #change(to: number): void {
    if (Atomics.compareExchange(this.control, Word.state, State.open, to) !== State.open) return;
    this.#tell();
    this.signalSpace();
  }

  #tell(): void {
    this.#pending = 0;
    this.signalBytes();
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
    Atomics.store(this.control, Word.written, this.#head);
  }

  async #roomToCome(): Promise<void> {
    this.flush();
    const seen = Atomics.load(this.control, Word.space);
    if (!this.#isFull()) return;
    const wait = Atomics.waitAsync(this.control, Word.space, seen);
    if (wait.async) await wait.value;
  }

  #blockUntilRoom(): void {
    this.flush();
    const seen = Atomics.load(this.control, Word.space);
    if (this.#isFull()) Atomics.wait(this.control, Word.space, seen);
  }

  #isFull(): boolean {
    return this.open && this.unread === this.capacity;
  }
}

/** Reads from the ring. */
export class RingReader extends RingEnd {
  /** Most bytes read at once. The writer is woken when the reader passes a multiple of it. */
  readonly #quarter = this.capacity / 4;
  #tail = 0;
  /** Length of the last view, whose bytes are still in the ring. */
  #taken = 0;
  readonly #buffer = Buffer.from(this.bytes.buffer, CONTROL_BYTES);
  /**
   * Called before the thread blocks. If it returns true, it had work to do, and is called again if still no
   * byte has come.
   */
  beforeWait: (() => boolean) | undefined;

  /**
   * Returns the next bytes, at most `max`; undefined at the end. Blocks the thread until bytes have come.
   *
   * @throws RingAborted when the writer has aborted
   */
  read(max: number): Uint8Array | undefined {
    for (;;) {
      const seen = Atomics.load(this.control, Word.bytes);
      const found = this.poll(max);
      if (found !== 'none') return found;
      if (this.beforeWait?.() !== true) Atomics.wait(this.control, Word.bytes, seen);
    }
  }

  /** As `read`, but waits asynchronously, and does no other work. */
  async readLater(max: number): Promise<Uint8Array | undefined> {
    for (;;) {
      const seen = Atomics.load(this.control, Word.bytes);
      const found = this.poll(max);
      if (found !== 'none') return found;
      const wait = Atomics.waitAsync(this.control, Word.bytes, seen);
      if (wait.async) await wait.value;
    }
  }

  /** As `read`, but copies the bytes to the front of `into`. Returns their number, 0 at the end. */
  readInto(into: Uint8Array): number {
    const bytes = this.read(into.length);
    if (bytes === undefined) return 0;
    const start = bytes.byteOffset - CONTROL_BYTES;
    return this.#buffer.copy(into, 0, start, start + bytes.length);
  }

  /**
   * Returns the next bytes without waiting: `none` if none have come, undefined at the end.
   *
   * @throws RingAborted when the writer has aborted
   */
  poll(max: number): Uint8Array | 'none' | undefined {
    this.#release();
    const now = this.#state();
    if (this.#available() > 0) return this.#take(max);
    return now === State.ended ? undefined : 'none';
  }

  /** True if `poll` would not return `none`. */
  get hasNews(): boolean {
    return Atomics.load(this.control, Word.state) !== State.open || this.#available() - this.#taken > 0;
  }

  /** Position after the last byte that has come, as `RingWriter.position` counts. */
  get head(): number {
    return Atomics.load(this.control, Word.written);
  }

  /** Number of bytes that have come after the last view. */
  get ahead(): number {
    return this.#available() - this.#taken;
  }

  /** Position of the first byte of a part of the last view, as `RingWriter.position` counts. */
  positionOf(bytes: Uint8Array): number {
    return (this.#tail + bytes.byteOffset - CONTROL_BYTES - (this.#tail & (this.capacity - 1))) | 0;
  }

  /** @throws RingAborted when the writer has aborted, also with bytes left in the ring */
  throwIfAborted(): void {
    this.#state();
  }

  /** Begins to read the next stream. */
  restart(): void {
    this.#taken = 0;
    this.#tail = Atomics.load(this.control, Word.read);
  }

  /** Tells the writer that this reader is done with the stream, and with the work that its bytes caused. */
  leave(): void {
    Atomics.store(this.control, Word.readerDone, 1);
    this.ringBell();
  }

  #state(): number {
    const now = Atomics.load(this.control, Word.state);
    if (now === State.aborted) throw new RingAborted('the stream was aborted');
    return now;
  }

  #available(): number {
    return (Atomics.load(this.control, Word.written) - this.#tail) | 0;
  }

  #take(max: number): Uint8Array {
    const start = this.#tail & (this.capacity - 1);
    this.#taken = Math.min(this.#available(), max, this.#quarter, this.capacity - start);
    return this.bytes.subarray(start, start + this.#taken);
  }

  #release(): void {
    if (this.#taken === 0) return;
    const before = this.#tail;
    this.#tail = (before + this.#taken) | 0;
    this.#taken = 0;
    Atomics.store(this.control, Word.read, this.#tail);
    if (((before ^ this.#tail) & -this.#quarter) !== 0) this.signalSpace();
  }
}
