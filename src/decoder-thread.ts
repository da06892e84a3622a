import { createHash } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { type Engine, type NativeDecoders, nativeDecoders, StepDecoder } from './blob/decode/engine.ts';
import { MalformedDataError } from './blob/decode/byte-reader.ts';
import type { Decoded, DecoderData, DecoderOrder, Remote } from './decoder.ts';
import { algorithmOf, type DiffID, type DigestAlgorithm } from './oci/digest.ts';
import { FileJobRunner } from './rootfs/file-jobs.ts';
import { LinuxFilesystem } from './rootfs/linux.ts';
import { RingAborted, RingReader, RingWriter } from './rootfs/ring.ts';
import { TarDigest } from './rootfs/tar-digest.ts';
import { releaseFreeMemory } from './sys/native.ts';
import { systemCalls } from './sys/system-calls.ts';
import { type Answer, answerOf } from './sys/thread-calls.ts';

/** Decoded at once, in bytes: what the processor's cache holds while it is hashed. */
const STEP = 256 * 1024;
/** The least room for a step, in bytes: many short steps cost more. */
const LEAST_STEP = 64 * 1024;
/** While the reader has at least this many bytes to read, jobs come first. */
const AHEAD = 1024 * 1024;
/** Jobs at once, before the thread checks again for more urgent work. */
const JOBS = 16;
/** This many bytes may wait for the other thread to hash them. Beyond it, this thread hashes them. */
const MOST_UNHASHED = 1024 * 1024;
const MOST_INPUT = 1024 * 1024;
/** Free memory is returned to the system after this many bytes. Otherwise 8 MiB or more of it stay allocated. */
const RELEASE_EVERY = 32 * 1024 * 1024;

/** Decodes blobs into the ring, one after another; in between it does the jobs of FileJobs. */
class Pipeline {
  readonly #input: RingReader;
  readonly #output: RingWriter;
  readonly #jobs: FileJobRunner;
  readonly #digest: TarDigest;
  readonly #native: NativeDecoders;
  readonly #engines = new Map<Remote, Engine>();

  constructor({ input, memory }: DecoderData) {
    this.#input = new RingReader(input);
    this.#output = new RingWriter(memory.ring);
    this.#digest = new TarDigest(memory.digest, this.#output.bytes);
    this.#native = nativeDecoders()!;
    this.#jobs = new FileJobRunner(
      memory.jobs,
      this.#output.bytes,
      LinuxFilesystem.ofOpenFiles(systemCalls()!),
    );
  }

  /** Answers as soon as all is decoded, then does jobs until the reader is done with the tar. */
  run(
    { compression, expected }: Exclude<DecoderOrder, 'end'>,
    answer: (answer: Answer<Decoded>) => void,
  ): void {
    this.#input.restart();
    this.#output.join();
    this.#jobs.begin(this.#output.stream);
    const result = answerOf(() => this.#outcome(compression, expected));
    this.#digest.end();
    // Before the answer: the next stream may begin right after it.
    this.#input.fail();
    answer(result);
    while (this.#output.isRead) this.#work(() => !this.#output.isRead);
  }

  #outcome(compression: Remote, expected: DiffID | undefined): Decoded {
    try {
      const decoder = new StepDecoder(this.#engine(compression), expected === undefined);
      return this.#decode(decoder, algorithmOf(expected));
    } catch (error) {
      if (error instanceof RingAborted) return 'left';
      if (error instanceof MalformedDataError) return { malformed: error.message };
      throw error;
    }
  }

  #decode(decoder: StepDecoder, algorithm: DigestAlgorithm): Decoded {
    const { stream, position } = this.#output;
    const hash =
      algorithm === 'sha256' && this.#digest.begin(stream, position) ? undefined : createHash(algorithm);
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
      const room = this.#output.reserve(STEP, this.#firstNeeded);
      if (room.length < LEAST_STEP && !this.#isLastPiece(room)) {
        this.#work(() => this.#hasRoom() || !this.#output.open);
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
      if (this.#jobs.waiting > 0 && this.#output.unread >= AHEAD) this.#runJobs();
    }
    decoder.end();
    const hexDigest = hash
      ? hash.digest('hex')
      : this.#digest.finish(stream, this.#output.position, () => this.#output.open);
    return hexDigest === undefined ? 'left' : { diffID: `${algorithm}:${hexDigest}` as DiffID };
  }

  /** Takes bytes into the digest until at most `rest` are left, or the other thread is computing it. Returns whether it took any. */
  #hash(rest: number): boolean {
    let any = false;
    for (;;) {
      const { stream, position } = this.#output;
      const from = this.#digest.firstNeeded;
      if (from === undefined || ((position - from) | 0) <= rest) return any;
      if (this.#digest.step(stream, position, STEP) === 0) return any;
      any = true;
    }
  }

  /** Position of the first byte in the ring that a job or the digest needs. */
  readonly #firstNeeded = (): number | undefined => {
    const job = this.#jobs.firstNeeded();
    const unhashed = this.#digest.firstNeeded;
    if (job === undefined || unhashed === undefined) return job ?? unhashed;
    return ((job - unhashed) | 0) < 0 ? job : unhashed;
  };

  #hasRoom(): boolean {
    const room = this.#output.reserve(STEP, this.#firstNeeded);
    return room.length >= LEAST_STEP || this.#isLastPiece(room);
  }

  /** The piece ends where the ring does: it does not get longer. */
  #isLastPiece(room: Uint8Array): boolean {
    return room.length > 0 && room.byteOffset + room.length === room.buffer.byteLength;
  }

  /** Does jobs, or waits until there are some or `ready`. */
  #work(ready: () => boolean): void {
    if (this.#jobs.waiting > 0) this.#runJobs();
    else if (!this.#hash(0)) this.#output.waitUnless(() => this.#jobs.waiting > 0 || ready());
  }

  /** The other thread may wait for the last job, while the ring is full and this thread waits for it. */
  #runJobs(): void {
    this.#jobs.run(JOBS);
    if (this.#jobs.waiting === 0) this.#output.wakeReader();
  }

  #engine(compression: Remote): Engine {
    const known = this.#engines.get(compression);
    if (known) return known;
    const engine = this.#native[compression]();
    this.#engines.set(compression, engine);
    return engine;
  }
}

// Entry point of the decoder thread, which runs while large layers are unpacked.
const port = parentPort!;
const pipeline = new Pipeline(workerData as DecoderData);
port.on('message', (order: DecoderOrder) => {
  if (order === 'end') port.close();
  else pipeline.run(order, (answer) => port.postMessage(answer));
});
