import { loadNative } from '../sys/native.ts';

// The sha256 of a stream in a ring. The two threads at its ends compute it in turns: the thread that is idle takes the next bytes.

/** Words. */
const LOCK = 0;
/** Position of the first byte that is not in the digest yet, as `RingWriter.position` counts. */
const HASHED = 1;
/** The stream of the ring whose bytes go in; 0: none. */
const STREAM = 2;
const STATE_OFFSET = 64;
/** SHA256_CTX of OpenSSL has 112 bytes. */
const STATE_BYTES = 192;
const DIGEST_BYTES = 32;

export function createTarDigest(): SharedArrayBuffer {
  return new SharedArrayBuffer(STATE_OFFSET + STATE_BYTES);
}

interface Functions {
  readonly init: (state: bigint) => number;
  readonly update: (state: bigint, bytes: bigint, length: number) => number;
  readonly final: (digest: Uint8Array, state: bigint) => number;
  readonly state: bigint;
  readonly bytes: bigint;
}

/** The digest as one thread uses it. */
export class TarDigest {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #ringBytes: Uint8Array<SharedArrayBuffer>;
  readonly #memory: SharedArrayBuffer;
  #functions: Functions | null | undefined;

  /** @param ringBytes all bytes of the ring, whose capacity is a power of two */
  constructor(memory: SharedArrayBuffer, ringBytes: Uint8Array<SharedArrayBuffer>) {
    this.#memory = memory;
    this.#words = new Int32Array(memory, 0, STATE_OFFSET / 4);
    this.#ringBytes = ringBytes;
  }

  /** Begins with the byte at `position` of a stream; false where OpenSSL's functions are not available. */
  begin(stream: number, position: number): boolean {
    this.#functions ??= this.#find();
    if (!this.#functions) return false;
    // The other thread may still be taking in bytes of a stream that was given up.
    while (!this.#lock()) Atomics.wait(this.#words, LOCK, 1, PATIENCE);
    this.#functions.init(this.#functions.state);
    Atomics.store(this.#words, HASHED, position);
    Atomics.store(this.#words, STREAM, stream);
    this.#unlock();
    return true;
  }

  /** Position of the first byte that is still needed; undefined where none is. */
  get firstNeeded(): number | undefined {
    return this.#words[STREAM] === 0 ? undefined : Atomics.load(this.#words, HASHED);
  }

  /**
   * Takes in bytes before `head`, at most `most`; returns how many. None while the other thread is computing it.
   *
   * @param stream the current one
   */
  step(stream: number, head: number, most: number): number {
    const words = this.#words;
    if (Atomics.load(words, STREAM) !== stream || Atomics.load(words, HASHED) === head) return 0;
    this.#functions ??= this.#find();
    if (!this.#functions || !this.#lock()) return 0;
    try {
      // Only now: until the lock was taken, the other thread may have gone beyond this thread's `head`, or to another stream.
      const position = Atomics.load(words, HASHED);
      const waiting = (head - position) | 0;
      if (Atomics.load(words, STREAM) !== stream || waiting <= 0) return 0;
      const start = position & (this.#ringBytes.length - 1);
      const length = Math.min(waiting, most, this.#ringBytes.length - start);
      const { update, state, bytes } = this.#functions;
      update(state, bytes + BigInt(start), length);
      Atomics.store(words, HASHED, (position + length) | 0);
      return length;
    } finally {
      this.#unlock();
    }
  }

  #lock(): boolean {
    return Atomics.compareExchange(this.#words, LOCK, 0, 1) === 0;
  }

  #unlock(): void {
    Atomics.store(this.#words, LOCK, 0);
    Atomics.notify(this.#words, LOCK);
  }

  /** Takes in the rest, up to `head`, and returns the digest in hex; undefined where `goOn` says no. */
  finish(stream: number, head: number, goOn: () => boolean): string | undefined {
    while (Atomics.load(this.#words, HASHED) !== head) {
      if (!goOn()) return undefined;
      if (this.step(stream, head, this.#ringBytes.length) === 0) Atomics.wait(this.#words, LOCK, 1, PATIENCE);
    }
    const digest = Buffer.alloc(DIGEST_BYTES);
    this.#functions!.final(digest, this.#functions!.state);
    this.end();
    return digest.toString('hex');
  }

  /** No more bytes are taken in. */
  end(): void {
    Atomics.store(this.#words, STREAM, 0);
  }

  #find(): Functions | null {
    const native = loadNative();
    if (!native) return null;
    const { koffi, library } = native;
    try {
      return {
        init: library.func('int SHA256_Init(intptr_t state)') as Functions['init'],
        update: library.func(
          'int SHA256_Update(intptr_t state, intptr_t bytes, size_t length)',
        ) as Functions['update'],
        final: library.func('int SHA256_Final(_Out_ uint8_t *digest, intptr_t state)') as Functions['final'],
        state: koffi.address(new Uint8Array(this.#memory, STATE_OFFSET)),
        bytes: koffi.address(this.#ringBytes),
      };
    } catch {
      // A Node with another library for cryptography.
      return null;
    }
  }
}

/** Interval at which it checks whether the other thread is done, in milliseconds. */
const PATIENCE = 5;
