import type { Worker } from 'node:worker_threads';
import type { Compression } from '../../oci/compression.ts';
import type { DiffID } from '../../oci/digest.ts';
import { RingWriter, createRing } from '../../sys/ring.ts';
import { ThreadCalls } from '../../sys/thread-calls.ts';
import { startThread } from '../../sys/threads.ts';
import { type ByteReader, MalformedDataError } from './byte-reader.ts';
import { nativeDecoders } from './engine.ts';

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

/** Messages to the thread. It answers each blob once, after the reader of the tar is done with it. */
export type DecoderOrder =
  | { readonly compression: DecodedByThread; readonly expected: DiffID | undefined }
  /** The last message. */
  | 'end';

/** `left`: the tar is no longer wanted, or the blob is incomplete. */
export type Decoded = { readonly diffID: DiffID } | { readonly malformed: string } | 'left';

export type DecodedByThread = Extract<Compression, 'gzip' | 'zstd'>;

/** Size of the ring for compressed bytes. */
const INPUT_CAPACITY = 1024 * 1024;
/** Number of bytes read from a blob at once. */
const PIECE = 256 * 1024;

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
    const answer = this.#calls.call({ compression, expected }) as Promise<Decoded>;
    try {
      await this.#feed(blob);
    } catch (error) {
      this.#writer.abort();
      // If the thread's answer is an error too, the blob's error is its cause.
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
    // It does not use `terminate`: a thread that is loading a native library then takes the process with it.
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
}
