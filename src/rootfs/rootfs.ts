import type { Worker } from 'node:worker_threads';
import { printable } from '../errors.ts';
import { pathBytes } from '../sys/os-path.ts';
import { createRingDigest } from '../sys/ring-digest.ts';
import { ThreadCalls } from '../sys/thread-calls.ts';
import { startThread } from '../sys/threads.ts';
import type { Backend } from './confined-root.ts';
import type { RootMetadata } from './metadata.ts';
import { createFileJobs, forsakeFileJobs } from './file-jobs.ts';
import type { NotRestored } from './not-restored.ts';
import { RingWriter, createRing } from '../sys/ring.ts';
import type { RunOptions } from './run.ts';

export interface RootfsOptions extends Omit<RunOptions, 'name'> {
  /** Its name in messages: DIR as the user gave it; left out: its path. */
  readonly name?: string | undefined;
  /** Left out: libc where it can be called, else Node. */
  readonly backend?: Backend | undefined;
  /** For -g: a ring for the contents of all files and symlinks, for a ContentReader; `close` ends it. */
  readonly contents?: SharedArrayBuffer | undefined;
  /** With `contents`: gets records of a ChangeLog while the tree is being written. */
  readonly onChanges?: ((changes: Uint8Array) => void) | undefined;
  /** `DEVICE:INODE` that the directory must have; left out: any. */
  readonly expected?: string | undefined;
}

/** What the thread shares with this one, or with the decoder. */
export interface SharedMemory {
  /** Of a ring for tar bytes. */
  readonly ring: SharedArrayBuffer;
  /** The queue of FileJobs. */
  readonly jobs: SharedArrayBuffer;
  /** Of a RingDigest over the tar. */
  readonly digest: SharedArrayBuffer;
}

/** The data for the start of the thread. */
export interface ThreadData {
  readonly memory: SharedMemory;
  /** The root, as bytes: an existing directory. */
  readonly path: Uint8Array;
  readonly options: Omit<RootfsOptions, 'onChanges'> & RunOptions;
}

/** Commands to the thread, one at a time; it answers each. */
export type Command =
  | { readonly kind: 'open' }
  /** The bytes come through the ring. */
  | { readonly kind: 'layer'; readonly label: string }
  | { readonly kind: 'file'; readonly name: string; readonly bytes: Uint8Array }
  /** The last command of a successful run. */
  | { readonly kind: 'finish'; readonly root: RootMetadata | undefined }
  /** Remove all that is in the root, unless it held files of the user; nothing more comes after it. */
  | { readonly kind: 'discard' };

export interface OpenedRoot {
  readonly backend: Backend;
  /** Device and inode of the root. */
  readonly identity: string;
}

/** The answer to each kind of command. */
export interface Answers {
  readonly open: OpenedRoot;
  /** Entries of the archive. */
  readonly layer: number;
  readonly file: boolean;
  readonly finish: NotRestored;
  readonly discard: null;
}

/** With `contents`: records of a ChangeLog, all of a layer's before its answer. Else how many entries of the layer are written. */
export type Notice = { readonly changes: Uint8Array } | { readonly entries: number };

export interface ApplyOptions {
  /** What messages call the layer: `layer 0123456789ab`. */
  readonly label: string;
  readonly signal?: AbortSignal | undefined;
  /** Called about once a second with the number of entries that are written. */
  readonly onEntries?: ((entries: number) => void) | undefined;
}

/**
 * A root file system being written, in a thread of its own. One call at a time. After a call has failed, only `discard` can be called.
 */
export class Rootfs {
  readonly #thread: Worker;
  readonly #writer: RingWriter;
  /** With a decoder, its thread fills the ring and uses the rest. */
  readonly memory: SharedMemory = {
    ring: createRing(),
    jobs: createFileJobs(),
    digest: createRingDigest(),
  };
  readonly #calls: ThreadCalls<Command>;
  #onEntries: ApplyOptions['onEntries'];
  /** Of the root, as `DEVICE:INODE`. */
  identity = '';
  backend: Backend = 'node';

  private constructor(path: string, options: RootfsOptions) {
    const { memory } = this;
    const name = printable(options.name ?? path);
    const { onChanges, ...rest } = options;
    const data: ThreadData = { memory, path: pathBytes(path), options: { ...rest, name } };
    this.#writer = new RingWriter(memory.ring);
    this.#thread = startThread('rootfs', data);
    this.#thread.on('message', (message: Notice | object) => {
      if ('changes' in message) onChanges?.(message.changes);
      else if ('entries' in message) this.#onEntries?.(message.entries);
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
    return await this.applyFrom(async () => {
      for await (const chunk of tar) {
        if (!(await this.#writer.write(chunk))) break;
      }
      this.#writer.end();
    }, options);
  }

  /**
   * The same with a tar that another thread writes into `memory.ring`.
   *
   * @param fill has that thread do so; it resolves when the tar has ended and is right, or this thread takes no more of it
   */
  async applyFrom(fill: () => Promise<void>, options: ApplyOptions): Promise<number> {
    const { label, signal, onEntries } = options;
    signal?.throwIfAborted();
    this.#onEntries = onEntries;
    this.#writer.reopen();
    const result = this.#call({ kind: 'layer', label });
    const abort = (): void => this.#writer.abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      await fill();
    } catch (error) {
      this.#writer.abort();
      await this.#calls.settled;
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

  /** The thread that wrote into `memory.ring` has died: ends the current call, and waits for it no more. */
  forsake(): void {
    forsakeFileJobs(this.memory.jobs);
    this.#writer.abort();
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
    await this.#calls.settled;
    try {
      if (!this.#calls.isDead) await this.#call({ kind: 'discard' });
    } finally {
      await this.#thread.terminate();
    }
  }

  #call<Kind extends Command['kind']>(command: Command & { kind: Kind }): Promise<Answers[Kind]> {
    return this.#calls.call(command) as Promise<Answers[Kind]>;
  }
}
