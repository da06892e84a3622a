import type { Worker } from 'node:worker_threads';
import { type ByteReader, MalformedDataError } from './blob/decode/byte-reader.ts';
import { nativeDecoders } from './blob/decode/engine.ts';
import type { RemoteDecoder } from './blob/queue.ts';
import type { Compression } from './oci/compression.ts';
import type { DiffID } from './oci/digest.ts';
import { forsakeFileJobs } from './rootfs/file-jobs.ts';
import { RingWriter, createRing } from './rootfs/ring.ts';
import type { SharedMemory } from './rootfs/rootfs.ts';
import { ThreadCalls } from './sys/thread-calls.ts';
import { startThread } from './sys/threads.ts';

/** What the thread is started with. */
export interface DecoderData {
  /** Compressed bytes come through it. */
  readonly input: SharedArrayBuffer;
  /** Of the thread that writes files. */
  readonly memory: SharedMemory;
}

/** Messages to the thread; it answers each blob once. */
export type DecoderOrder =
  | { readonly compression: Remote; readonly expected: DiffID | undefined }
  /** The last one. */
  | 'end';

/** `left`: the tar is no longer wanted, or the blob is incomplete. */
export type Decoded = { readonly diffID: DiffID } | { readonly malformed: string } | 'left';

export type Remote = Extract<Compression, 'gzip' | 'zstd'>;

/** Between this thread and the decoder, in bytes. */
const INPUT_CAPACITY = 1024 * 1024;
/** Read from a blob at once, in bytes. */
const PIECE = 256 * 1024;

/**
 * A thread between a blob and the thread that writes files: it decodes the blob, computes the tar's digest, and while it is ahead it takes over
 * part of the writing. It costs about 15 ms and 12 MiB.
 */
export class Decoder implements RemoteDecoder {
  readonly #thread: Worker;
  readonly #writer: RingWriter;
  readonly #output: RingWriter;
  readonly #jobs: SharedArrayBuffer;
  readonly #calls: ThreadCalls<DecoderOrder>;

  /** @param memory of the Rootfs that takes the tars */
  constructor(memory: SharedMemory) {
    this.#jobs = memory.jobs;
    this.#output = new RingWriter(memory.ring);
    const input = createRing(INPUT_CAPACITY);
    this.#writer = new RingWriter(input, () => this.#output.wakeWriter());
    this.#thread = startThread('decoder', { input, memory } satisfies DecoderData);
    this.#calls = new ThreadCalls(this.#thread, 'decodes layers', () => this.#forsake());
  }

  decode(
    compression: Compression,
    blob: ByteReader,
    expected: DiffID | undefined,
  ): Promise<DiffID | undefined> | undefined {
    const isKnown = compression === 'gzip' || compression === 'zstd';
    return isKnown && nativeDecoders() ? this.#decode({ compression, expected }, blob) : undefined;
  }

  async #decode(order: Exclude<DecoderOrder, 'end'>, blob: ByteReader): Promise<DiffID | undefined> {
    this.#writer.reopen();
    const answer = this.#calls.call(order) as Promise<Decoded>;
    try {
      await this.#feed(blob);
    } catch (error) {
      this.#writer.abort();
      // The reason why the blob ended is the one to report.
      await this.#calls.settled;
      throw error;
    }
    const result = await answer;
    if (result === 'left') return undefined;
    if ('malformed' in result) throw new MalformedDataError(result.malformed);
    return result.diffID;
  }

  /** Ends the thread, also in the middle of a blob. */
  async discard(): Promise<void> {
    this.#writer.abort();
    // Not by `terminate`: a thread that is loading a native library then takes the process with it.
    this.#thread.postMessage('end' satisfies DecoderOrder, []);
    await this.#calls.exit;
  }

  async #feed(blob: ByteReader): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(PIECE);
    for (let count = await blob.read(buffer); count > 0; count = await blob.read(buffer)) {
      if (!(await this.#writer.write(buffer.subarray(0, count)))) return;
    }
    this.#writer.end();
  }

  /** The thread has ended: the others must not wait for it. */
  #forsake(): void {
    forsakeFileJobs(this.#jobs);
    this.#output.abort();
    this.#output.wakeReader();
    this.#writer.fail();
  }
}
