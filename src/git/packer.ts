import type { Worker } from 'node:worker_threads';
import { GitError } from '../errors.ts';
import type { SerializedError } from '../sys/thread-calls.ts';
import { RingWriter, createRing } from '../rootfs/ring.ts';
import { startThread } from '../sys/threads.ts';
import type { Inode } from './inodes.ts';
import type { RootfsState } from './rootfs-state.ts';
import { ID_SIZE } from './trees.ts';

/** What the thread is started with. */
export interface PackerData {
  readonly ring: SharedArrayBuffer;
  /** `objects/pack` of the repository. */
  readonly directory: string;
}

export type PackerMessage = { readonly ids: Uint8Array } | { readonly failure: SerializedError } | 'done';

/**
 * The thread that makes git's blobs of files and symlinks while they are being written. It gets their contents through a ring, so that
 * no file is read back from the disk. The names of the blobs come back in the same order.
 */
export class Packer {
  /** For `RootfsOptions.contents`. */
  readonly ring: SharedArrayBuffer = createRing();
  /** Fulfilled when git sees all blobs, which takes `Rootfs.close`; rejected with a GitError. */
  readonly finished: Promise<void>;
  readonly #ringEnd = new RingWriter(this.ring);
  readonly #exit = Promise.withResolvers<void>();
  readonly #state: RootfsState;
  /** Numbers of inodes, of which the first ones have their names. */
  #waiting: number[] = [];
  #named = 0;
  /** Names that came early, `ID_SIZE` bytes each. */
  #ids: Uint8Array[] = [];
  #allNamed: (() => void) | undefined;

  /**
   * @param directory `objects/pack` of the repository
   * @param state whose inodes get the names of their blobs
   */
  constructor(directory: string, state: RootfsState) {
    this.#state = state;
    const data: PackerData = { ring: this.ring, directory };
    const thread: Worker = startThread('packer', data);
    this.finished = new Promise((resolve, reject) => {
      thread.on('message', (message: PackerMessage) => {
        if (message === 'done') resolve();
        else if ('ids' in message) {
          this.#ids.push(message.ids);
          this.#match();
        } else reject(new GitError(message.failure.message, message.failure));
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

  /** The inode whose content is the next one. */
  expect({ number }: Inode): void {
    this.#waiting.push(number);
  }

  /**
   * Waits until all have their names.
   *
   * @throws as `finished`
   */
  async allNamed(): Promise<void> {
    this.#match();
    if (this.#waiting.length === 0) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#allNamed = resolve;
    this.finished.catch(reject);
    await promise;
  }

  #match(): void {
    for (const ids of this.#ids.splice(0)) {
      const count = Math.min(ids.length / ID_SIZE, this.#waiting.length - this.#named);
      const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.length);
      for (let number = 0; number < count; number += 1) {
        this.#state.get(this.#waiting[this.#named + number]!).setId(bytes, number * ID_SIZE);
      }
      this.#named += count;
      if (count * ID_SIZE < ids.length) this.#ids.push(ids.subarray(count * ID_SIZE));
    }
    if (this.#named < this.#waiting.length) return;
    this.#waiting = [];
    this.#named = 0;
    this.#allNamed?.();
  }

  /** The cause of an error of the rootfs: the packer's own error, if it has failed. */
  async explainFailure(error: unknown): Promise<unknown> {
    if (!this.#ringEnd.failed) return error;
    return this.finished.then(
      () => error,
      (reason: unknown) => reason,
    );
  }

  /** Stops the thread, and waits for its end. Writers of the ring get an error. */
  async discard(): Promise<void> {
    // Not by `terminate`: a thread that is loading a native library then takes the process with it.
    this.#ringEnd.abort();
    await this.#exit.promise;
  }
}
