import type { Worker } from 'node:worker_threads';
import { printable } from '../errors.ts';
import { pathBytes } from '../sys/os-path.ts';
import { ThreadCalls } from '../sys/thread-calls.ts';
import { startThread } from '../sys/threads.ts';
import {
  deserializeError,
  type Answer,
  type Answers,
  type Backend,
  type Command,
  type RootMetadata,
  type RootfsOptions,
  type ThreadData,
  type Notice,
} from './messages.ts';
import { createFileJobs } from './file-jobs.ts';
import type { NotRestored } from './not-restored.ts';
import { RingWriter, createRing } from './ring.ts';
import { createTarDigest } from './tar-digest.ts';

export interface ApplyOptions {
  /** What messages call the layer: `layer 0123456789ab`. */
  readonly label: string;
  readonly signal?: AbortSignal | undefined;
  /** With `recordChanges`: gets the changes, lines of `composeLine`, while the layer is being written. */
  readonly onChanges?: ((changes: Uint8Array) => void) | undefined;
}

/**
 * A root file system being written, in a thread of its own. One call at a time. After a call has failed, only `discard` can be called.
 */
export class Rootfs {
  readonly #thread: Worker;
  readonly #writer: RingWriter;
  readonly #options: RootfsOptions;
  /** The memory of the ring for tar bytes, of FileJobs and of a TarDigest. Another thread fills the ring and uses the others. */
  readonly ring: SharedArrayBuffer = createRing();
  readonly jobs: SharedArrayBuffer = createFileJobs();
  readonly digest: SharedArrayBuffer = createTarDigest();
  readonly #calls: ThreadCalls<Command, Answer>;
  #lastCall: Promise<unknown> = Promise.resolve();
  #onChanges: ((changes: Uint8Array) => void) | undefined;
  /** Of the root, as `DEVICE:INODE`. */
  identity = '';
  backend: Backend = 'node';

  private constructor(path: string, options: RootfsOptions) {
    const { ring, jobs, digest } = this;
    const name = printable(options.name ?? path);
    const data: ThreadData = { ring, jobs, digest, path: pathBytes(path), options: { ...options, name } };
    this.#options = options;
    this.#writer = new RingWriter(this.ring);
    this.#thread = startThread('rootfs', data);
    this.#thread.on('message', (message: Answer | Notice) => {
      if ('changes' in message) this.#onChanges?.(message.changes);
      else this.#calls.answer(message);
    });
    this.#calls = new ThreadCalls(this.#thread, 'writes the files', () => this.#writer.fail());
  }

  /**
   * Opens an existing directory for writing.
   *
   * @throws DestinationError when it cannot be opened, or another run has it
   */
  static async open(path: string, options: RootfsOptions): Promise<Rootfs> {
    const rootfs = new Rootfs(path, options);
    try {
      const opened = await rootfs.#call({ kind: 'open' });
      rootfs.identity = opened.identity;
      rootfs.backend = opened.backend;
      return rootfs;
    } catch (error) {
      await rootfs.#thread.terminate();
      throw error;
    }
  }

  /**
   * Applies a layer: the bytes of its uncompressed tar, in chunks of any size. Returns how many entries it had.
   *
   * @throws what `tar` throws; the signal's reason; IntegrityError for an entry that no file system can hold; DestinationError where the
   * system refuses
   */
  async apply(tar: AsyncIterable<Uint8Array>, options: ApplyOptions): Promise<number> {
    const { label, signal } = options;
    signal?.throwIfAborted();
    this.#onChanges = options.onChanges;
    this.#writer.reopen();
    const result = this.#call({ kind: 'layer', label });
    // Its failure is awaited below, but may come before.
    result.catch(() => undefined);
    const abort = (): void => this.#writer.abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      // With a decoder `tar` yields nothing: the decoder's thread writes into the same ring.
      for await (const chunk of tar) {
        if (!(await this.#writer.write(chunk))) break;
      }
      this.#writer.end();
    } catch (error) {
      this.#writer.abort();
      await result.catch(() => undefined);
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
    try {
      return await result;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  /**
   * Writes dlrootfs's own file at the root, in place of the one that an earlier call wrote. Returns false, and writes nothing, where the
   * image (or a user's directory) has something of that name that must be kept.
   */
  async writeLayerInfo(name: 'json' | 'layersize', bytes: Uint8Array): Promise<boolean> {
    return this.#call({ kind: 'file', name, bytes });
  }

  /**
   * Sets the modes and times of all directories and ends the thread. Returns what could not be restored.
   *
   * @param root what the root is given when no layer has an entry for it; left out: it stays as it is
   */
  async close(root?: RootMetadata): Promise<NotRestored> {
    const counts = await this.#call({ kind: 'finish', root });
    await this.#thread.terminate();
    return counts;
  }

  /**
   * Stops the current call, removes all that is in the root, and ends the thread. From a directory with files of the user nothing is
   * removed, nor when the thread has died.
   */
  async discard(): Promise<void> {
    this.#writer.abort();
    await this.#lastCall.catch(() => undefined);
    try {
      if (!this.#calls.isDead)
        await this.#call({ kind: this.#options.mode === 'overlay' ? 'close' : 'empty' });
    } finally {
      await this.#thread.terminate();
    }
  }

  #call<Kind extends Command['kind']>(command: Command & { kind: Kind }): Promise<Answers[Kind]> {
    const value = this.#calls.call(command).then((answer) => {
      if ('failure' in answer) throw deserializeError(answer.failure);
      return answer.value as Answers[Kind];
    });
    this.#lastCall = value;
    return value;
  }
}
