import type { Worker } from 'node:worker_threads';
import { type ByteReader, MalformedDataError } from './blob/decode/byte-reader.ts';
import { nativeDecoders } from './blob/decode/engine.ts';
import type { RemoteDecoder } from './blob/pulled-layer.ts';
import type { Compression } from './oci/compression.ts';
import type { DiffID } from './oci/digest.ts';
import { forsakeFileJobs } from './rootfs/file-jobs.ts';
import { type SerializedError, deserializeError } from './rootfs/messages.ts';
import { RingWriter, createRing } from './rootfs/ring.ts';
import type { Rootfs } from './rootfs/rootfs.ts';
import { ThreadCalls } from './sys/thread-calls.ts';
import { startThread } from './sys/threads.ts';

/** What the thread is started with. */
export interface DecoderData {
  /** Compressed bytes come through it. */
  readonly input: SharedArrayBuffer;
  /** Tar bytes go through it to the thread that writes files. */
  readonly output: SharedArrayBuffer;
  /** The queue of FileJobs. */
  readonly jobs: SharedArrayBuffer;
  /** The memory of a TarDigest. */
  readonly digest: SharedArrayBuffer;
}

/** Messages to the thread; it answers each blob once. */
export type DecoderOrder =
  | { readonly compression: Remote; readonly expected: DiffID | undefined }
  /** The last one. */
  | 'end';

export type DecoderAnswer =
  | { readonly diffID: DiffID }
  /** The tar is no longer wanted, or the blob is incomplete. */
  | 'left'
  | { readonly malformed: string }
  | { readonly failure: SerializedError };

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
  readonly #input: SharedArrayBuffer = createRing(INPUT_CAPACITY);
  readonly #writer: RingWriter;
  readonly #output: RingWriter;
  readonly #jobs: SharedArrayBuffer;
  readonly #exit = Promise.withResolvers<void>();
  readonly #calls: ThreadCalls<DecoderOrder, DecoderAnswer>;
  #ends = false;

  /** @param rootfs takes the tars */
  constructor({ ring, jobs, digest }: Pick<Rootfs, 'ring' | 'jobs' | 'digest'>) {
    this.#jobs = jobs;
    this.#output = new RingWriter(ring);
    this.#writer = new RingWriter(this.#input, () => this.#output.wakeWriter());
    const data: DecoderData = { input: this.#input, output: ring, jobs, digest };
    this.#thread = startThread('decoder', data);
    this.#thread.on('message', (answer: DecoderAnswer) => this.#calls.answer(answer));
    this.#thread.on('exit', () => this.#exit.resolve());
    this.#calls = new ThreadCalls(this.#thread, 'decodes layers', () => this.#forsake());
  }

  handles(compression: Compression): compression is Remote {
    return (compression === 'gzip' || compression === 'zstd') && nativeDecoders() !== undefined;
  }

  async decode(
    compression: Compression,
    blob: ByteReader,
    expected: DiffID | undefined,
  ): Promise<DiffID | undefined> {
    if (!this.handles(compression)) throw new Error(`the decoder does not know ${compression}`);
    this.#writer.reopen();
    const answer = this.#calls.call({ compression, expected });
    // Its failure is awaited below, but may come before.
    answer.catch(() => undefined);
    try {
      await this.#feed(blob);
    } catch (error) {
      this.#writer.abort();
      // The reason why the blob ended is the one to report.
      await answer.catch(() => undefined);
      throw error;
    }
    const result = await answer;
    if (result === 'left') return undefined;
    if ('malformed' in result) throw new MalformedDataError(result.malformed);
    if ('failure' in result) throw deserializeError(result.failure);
    return result.diffID;
  }

  /** Ends the thread, also in the middle of a blob. */
  async discard(): Promise<void> {
    this.#writer.abort();
    this.#ends = true;
    // Not by `terminate`: a thread that is loading a native library then takes the process with it.
    this.#thread.postMessage('end' satisfies DecoderOrder, []);
    await this.#exit.promise;
  }

  async #feed(blob: ByteReader): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(PIECE);
    for (let count = await blob.read(buffer); count > 0; count = await blob.read(buffer)) {
      if (!(await this.#writer.write(buffer.subarray(0, count)))) return;
    }
    this.#writer.end();
  }

  /** The thread has died: the others must not wait for it. */
  #forsake(): void {
    if (this.#ends) return;
    forsakeFileJobs(this.#jobs);
    this.#output.abort();
    this.#output.wakeReader();
    this.#writer.fail();
  }
}
