import type { Worker } from 'node:worker_threads';
import { DestinationError, printable } from '../errors.ts';
import { pathBytes } from '../sys/os-path.ts';
import {
  fromFailure,
  type Answer,
  type Answers,
  type Backend,
  type Command,
  type LayerResult,
  type RootMetadata,
  type ThreadData,
  type Notice,
} from './messages.ts';
import { createFileJobs } from './file-jobs.ts';
import type { NotRestored } from './not-restored.ts';
import { RingWriter, createRing } from './ring.ts';
import { createTarDigest } from './tar-digest.ts';
import { spawnThread } from './spawn.ts';

export type { Backend, LayerResult, RootMetadata } from './messages.ts';
export { describeNotRestored } from './not-restored.ts';
export type { NotRestored } from './not-restored.ts';

export interface RootfsOptions {
  /**
   * What the directory is. `stage`: new and ours alone, locked against other runs. `empty`: it was there, without content.
   * `overlay`: it holds files of the user's.
   */
  readonly mode: 'stage' | 'empty' | 'overlay';
  /** What messages call it: DIR as the user knows it; left out: its path. */
  readonly name?: string | undefined;
  /** Left out: libc where it can be called, else Node. */
  readonly backend?: Backend | undefined;
  /** Names at the root that no layer may use, in any case: what would, fails. */
  readonly reservedNames?: readonly string[];
  /** Tell with each layer what it changed. */
  readonly recordChanges?: boolean;
  /** A ring that takes what all files and symlinks of layers hold, for a ContentReader; `close` ends it. */
  readonly contents?: SharedArrayBuffer | undefined;
  /** The stage holds lower layers, of an earlier run. */
  readonly hasLayers?: boolean;
  /** Files at its root that `writeLayerInfo` wrote then. */
  readonly ownFiles?: readonly string[];
  /** Nothing will be written: what is there is only to be removed. */
  readonly leftover?: boolean;
  /** `DEVICE:INODE` that the directory must have; left out: any. */
  readonly expected?: string | undefined;
}

export interface ApplyOptions {
  /** What messages call the layer: `layer 0123456789ab`. */
  readonly label: string;
  readonly signal?: AbortSignal | undefined;
  /** With `recordChanges`: gets the changes so far while the layer is being written; the rest is in the result. */
  readonly onChanges?: ((changes: Uint8Array) => void) | undefined;
}

/** Heap of the writing thread, in MiB: it keeps next to nothing, and young garbage only as long as it must. */
const resourceLimits = { maxYoungGenerationSizeMb: 2 };

/**
 * A root file system being written, in a thread of its own. One call at a time; after one has failed only `discard` is of use.
 */
export class Rootfs {
  readonly #thread: Worker;
  readonly #writer: RingWriter;
  readonly #options: RootfsOptions;
  /** The memory of the ring that tar bytes go through, and of FileJobs and of a TarDigest: for another thread that fills the one and serves the others. */
  readonly ring: SharedArrayBuffer = createRing();
  readonly jobs: SharedArrayBuffer = createFileJobs();
  readonly digest: SharedArrayBuffer = createTarDigest();
  #waiting: { resolve: (answer: Answer) => void; reject: (reason: Error) => void } | undefined;
  #lastCall: Promise<unknown> = Promise.resolve();
  #dead: Error | undefined;
  #onChanges: ((changes: Uint8Array) => void) | undefined;
  /** Of the root, as `DEVICE:INODE`. */
  identity = '';
  backend: Backend = 'node';

  private constructor(path: string, options: RootfsOptions) {
    const data: ThreadData = {
      ring: this.ring,
      jobs: this.jobs,
      digest: this.digest,
      path: pathBytes(path),
      options: {
        name: printable(options.name ?? path),
        mode: options.mode,
        reservedNames: (options.reservedNames ?? []).map((name) => name.toLowerCase()),
        recordChanges: options.recordChanges ?? false,
        hasLayers: options.hasLayers ?? false,
        ownFiles: options.ownFiles ?? [],
        leftover: options.leftover ?? false,
      },
      contents: options.contents,
      expected: options.expected,
      backend: options.backend,
      lock: options.mode === 'stage',
    };
    this.#options = options;
    this.#writer = new RingWriter(this.ring);
    this.#thread = spawnThread({ workerData: data, name: 'rootfs', resourceLimits });
    this.#thread.on('message', (message: Answer | Notice) => {
      if ('changes' in message) this.#onChanges?.(message.changes);
      else this.#waiting?.resolve(message);
    });
    this.#thread.on('error', (error) => this.#die(error));
    this.#thread.on('exit', (code) => this.#die(new Error(`the writing thread ended with code ${code}`)));
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
   * Applies a layer: the bytes of its uncompressed tar, in chunks of any size.
   *
   * @throws what `tar` throws; the signal's reason; IntegrityError for what the layer should not ask; DestinationError where the
   * system refuses
   */
  async apply(tar: AsyncIterable<Uint8Array>, options: ApplyOptions): Promise<LayerResult> {
    const { label, signal } = options;
    signal?.throwIfAborted();
    const told: Uint8Array[] = [];
    this.#onChanges = options.onChanges ?? ((changes) => told.push(changes));
    this.#writer.reopen();
    const result = this.#call({ kind: 'layer', label });
    // Its failure is awaited below, but may come before.
    result.catch(() => undefined);
    const abort = (): void => this.#writer.abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
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
      const { entries, changes } = await result;
      return { entries, changes: changes && Buffer.concat([...told, changes]) };
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  /**
   * Writes a file of ours at the root, in place of the one that an earlier call wrote. Returns false, and writes nothing, where the image
   * (or a user's directory) has something of that name that is not ours to replace.
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
    await this.#end();
    return counts;
  }

  /**
   * Stops what is being done, removes all that is in the root (but nothing from a directory with files of the user's), and ends the thread.
   * With a thread that has died nothing is removed.
   */
  async discard(): Promise<void> {
    this.#writer.abort();
    await this.#lastCall.catch(() => undefined);
    try {
      if (!this.#dead) await this.#call({ kind: this.#options.mode === 'overlay' ? 'close' : 'empty' });
    } finally {
      await this.#end();
    }
  }

  #call<Kind extends Command['kind']>(command: Command & { kind: Kind }): Promise<Answers[Kind]> {
    const answer = new Promise<Answer>((resolve, reject) => {
      if (this.#dead) reject(this.#dead);
      this.#waiting = { resolve, reject };
      this.#thread.postMessage(command, []);
    });
    const value = answer.then((settled) => {
      if ('failure' in settled) throw fromFailure(settled.failure);
      return settled.value as Answers[Kind];
    });
    this.#lastCall = value;
    return value;
  }

  #die(cause: Error): void {
    this.#dead ??= new DestinationError(`the thread that writes the files has died: ${cause.message}`, {
      code: 'THREAD_DIED',
      hint: 'run it again; if it dies again, report it with these lines',
      cause,
    });
    this.#writer.fail();
    this.#waiting?.reject(this.#dead);
  }

  async #end(): Promise<void> {
    await this.#thread.terminate();
  }
}
