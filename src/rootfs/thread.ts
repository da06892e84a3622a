import { constants } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { ANOTHER_DIRECTORY, DestinationError } from '../errors.ts';
import { giveUpWriting } from '../sys/landlock.ts';
import { hasErrno } from '../sys/os-error.ts';
import { RingDigest } from '../sys/ring-digest.ts';
import { replyOf } from '../sys/thread-calls.ts';
import { TarReader } from '../tar/reader.ts';
import { applyLayer, startRun } from './apply.ts';
import { openFilesystem } from './confined-root.ts';
import { ChangeLog } from './changes.ts';
import { ContentWriter } from './contents.ts';
import { FileJobs } from './file-jobs.ts';
import { explained, granted } from './filesystem.ts';
import { finishRun, type RootMetadata } from './directory-metadata.ts';
import type { LinuxFilesystem } from './linux.ts';
import { writeOwnFile } from './place.ts';
import { PortableFilesystem } from './portable.ts';
import { empty } from './removal.ts';
import { RingReader } from '../sys/ring.ts';
import type { Notice, OpenedRoot, Replies, RootfsOrder, ThreadData } from './rootfs.ts';
import type { Run } from './run.ts';

const { EACCES, ENOSYS } = constants.errno;

/** Most bytes read from the ring at once to discard them. */
const DRAIN_BYTES = 1024 * 1024;
/** Milliseconds between two notices about entries, and entries between two reads of the clock. */
const TELL_MILLISECONDS = 1000;
const ENTRIES_PER_LOOK = 128;

/** The hint where the kernel denies what the modes of directories allow. */
const DENIED_HINT =
  'see whether SELinux, AppArmor or a network disk denies it (dmesg); if none does, report it: ' +
  'the image may have tried to leave DIR, which Landlock prevents';

/** Bytes hashed at once, in about 0.1 ms. */
const HASH_BYTES = 128 * 1024;

/** Sends a notice, and transfers buffers with it. */
type Tell = (notice: Notice, moved?: readonly ArrayBuffer[]) => void;

/** The work of the thread `rootfs`, the reader of the tar's ring: opens the root and executes the orders. */
class RootfsWork {
  readonly #data: ThreadData;
  readonly #source: RingReader;
  /** Name of the root in messages. */
  readonly #name: string;
  readonly #changes: ChangeLog | undefined;
  readonly #tell: Tell;
  readonly #digest: RingDigest;
  #run: Run | undefined;
  /** Landlock binds the thread. */
  #isConfined = false;

  constructor(data: ThreadData, tell: Tell) {
    this.#data = data;
    this.#tell = tell;
    this.#source = new RingReader(data.memory.ring);
    this.#digest = new RingDigest(data.memory.digest, this.#source.bytes);
    this.#name = data.options.name;
    const { contents } = data.options;
    this.#changes =
      contents &&
      new ChangeLog(new ContentWriter(contents), (changes) => tell({ changes }, [changes.buffer]));
  }

  /** @throws DlrootfsError; RingAborted if the main thread has aborted */
  obey(order: RootfsOrder): Replies[RootfsOrder['kind']] {
    try {
      return explained(undefined, this.#name, () => this.#obey(order));
    } catch (error) {
      throw this.#withDenial(error);
    }
  }

  /**
   * Replaces the hint of EACCES in a rootfs that this run has made: its directories are the caller's, so
   * their modes deny nothing.
   */
  #withDenial(error: unknown): unknown {
    const isNew = this.#data.options.mode === 'stage';
    if (!this.#isConfined || !isNew || !(error instanceof DestinationError)) return error;
    return hasErrno(error.cause, EACCES) ? error.withHint(DENIED_HINT) : error;
  }

  #obey(order: RootfsOrder): Replies[RootfsOrder['kind']] {
    if (order.kind === 'open') return this.#open();
    const run = this.#run;
    if (!run) throw new DestinationError(`${this.#name} is not open`);
    switch (order.kind) {
      case 'layer':
        return this.#layer(run, order.label);
      case 'file':
        return this.#ownFile(run, order.name, order.bytes);
      case 'finish':
        return this.#finish(run, order.root);
      default:
        return this.#discard(run);
    }
  }

  #ownFile(run: Run, name: string, bytes: Uint8Array): boolean {
    const isWritten = writeOwnFile(run, name, bytes);
    this.#changes?.flush();
    return isWritten;
  }

  /** If it fails, the run stays open, so that the written files can still be removed. */
  #finish(run: Run, root: RootMetadata | undefined): Replies['finish'] {
    this.#changes?.contents.end();
    finishRun(run, root);
    this.#close(run);
    return run.counts;
  }

  #discard(run: Run): null {
    this.#changes?.contents.abort();
    try {
      // Frees descriptors for the removal: open directories may use up the limit.
      run.directories.close();
      if (this.#data.options.mode !== 'overlay') empty(run, run.filesystem.root);
      return null;
    } finally {
      // The lock is released with the root: a second attempt must get it.
      this.#close(run);
    }
  }

  #close(run: Run): void {
    run.directories.close();
    run.filesystem.close();
    this.#run = undefined;
  }

  #open(): OpenedRoot {
    const { options, memory } = this.#data;
    const filesystem = this.#openFilesystem();
    const { identity } = granted(filesystem.stat(filesystem.root, '.'), 'read it');
    if (identity !== (options.expected ?? identity)) {
      filesystem.close();
      throw new DestinationError(`${this.#name} was replaced by another process`, { code: 'SWAPPED' });
    }
    // Before the first byte of an image is read: a name that is let through by mistake then leads nowhere.
    const confinement = giveUpWriting(filesystem.root.handle);
    this.#isConfined = 'version' in confinement;
    const backend = filesystem instanceof PortableFilesystem ? 'node' : 'libc';
    const shared = backend === 'libc' ? new FileJobs(memory.jobs, this.#source) : undefined;
    this.#source.beforeWait = shared && (() => this.#workBeforeWait(shared));
    this.#run = startRun(filesystem, options, this.#changes, shared);
    return { backend, identity, confinement };
  }

  #openFilesystem(): LinuxFilesystem | PortableFilesystem {
    const { path, options } = this.#data;
    const { backend, mode } = options;
    const opened = openFilesystem(path, backend);
    if (opened === -ENOSYS) {
      throw new DestinationError('libc cannot be called on this system', {
        hint: 'leave the back end to us',
      });
    }
    const filesystem = granted(opened, 'open it');
    if (mode === 'stage' && !filesystem.lock()) {
      throw new DestinationError(`${this.#name} is being written by another process`, {
        code: 'BUSY',
        hint: `wait until that is done, or ${ANOTHER_DIRECTORY}`,
      });
    }
    return filesystem;
  }

  #layer(run: Run, label: string): number {
    this.#source.restart();
    try {
      const tellEntries = this.#entriesTeller();
      const entries = applyLayer(run, new TarReader(this.#source, label), label, () => {
        this.#source.throwIfAborted();
        tellEntries();
      });
      this.#changes?.flush();
      // Bytes after the end mark are part of the digest, not of the tree.
      while (this.#source.read(DRAIN_BYTES)) continue;
      return entries;
    } catch (error) {
      this.#source.fail();
      throw error;
    } finally {
      this.#source.leave();
    }
  }

  /**
   * Called before the thread waits for bytes: announces jobs, and takes bytes into the tar's digest for the
   * decoder. Returns false if no byte was left to take.
   */
  #workBeforeWait(jobs: FileJobs): boolean {
    jobs.announce();
    if (this.#digest.step(this.#source.head, HASH_BYTES) === 0) return false;
    // The decoder may wait for this space.
    this.#source.ringBell();
    return true;
  }

  /**
   * Returns a function to call before each entry. About once a second it sends the number of entries before.
   */
  #entriesTeller(): () => void {
    let entries = 0;
    let told = performance.now();
    return () => {
      if (entries % ENTRIES_PER_LOOK === 0 && performance.now() - told >= TELL_MILLISECONDS) {
        told = performance.now();
        this.#tell({ entries });
      }
      entries += 1;
    };
  }
}

// Entry point of the thread `rootfs`. It executes each order synchronously, and replies to it.
const port = parentPort!;
const work = new RootfsWork(workerData as ThreadData, (notice, moved = []) =>
  port.postMessage(notice, moved),
);

port.on('message', (order: RootfsOrder) => port.postMessage(replyOf(() => work.obey(order))));
