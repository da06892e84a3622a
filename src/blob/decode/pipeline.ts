import { createHash } from 'node:crypto';
import { algorithmOf, type DiffID } from '../../oci/digest.ts';
import { releaseFreeMemory } from '../../sys/native.ts';
import type { RingDigest } from '../../sys/ring-digest.ts';
import { RingAborted, type RingReader, type RingWriter } from '../../sys/ring.ts';
import { type Answer, answerOf } from '../../sys/thread-calls.ts';
import { MalformedDataError } from './byte-reader.ts';
import type { Decoded, DecodedByThread, DecoderOrder } from './decoder.ts';
import { type Engine, nativeDecoders, StepDecoder } from './engine.ts';

/** Most bytes decoded at once: they fit into the processor's cache until they are hashed. */
const STEP = 256 * 1024;
/** Least room for a step, in bytes. Many short steps cost more. */
const LEAST_STEP = 64 * 1024;
/** While the reader has at least this many bytes to read, jobs come first. */
const AHEAD = 1024 * 1024;
/** Number of jobs at once, before the thread checks for more urgent work. */
const JOBS = 16;
/** Most bytes that may wait for the other thread to hash them. Beyond that, this thread hashes them. */
const MOST_UNHASHED = 1024 * 1024;
const MOST_INPUT = 1024 * 1024;
/**
 * Free memory is returned to the system after this many bytes. Otherwise 8 MiB or more of it stay allocated.
 */
const RELEASE_EVERY = 32 * 1024 * 1024;

/** Work for the reader of the tar, done while the thread waits for input or space. */
export interface Jobs {
  /** Allows the reader to hand over jobs. */
  begin(): void;
  /** Called after the reader has handed over its last job. */
  end(): void;
  /** Number of jobs that were handed over and are not done. */
  readonly waiting: number;
  /** Does up to `most` of them. */
  run(most: number): void;
  /** Position of the first byte in the ring that a job needs; undefined if none does. */
  firstNeeded(): number | undefined;
}

/**
 * The work of the decoder's thread: decodes blobs from one ring into another, one after another. It does jobs
 * while it waits.
 */
export class Pipeline {
  readonly #input: RingReader;
  readonly #output: RingWriter;
  readonly #jobs: Jobs;
  readonly #digest: RingDigest;
  readonly #native = nativeDecoders()!;
  readonly #engines = new Map<DecodedByThread, Engine>();

  constructor(input: RingReader, output: RingWriter, jobs: Jobs, digest: RingDigest) {
    this.#input = input;
    this.#output = output;
    this.#jobs = jobs;
    this.#digest = digest;
  }

  /**
   * Decodes one blob, and does jobs until the reader is done with the tar.
   *
   * @throws a bug in a job. The thread must then end, since the reader waits for that job.
   */
  run({ compression, expected }: Exclude<DecoderOrder, 'end'>): Answer<Decoded> {
    this.#input.restart();
    this.#output.join();
    this.#jobs.begin();
    const answer = answerOf(() => this.#outcome(compression, expected));
    this.#digest.end();
    // If the tar has ended, this changes nothing.
    this.#output.abort();
    this.#input.fail();
    while (!this.#output.readerIsDone || this.#jobs.waiting > 0) {
      this.#work(() => this.#output.readerIsDone);
    }
    this.#jobs.end();
    return answer;
  }

  #outcome(compression: DecodedByThread, expected: DiffID | undefined): Decoded {
    try {
      return this.#decode(compression, expected);
    } catch (error) {
      if (error instanceof RingAborted) return 'left';
      if (error instanceof MalformedDataError) return { malformed: error.message };
      throw error;
    }
  }

  #decode(compression: DecodedByThread, expected: DiffID | undefined): Decoded {
    const decoder = new StepDecoder(this.#engine(compression), expected === undefined);
    const algorithm = algorithmOf(expected);
    const hash =
      algorithm === 'sha256' && this.#digest.begin(this.#output.position) ? undefined : createHash(algorithm);
    let size = 0;
    let released = 0;
    for (;;) {
      if (!this.#output.open) return 'left';
      if (decoder.hungry) {
        const bytes = this.#input.poll(MOST_INPUT);
        if (bytes === undefined) break;
        if (bytes === 'none') {
          this.#work(() => this.#input.hasNews || !this.#output.open);
          continue;
        }
        decoder.feed(this.#native.locate(bytes));
      }
      const room = this.#room();
      if (!room) {
        this.#work(() => this.#room() !== undefined || !this.#output.open);
        continue;
      }
      const produced = decoder.step(this.#native.locate(room));
      hash?.update(room.subarray(0, produced));
      size += produced;
      this.#output.commit(produced);
      if (size - released >= RELEASE_EVERY) {
        releaseFreeMemory();
        released = size;
      }
      if (!hash) this.#hash(MOST_UNHASHED);
      if (this.#jobs.waiting > 0 && this.#output.unread >= AHEAD) this.#jobs.run(JOBS);
    }
    decoder.end();
    this.#output.end();
    const hexDigest = hash
      ? hash.digest('hex')
      : this.#digest.finish(this.#output.position, () => !this.#output.failed);
    return hexDigest === undefined ? 'left' : { diffID: `${algorithm}:${hexDigest}` as DiffID };
  }

  /** Returns free bytes of the ring for a step, in one piece; undefined while there are too few. */
  #room(): Uint8Array | undefined {
    const room = this.#output.reserve(STEP, () => this.#firstNeeded());
    // The piece at the end of the ring cannot get longer.
    const isLast = room.length > 0 && room.byteOffset + room.length === room.buffer.byteLength;
    return room.length >= LEAST_STEP || isLast ? room : undefined;
  }

  /** Position of the first byte in the ring that a job or the digest needs. */
  #firstNeeded(): number | undefined {
    const job = this.#jobs.firstNeeded();
    const unhashed = this.#digest.firstNeeded();
    if (job === undefined || unhashed === undefined) return job ?? unhashed;
    return ((job - unhashed) | 0) < 0 ? job : unhashed;
  }

  /**
   * Takes bytes into the digest until at most `rest` are left, or until the other thread takes them. Returns
   * true if it took any.
   */
  #hash(rest: number): boolean {
    const { position } = this.#output;
    for (let any = false; ; any = true) {
      const from = this.#digest.firstNeeded();
      if (from === undefined || ((position - from) | 0) <= rest) return any;
      if (this.#digest.step(position, STEP) === 0) return any;
    }
  }

  /** Does jobs or hashes bytes. If there are none, waits until a job comes or `ready` returns true. */
  #work(ready: () => boolean): void {
    if (this.#jobs.waiting > 0) this.#jobs.run(JOBS);
    else if (!this.#hash(0)) this.#output.waitForBell(() => this.#jobs.waiting > 0 || ready());
  }

  #engine(compression: DecodedByThread): Engine {
    const known = this.#engines.get(compression);
    if (known) return known;
    const engine = this.#native[compression]();
    this.#engines.set(compression, engine);
    return engine;
  }
}
