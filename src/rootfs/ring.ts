import type { ByteSource } from '../tar/entry.ts';
import { copyFromShared, type SharedCopy, sharedCopy } from './shared-copy.ts';

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

/** Writes into the ring. */
export class RingWriter {
  /** All bytes of the ring. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #capacity: number;
  readonly #onNews: (() => void) | undefined;
  readonly #batch: number;
  /** Bytes that the reader was not told about. */
  #untold = 0;
  #copy: SharedCopy | undefined;
  #head: number;
  #stream = 0;

  /**
   * @param onNews called when bytes or the end have come, for a reader that does not wait in `read`
   * @param batch a reader that waits is woken when so many bytes have come, the ring is full, or `flush` is called
   */
  constructor(memory: SharedArrayBuffer, onNews?: () => void, batch = 1) {
    this.#control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.bytes = new Uint8Array(memory, CONTROL_BYTES);
    this.#capacity = this.bytes.length;
    this.#onNews = onNews;
    this.#batch = batch;
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

  /** Wakes a reader that waits for bytes written so far. */
  flush(): void {
    if (this.#untold > 0) this.#tell();
  }

  /** Whether the reader has failed. */
  get failed(): boolean {
    return Atomics.load(this.#control, STATE) === State.failed;
  }

  get open(): boolean {
    return Atomics.load(this.#control, STATE) === State.open;
  }

  /** Whether the reader is not yet done with the stream; it may be done with later ones already, which others wrote. */
  get isRead(): boolean {
    return ((Atomics.load(this.#control, LEFT) - this.#stream) | 0) < 0;
  }

  get unread(): number {
    return (this.#head - Atomics.load(this.#control, TAIL)) | 0;
  }

  /** Where the next byte belongs, counted from the first: it wraps around. */
  get position(): number {
    return this.#head;
  }

  /** Begins to write in another thread than the one that opened the stream. */
  join(): void {
    this.#head = Atomics.load(this.#control, HEAD);
    this.#stream = Atomics.load(this.#control, STREAM);
  }

  get stream(): number {
    return this.#stream;
  }

  /**
   * Free bytes in one piece, to be filled in place; then `commit`.
   *
   * @param held answers the position of the first byte that is still in use beyond the reader's, undefined where none is
   */
  reserve(most: number, held: () => number | undefined): Uint8Array<SharedArrayBuffer> {
    // In this order: the reader notes which slots it keeps before it continues.
    const tail = Atomics.load(this.#control, TAIL);
    const used = Math.max((this.#head - tail) | 0, (this.#head - (held() ?? tail)) | 0);
    const start = this.#head & (this.#capacity - 1);
    return this.bytes.subarray(start, start + Math.min(most, this.#capacity - used, this.#capacity - start));
  }

  /** Hands the next `length` bytes to the reader. */
  commit(length: number): void {
    if (length === 0) return;
    this.#head = (this.#head + length) | 0;
    Atomics.store(this.#control, HEAD, this.#head);
    this.#tell();
  }

  /** Blocks the thread until room comes free or `wake` is called, unless `ready` by then. */
  waitUnless(ready: () => boolean): void {
    const seen = Atomics.load(this.#control, ROOM);
    Atomics.store(this.#control, WRITER_WAITS, 1);
    if (!ready()) Atomics.wait(this.#control, ROOM, seen);
    Atomics.store(this.#control, WRITER_WAITS, 0);
  }

  /** Ends a wait of the reader's, so that it looks again. */
  wakeReader(): void {
    Atomics.add(this.#control, NEWS, 1);
    Atomics.notify(this.#control, NEWS);
  }

  /** Ends a wait of the thread that writes, where another one calls this. */
  wakeWriter(): void {
    wakeWriter(this.#control);
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
    Atomics.add(this.#control, STREAM, 1);
    this.join();
    Atomics.store(this.#control, TAIL, this.#head);
    Atomics.store(this.#control, STATE, State.open);
  }

  /** Ends a waiting `write`: the reader has died. */
  fail(): void {
    Atomics.store(this.#control, LEFT, Atomics.load(this.#control, STREAM));
    failRing(this.#control);
  }

  #change(to: number): void {
    if (Atomics.compareExchange(this.#control, STATE, State.open, to) !== State.open) return;
    this.#tell();
    ringRoom(this.#control);
  }

  #tell(): void {
    this.#untold = 0;
    this.wakeReader();
    this.#onNews?.();
  }

  /** Copies as many bytes as fit in one piece; returns how many. */
  #put(bytes: Uint8Array): number {
    const free = this.#free();
    if (free === 0) return 0;
    const start = this.#head & (this.#capacity - 1);
    const part = bytes.subarray(0, Math.min(free, this.#capacity - start));
    this.#copy ??= sharedCopy(this.bytes);
    this.#copy(part, start);
    this.#head = (this.#head + part.length) | 0;
    Atomics.store(this.#control, HEAD, this.#head);
    this.#untold += part.length;
    if (this.#untold >= this.#batch) this.#tell();
    return part.length;
  }

  #free(): number {
    return this.#capacity - this.unread;
  }

  async #roomToCome(): Promise<void> {
    this.flush();
    const seen = this.#askForRoom();
    if (seen === undefined) return;
    const wait = Atomics.waitAsync(this.#control, ROOM, seen);
    if (wait.async) await wait.value;
  }

  #blockUntilRoom(): void {
    this.flush();
    const seen = this.#askForRoom();
    if (seen !== undefined) Atomics.wait(this.#control, ROOM, seen);
  }

  /** Asks the reader to signal free space. Returns the counter's value to wait on, undefined if no wait is needed. */
  #askForRoom(): number | undefined {
    const seen = Atomics.load(this.#control, ROOM);
    Atomics.store(this.#control, WRITER_WAITS, 1);
    return this.#free() > 0 || Atomics.load(this.#control, STATE) !== State.open ? undefined : seen;
  }
}

/** Reads from the ring. */
export class RingReader implements ByteSource {
  /** All bytes of the ring. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #capacity: number;
  /** The most bytes read, or released to a waiting writer, at once. */
  readonly #quarter: number;
  #tail = 0;
  #stream = 0;
  /** Length of the last view, whose bytes are still in the ring. */
  #taken = 0;
  #copyOut: ((bytes: Uint8Array, into: Uint8Array) => void) | undefined;
  /** Called before the thread blocks; true if it did some work, after which the ring is checked again. */
  beforeWait: (() => boolean) | undefined;

  constructor(memory: SharedArrayBuffer) {
    this.#control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.bytes = new Uint8Array(memory, CONTROL_BYTES);
    this.#capacity = this.bytes.length;
    this.#quarter = this.#capacity / 4;
  }

  /**
   * The next bytes; blocks the thread while there are none.
   *
   * @throws RingAborted when the writer has aborted
   */
  read(max: number): Uint8Array | undefined {
    this.#release();
    for (;;) {
      const seen = Atomics.load(this.#control, NEWS);
      const now = this.#state();
      if (this.#available() > 0) return this.#take(max);
      if (now === State.ended) return undefined;
      if (this.beforeWait?.() !== true) Atomics.wait(this.#control, NEWS, seen);
    }
  }

  /** The same, copied to the front of `into`; returns how many bytes, 0 at the end. */
  readInto(into: Uint8Array): number {
    const bytes = this.read(into.length);
    if (bytes === undefined) return 0;
    this.#copyOut ??= copyFromShared(this.bytes);
    this.#copyOut(bytes, into);
    return bytes.length;
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

  /** Whether `poll` would answer something else than `none`. */
  get hasNews(): boolean {
    return Atomics.load(this.#control, STATE) !== State.open || this.#available() - this.#taken > 0;
  }

  get head(): number {
    return Atomics.load(this.#control, HEAD);
  }

  /** Bytes behind the last view that are here already. */
  get ahead(): number {
    return this.#available() - this.#taken;
  }

  /** The position of a byte in the last view, as `RingWriter.position` counts. */
  positionOf(bytes: Uint8Array): number {
    return (this.#tail + bytes.byteOffset - CONTROL_BYTES - (this.#tail & (this.#capacity - 1))) | 0;
  }

  /** Blocks the thread until something comes, unless `ready` by then. */
  waitUnless(ready: () => boolean): void {
    const seen = Atomics.load(this.#control, NEWS);
    if (!ready()) Atomics.wait(this.#control, NEWS, seen);
  }

  /** Ends a wait of the writer for something to do. */
  wakeWriter(): void {
    wakeWriter(this.#control);
  }

  /** @throws RingAborted when the writer has aborted, also with bytes left in the ring */
  throwIfAborted(): void {
    this.#state();
  }

  /** Begins to read the next stream. */
  restart(): void {
    this.#taken = 0;
    this.#tail = Atomics.load(this.#control, TAIL);
    this.#stream = Atomics.load(this.#control, STREAM);
  }

  get stream(): number {
    return this.#stream;
  }

  /** Tells the writer that nothing more is read. */
  fail(): void {
    failRing(this.#control);
  }

  /** Tells the writer that the stream is done with, also with what was made of its bytes. */
  leave(): void {
    Atomics.store(this.#control, LEFT, this.#stream);
    wakeWriter(this.#control);
  }

  #state(): number {
    const now = Atomics.load(this.#control, STATE);
    if (now === State.aborted) throw new RingAborted('the stream was given up');
    return now;
  }

  #available(): number {
    return (Atomics.load(this.#control, HEAD) - this.#tail) | 0;
  }

  #take(max: number): Uint8Array {
    const start = this.#tail & (this.#capacity - 1);
    this.#taken = Math.min(this.#available(), max, this.#quarter, this.#capacity - start);
    return this.bytes.subarray(start, start + this.#taken);
  }

  #release(): void {
    if (this.#taken === 0) return;
    this.#tail = (this.#tail + this.#taken) | 0;
    this.#taken = 0;
    Atomics.store(this.#control, TAIL, this.#tail);
    if (Atomics.load(this.#control, WRITER_WAITS) === 0) return;
    if (this.#capacity - this.#available() >= this.#quarter) wakeWriter(this.#control);
  }
}

/** Wakes a writer that waits. */
function wakeWriter(control: Int32Array<SharedArrayBuffer>): void {
  if (Atomics.load(control, WRITER_WAITS) === 0) return;
  Atomics.store(control, WRITER_WAITS, 0);
  ringRoom(control);
}

function failRing(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(control, STATE, State.failed);
  ringRoom(control);
}

function ringRoom(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.add(control, ROOM, 1);
  Atomics.notify(control, ROOM);
}
