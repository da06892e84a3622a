import type { Worker } from 'node:worker_threads';
import { printable } from '../errors.ts';
import type { Confinement } from '../sys/landlock.ts';
import { pathBytes } from '../sys/os-path.ts';
import { createRingDigest } from '../sys/ring-digest.ts';
import { ThreadCalls } from '../sys/thread-calls.ts';
import { startThread } from '../sys/threads.ts';
import type { Backend } from './confined-root.ts';
import type { RootMetadata } from './directory-metadata.ts';
import { createFileJobs, forsakeFileJobs } from './file-jobs.ts';
import type { NotRestored } from './not-restored.ts';
import { RingWriter, createRing } from '../sys/ring.ts';
import type { RunOptions } from './run.ts';

export interface RootfsOptions extends Omit<RunOptions, 'name'> {
  /** Name in messages: DIR as the user gave it. Left out: the path. */
  readonly name?: string | undefined;
  /** Left out: libc if it can be called, else Node. */
  readonly backend?: Backend | undefined;
  /**
   * A ring for the contents of all files and symlinks, read by a ContentReader; `close` ends it. Used for -g.
   */
  readonly contents?: SharedArrayBuffer | undefined;
  /** Called with records of a ChangeLog while the tree is written, if `contents` is set. */
  readonly onChanges?: ((changes: Uint8Array) => void) | undefined;
  /** Device and inode that the directory must have, as `DEVICE:INODE`. Left out: any. */
  readonly expected?: string | undefined;
}

/** Memory that the thread shares with this one and with the decoder's thread. */
export interface SharedMemory {
  /** A ring for tar bytes. */
  readonly ring: SharedArrayBuffer;
  /** A queue for FileJobs. */
  readonly jobs: SharedArrayBuffer;
  /** The digest of the tar, for RingDigest. */
  readonly digest: SharedArrayBuffer;
}

/** Data that the thread is started with. */
export interface ThreadData {
  readonly memory: SharedMemory;
  /** Path of the root, an existing directory. */
  readonly path: Uint8Array;
  readonly options: Omit<RootfsOptions, 'onChanges'> & RunOptions;
}

/** Orders to the thread, one at a time; it replies to each. */
export type RootfsOrder =
  | { readonly kind: 'open' }
  /** The bytes come through the ring. */
  | { readonly kind: 'layer'; readonly label: string }
  | { readonly kind: 'file'; readonly name: string; readonly bytes: Uint8Array }
  /** The last order of a successful run. */
  | { readonly kind: 'finish'; readonly root: RootMetadata | undefined }
  /** Removes all that is in the root, unless it held files of the user. No order follows. */
  | { readonly kind: 'discard' };

export interface OpenedRoot {
  readonly backend: Backend;
  /** Device and inode of the root. */
  readonly identity: string;
  /** Of the thread, to what is beneath the root. */
  readonly confinement: Confinement;
}

/** The reply to each kind of order. */
export interface Replies {
  readonly open: OpenedRoot;
  /** Entries of the archive. */
  readonly layer: number;
  readonly file: boolean;
  readonly finish: NotRestored;
  readonly discard: null;
}

/**
 * A message before the reply: the number of entries written so far, or, if `contents` is set, records of a
 * ChangeLog. All records of a layer are sent before its reply.
 */
export type Notice = { readonly changes: Uint8Array } | { readonly entries: number };

export interface ApplyOptions {
  /** Name of the layer in messages: `layer 0123456789ab`. */
  readonly label: string;
  readonly signal?: AbortSignal | undefined;
  /** Called about once a second with the number of entries that are written. */
  readonly onEntries?: ((entries: number) => void) | undefined;
}

/**
 * A root file system that a thread of its own writes. One call at a time.
 * After a call has failed, only `discard` can be called.
 */
export class Rootfs {
  readonly #thread: Worker;
  /** Opens each stream of the ring, and aborts it. Without a decoder it also writes the tar. */
  readonly #writer: RingWriter;
  /**
   * Shared with the decoder's thread too, if there is one: it writes the tar, does the jobs and finishes the
   * digest.
   */
  readonly memory: SharedMemory = {
    ring: createRing(),
    jobs: createFileJobs(),
    digest: createRingDigest(),
  };
  readonly #calls: ThreadCalls<RootfsOrder>;
  #onEntries: ApplyOptions['onEntries'];
  /** Device and inode of the root, as `DEVICE:INODE`. */
  identity = '';
  backend: Backend = 'node';
  /** Of the thread, to what is beneath the root. */
  confinement: Confinement = { reason: 'it is not open' };

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
      rootfs.confinement = opened.confinement;
      return rootfs;
    } catch (error) {
      await rootfs.#thread.terminate();
      throw error;
    }
  }

  /**
   * Applies a layer: the bytes of its uncompressed tar, in chunks of any size. Returns the number of its
   * entries.
   *
   * @throws what `tar` throws
   * @throws the signal's reason
   * @throws IntegrityError for an entry that no file system can hold
   * @throws DestinationError if the system refuses
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
   * Applies a layer whose tar another thread writes into `memory.ring`. Returns the number of its entries.
   *
   * @param fill starts that thread's work. It resolves when the tar is complete and right, or when its reader
   *   takes no more of it.
   * @throws what `fill` throws, and as `apply`
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

  /**
   * Ends the current call after the thread that wrote into `memory.ring` has died. From then on nothing waits
   * for that thread.
   */
  forsake(): void {
    forsakeFileJobs(this.memory.jobs);
    this.#writer.abort();
  }

  /**
   * Writes dlrootfs's own file at the root, in place of the one that an earlier call wrote.
   * Returns false, and writes nothing, if the image or a user's directory has another file of that name.
   */
  async writeLayerInfo(name: 'json' | 'layersize', bytes: Uint8Array): Promise<boolean> {
    return this.#call({ kind: 'file', name, bytes });
  }

  /**
   * Sets the modes and times of all directories and ends the thread. Returns what could not be restored.
   *
   * @param root metadata for the root if no layer has an entry for it. Left out: it stays as it is.
   */
  async close(root?: RootMetadata): Promise<NotRestored> {
    const counts = await this.#call({ kind: 'finish', root });
    await this.#thread.terminate();
    return counts;
  }

  /**
   * Stops the current call, or waits for it if its tar has ended; then removes all that is in the root, and
   * ends the thread. Nothing is removed from a directory with files of the user, nor after the thread has
   * died.
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

  #call<Kind extends RootfsOrder['kind']>(order: RootfsOrder & { kind: Kind }): Promise<Replies[Kind]> {
    return this.#calls.call(order) as Promise<Replies[Kind]>;
  }
}
