import { loadNative } from './native.ts';

/** The shared words. docs/threads.md lists for each one its writers and the threads that wait for it. */
const Word = {
  /** 1 while a thread takes in bytes. At the end of a tar the decoder waits for it. */
  computing: 0,
  /** Position of the first byte that is not in the digest yet, as `RingWriter.position` counts. */
  hashed: 1,
  /** 1 from `begin` to `end`. */
  begun: 2,
} as const;

const STATE_OFFSET = 64;
/** SHA256_CTX of OpenSSL has 112 bytes. */
const STATE_BYTES = 192;
const DIGEST_BYTES = 32;
/**
 * Milliseconds between two checks whether the tar is still wanted. A thread that has died never resets
 * `computing`.
 */
const CHECK_INTERVAL = 5;

/** Creates the shared memory of one digest. */
export function createRingDigest(): SharedArrayBuffer {
  return new SharedArrayBuffer(STATE_OFFSET + STATE_BYTES);
}

interface Functions {
  readonly init: (state: bigint) => number;
  readonly update: (state: bigint, bytes: bigint, length: number) => number;
  readonly final: (digest: Uint8Array, state: bigint) => number;
  readonly state: bigint;
  readonly bytes: bigint;
}

/**
 * The sha256 of a stream in a ring, as one thread uses it. The threads at both ends compute it: the one that
 * has nothing else to do takes in the next bytes. The thread that decodes begins and finishes it.
 */
export class RingDigest {
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

  /**
   * Begins a digest with the byte at `position`. Returns false if OpenSSL's functions cannot be called. A
   * digest that was begun before must have ended.
   */
  begin(position: number): boolean {
    this.#functions ??= this.#find();
    if (!this.#functions) return false;
    this.#functions.init(this.#functions.state);
    Atomics.store(this.#words, Word.hashed, position);
    Atomics.store(this.#words, Word.begun, 1);
    return true;
  }

  /** Position of the first byte that is still needed; undefined if none is. */
  firstNeeded(): number | undefined {
    if (Atomics.load(this.#words, Word.begun) === 0) return undefined;
    return Atomics.load(this.#words, Word.hashed);
  }

  /**
   * Takes in bytes before `head`, at most `most`. Returns their number; it is 0 while the other thread takes
   * in bytes.
   */
  step(head: number, most: number): number {
    const words = this.#words;
    if (Atomics.load(words, Word.begun) === 0 || Atomics.load(words, Word.hashed) === head) return 0;
    this.#functions ??= this.#find();
    if (!this.#functions || !this.#take()) return 0;
    try {
      // Before `#take` the other thread may have passed this thread's `head`, or ended the digest.
      const position = Atomics.load(words, Word.hashed);
      const waiting = (head - position) | 0;
      if (Atomics.load(words, Word.begun) === 0 || waiting <= 0) return 0;
      const start = position & (this.#ringBytes.length - 1);
      const length = Math.min(waiting, most, this.#ringBytes.length - start);
      const { update, state, bytes } = this.#functions;
      update(state, bytes + BigInt(start), length);
      Atomics.store(words, Word.hashed, (position + length) | 0);
      return length;
    } finally {
      this.#leave();
    }
  }

  /**
   * Takes in the rest, up to `head`, and returns the digest in hex. Returns undefined as soon as `isWanted`
   * returns false.
   */
  finish(head: number, isWanted: () => boolean): string | undefined {
    while (Atomics.load(this.#words, Word.hashed) !== head) {
      if (!isWanted()) return undefined;
      if (this.step(head, this.#ringBytes.length) === 0)
        Atomics.wait(this.#words, Word.computing, 1, CHECK_INTERVAL);
    }
    const digest = Buffer.alloc(DIGEST_BYTES);
    this.#functions!.final(digest, this.#functions!.state);
    return digest.toString('hex');
  }

  /** Ends the digest. The other thread may still finish its step; the next `begin` must come after that. */
  end(): void {
    Atomics.store(this.#words, Word.begun, 0);
  }

  #take(): boolean {
    return Atomics.compareExchange(this.#words, Word.computing, 0, 1) === 0;
  }

  #leave(): void {
    Atomics.store(this.#words, Word.computing, 0);
    Atomics.notify(this.#words, Word.computing);
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
      // This Node does not export OpenSSL's functions.
      return null;
    }
  }
}
