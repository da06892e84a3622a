import type { Worker } from 'node:worker_threads';
import { GitError } from '../errors.ts';
import type { SerializedError } from '../sys/thread-calls.ts';
import { RingWriter, createRing } from '../sys/ring.ts';
import { startThread } from '../sys/threads.ts';
import type { FileRecords } from './file-records.ts';
import { outOfStep } from './git-error.ts';
import { ID_BYTES } from './trees.ts';

/** The `workerData` of the thread. */
export interface PackerData {
  readonly ring: SharedArrayBuffer;
  /** `objects/pack` of the repository. */
  readonly directory: string;
}

/** Ids of the blobs of contents from number `first` on, `ID_BYTES` bytes each. */
export interface PackedIds {
  readonly first: number;
  readonly ids: Uint8Array;
}

export type PackerMessage = PackedIds | { readonly failure: SerializedError } | 'done';

/**
 * Runs the thread that makes blobs of files and symlinks while these are written. It receives their contents
 * through a ring, so that no file is read back from the disk, and sends back the ids.
 */
export class Packer {
  /** For `RootfsOptions.contents`. */
  readonly ring: SharedArrayBuffer = createRing();
  /** Fulfilled when git sees all blobs, after `Rootfs.close`; rejected with a GitError. */
  readonly finished: Promise<void>;
  readonly #ringEnd = new RingWriter(this.ring);
  readonly #exit = Promise.withResolvers<void>();
  readonly #records: FileRecords;
  /** Contents that have their ids. */
  #count = 0;
  #waiting: { readonly count: number; readonly resolve: () => void } | undefined;

  /**
   * @param directory `objects/pack` of the repository
   * @param records receive the ids
   */
  constructor(directory: string, records: FileRecords) {
    this.#records = records;
    const data: PackerData = { ring: this.ring, directory };
    const thread: Worker = startThread('packer', data);
    this.finished = new Promise((resolve, reject) => {
      thread.on('message', (message: PackerMessage) => {
        if (message === 'done') resolve();
        else if ('failure' in message) reject(new GitError(message.failure.message, message.failure));
        else if (message.first === this.#count) this.#take(message.ids);
        else reject(outOfStep(message.first, this.#count));
      });
      const die = (what: string, cause?: Error): void => {
        reject(new GitError(`the thread that packs for git ${what}`, { code: 'THREAD_DIED', cause }));
        this.#ringEnd.fail();
      };
      thread.on('error', (error) => die(`has died: ${error.message}`, error));
      thread.on('exit', (code) => {
        die(`ended with code ${code}`);
        this.#exit.resolve();
      });
    });
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.finished.catch(() => undefined);
  }

  /** Contents that have their ids. */
  get count(): number {
    return this.#count;
  }

  /**
   * Waits until the first `count` contents have their ids.
   *
   * @throws as `finished`
   */
  async named(count: number): Promise<void> {
    if (this.#count >= count) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting = { count, resolve };
    // Finished without them: the other thread never sent these contents.
    this.finished.then(() => reject(outOfStep(this.#count, count)), reject);
    await promise;
  }

  #take(ids: Uint8Array): void {
    const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.length);
    for (let at = 0; at < bytes.length; at += ID_BYTES) {
      this.#records.setId(this.#count, bytes, at);
      this.#count += 1;
    }
    if (this.#waiting && this.#count >= this.#waiting.count) this.#waiting.resolve();
  }

  /** Returns the cause of an error of the rootfs: the packer's own error, if it failed. */
  async explainFailure(error: unknown): Promise<unknown> {
    if (!this.#ringEnd.failed) return error;
    return this.finished.then(
      () => error,
      (reason: unknown) => reason,
    );
  }

  /** Stops the thread, and waits for its end. Writers of the ring get an error. */
  async discard(): Promise<void> {
    // Not `terminate`: it crashes the process while the thread loads a native library.
    this.#ringEnd.abort();
    await this.#exit.promise;
  }
}
