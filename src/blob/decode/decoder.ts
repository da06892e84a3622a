import { createHash } from 'node:crypto';
import type { Worker } from 'node:worker_threads';
import type { Compression } from '../../oci/compression.ts';
import { algorithmOf, type DiffID } from '../../oci/digest.ts';
import { releaseFreeMemory } from '../../sys/native.ts';
import type { RingDigest } from '../../sys/ring-digest.ts';
import { createRing, RingAborted, type RingReader, RingWriter } from '../../sys/ring.ts';
import { type Reply, replyOf, ThreadCalls } from '../../sys/thread-calls.ts';
import { startThread } from '../../sys/threads.ts';
import { type ByteReader, MalformedDataError } from './byte-reader.ts';
import { type Engine, nativeDecoders, StepDecoder } from './engine.ts';

/** The thread that reads the tar from the ring. */
export interface TarReceiver {
  /** Memory that the decoder's thread gets too. It writes the tar into `ring`. */
  readonly memory: { readonly ring: SharedArrayBuffer };
  /** Called when the decoder's thread has died. */
  forsake(): void;
}

/** Data that the thread is started with. */
export interface DecoderData<Memory = TarReceiver['memory']> {
  /** A ring for compressed bytes. */
  readonly input: SharedArrayBuffer;
  readonly memory: Memory;
}

/** Messages to the thread. It replies to each blob once, after the reader of the tar is done with it. */
export type DecoderOrder =
  | { readonly compression: DecodedByThread; readonly expected: DiffID | undefined }
  /** The last message. */
  | 'end';

/** `left`: the tar is no longer wanted, or the blob is incomplete. */
export type Decoded = { readonly diffID: DiffID } | { readonly malformed: string } | 'left';

export type DecodedByThread = Extract<Compression, 'gzip' | 'zstd'>;

/** Total bytes of compressed layers from which on the thread saves more time than it costs. */
const WORTH_THREAD = 4 * 1024 * 1024;

/** Size of the ring for compressed bytes. */
const INPUT_CAPACITY = 1024 * 1024;
/** Number of bytes read from a blob at once. */
const READ_BYTES = 256 * 1024;

/**
 * A thread between a blob and the thread that writes files. It decodes the blob and computes the tar's
 * digest. While it is ahead it takes over part of the writing. It costs about 15 ms and 12 MiB.
 */
export class Decoder {
  readonly #thread: Worker;
  readonly #writer: RingWriter;
  readonly #calls: ThreadCalls<DecoderOrder>;

  constructor(receiver: TarReceiver) {
    const { memory } = receiver;
    const input = createRing(INPUT_CAPACITY);
    const output = new RingWriter(memory.ring);
    this.#writer = new RingWriter(input, () => output.ringBell());
    this.#thread = startThread('decoder', { input, memory } satisfies DecoderData);
    this.#calls = new ThreadCalls(this.#thread, 'decodes layers', () => {
      receiver.forsake();
      this.#writer.fail();
    });
  }

  /** True if a thread saves time for layers of these sizes, and C functions can be called. */
  static isWorth(layers: Iterable<{ readonly size?: number | undefined }>): boolean {
    let bytes = 0;
    for (const { size = 0 } of layers) bytes += size;
    return bytes >= WORTH_THREAD && nativeDecoders() !== null;
  }

  /** True for gzip and zstd, if C functions can be called. */
  takes(compression: Compression): compression is DecodedByThread {
    return (compression === 'gzip' || compression === 'zstd') && nativeDecoders() !== null;
  }

  /**
   * Writes the decoded blob into the ring. Resolves to the digest of the tar, or to undefined if the tar is
   * no longer wanted. In both cases the reader of the tar is done with it.
   *
   * @param expected the digest with which the caller compares the result. If it is set, checksums in the
   *   compressed data are not compared.
   * @throws MalformedDataError
   * @throws what `blob` throws
   */
  async decode(
    compression: DecodedByThread,
    blob: ByteReader,
    expected: DiffID | undefined,
  ): Promise<DiffID | undefined> {
    this.#writer.reopen();
    const reply = this.#calls.call({ compression, expected }) as Promise<Decoded>;
    try {
      await this.#feed(blob);
    } catch (error) {
      this.#writer.abort();
      // If the thread's reply is an error too, the blob's error is its cause.
      await this.#calls.settled;
      throw error;
    }
    const result = await reply;
    if (result === 'left') return undefined;
    if ('malformed' in result) throw new MalformedDataError(result.malformed);
    return result.diffID;
  }

  /** Ends the thread, also in the middle of a blob. */
  async discard(): Promise<void> {
    this.#writer.abort();
    // It does not use `terminate`: a thread that is loading a native library then takes the process with it.
    this.#thread.postMessage('end' satisfies DecoderOrder, []);
    await this.#calls.exit;
  }

  async #feed(blob: ByteReader): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (let count = await blob.read(buffer); count > 0; count = await blob.read(buffer)) {
      if (!(await this.#writer.write(buffer.subarray(0, count)))) return;
    }
    this.#writer.end();
  }
}

/** Most bytes decoded at once: they fit into the processor's cache until they are hashed. */
const STEP = 256 * 1024;
/** Least room for a step, in bytes. Many short steps cost more. */
const LEAST_STEP = 64 * 1024;
/** While the reader has at least this many bytes to read, jobs come first. */
const AHEAD = 1024 * 1024;
/** Number of jobs at once, before the thread checks for more urgent work. */
const JOBS = 16;
/** Most bytes that may wait for the other thread to hash them. Beyond that, this thread hashes them. */
const MAX_UNHASHED = 1024 * 1024;
const MAX_INPUT = 1024 * 1024;
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
export class DecoderWork {
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
  run({ compression, expected }: Exclude<DecoderOrder, 'end'>): Reply<Decoded> {
    this.#input.restart();
    this.#output.join();
    this.#jobs.begin();
    const reply = replyOf(() => this.#outcome(compression, expected));
    this.#digest.end();
    // If the tar has ended, this changes nothing.
    this.#output.abort();
    // The main thread writes no more of this blob.
    this.#input.fail();
    while (!this.#output.readerIsDone || this.#jobs.waiting > 0) {
      this.#work(() => this.#output.readerIsDone);
    }
    this.#jobs.end();
    return reply;
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
        const bytes = this.#input.poll(MAX_INPUT);
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
      if (!hash) this.#hash(MAX_UNHASHED);
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
