import { openFilesFor } from '../sys/open-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import type { Filesystem } from './filesystem.ts';
import type { Creator } from './creator.ts';
import { applyToOpenFile, type MetadataState } from './node-metadata.ts';
import { nothingLost } from './not-restored.ts';
import type { RingReader } from './ring.ts';

// The queue of jobs for open files, in shared memory. The thread that reads a layer's entries opens each file. The thread that decodes the
// tar writes some of them. Work that needs a name or an order stays in the first thread.

/** A power of two. */
const SLOTS = 128;
/** Each job holds its file open: of the limit of open files. */
const SHARE = 0.2;
const HEADER_WORDS = 16;
const JOB_WORDS = 16;

/** Words of the header. Of the counters, which wrap around, only the difference matters. */
const PUSHED = 0;
const DONE = 1;
/** The stream of the ring whose jobs are taken; DEAD: none ever again. */
const SERVED = 2;
/** 1 from the first job that failed; then the next three say which one, why and at what. */
const FAILED = 3;
const FAILED_JOB = 4;
const ERRNO = 5;
const ACTION = 6;
const LOST_OWNERS = 7;
const LOST_SETUID = 8;
const CREATOR_UID = 9;
const CREATOR_GID = 10;
const CREATOR_UMASK = 11;

/** Words of a job. */
const FILE = 0;
/** Where its bytes begin, as `RingWriter.position` counts, and how many there are. */
const POSITION = 1;
const LENGTH = 2;
/** Where they belong in the file. */
const OFFSET_LOW = 3;
const OFFSET_HIGH = 4;
/** 1: the file is complete with it, gets its metadata and is closed. */
const LAST = 5;
const MODE = 6;
const UID = 7;
const GID = 8;
const SECONDS = 9;
const NANOSECONDS = 10;

/** The steps of a job that can fail, in the words of `placeFile`. */
const ACTIONS = ['write', 'set the owner', 'set the mode', 'set the time', 'close'] as const;

/** This many jobs, or bytes in them, wake a waiting thread: to wake it for each job costs a tenth of the time. */
const BATCH_JOBS = 16;
const BATCH_BYTES = 256 * 1024;
/** Jobs are handed over only while the other thread is this many bytes ahead. Otherwise decoding is more urgent. */
const LEAST_AHEAD = 1024 * 1024;

const LOW = 2 ** 32;
const DEAD = -1;

export function createFileJobs(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * (HEADER_WORDS + SLOTS * JOB_WORDS));
}

/** The entry of a job that failed, for messages. */
export interface FailedEntry {
  readonly path: BytePath;
  readonly failure: SyscallError;
}

/** The side that opens the files. */
export class FileJobs {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #ring: RingReader;
  /** By slot: what the entry calls the file, and where it is. */
  readonly #entryPaths: BytePath[] = Array.from({ length: SLOTS }, () => '' as BytePath);
  readonly #paths: BytePath[] = Array.from({ length: SLOTS }, () => '' as BytePath);
  /** One slot stays free: so a job that has just failed keeps its paths until `failed` is read. */
  readonly #most = openFilesFor(SHARE, SLOTS - 1);
  #pushed = 0;
  #unannouncedJobs = 0;
  #unannouncedBytes = 0;

  constructor(memory: SharedArrayBuffer, ring: RingReader) {
    this.#words = new Int32Array(memory);
    this.#ring = ring;
  }

  /** Sets what new files have. To be called before the first job. */
  begin({ uid, gid, umask }: Creator): void {
    this.#words[CREATOR_UID] = uid;
    this.#words[CREATOR_GID] = gid;
    this.#words[CREATOR_UMASK] = umask;
  }

  /** Whether a job may be handed over now. */
  get open(): boolean {
    return (
      this.#ring.ahead >= LEAST_AHEAD &&
      this.#hasRoom() &&
      Atomics.load(this.#words, SERVED) === this.#ring.stream
    );
  }

  /** Hands over bytes of the ring that belong at `offset` of `file`. Only where `open`. */
  write(file: number, bytes: Uint8Array, offset: number, entry: Entry, path: BytePath): void {
    this.#push(file, bytes, offset, entry, path, false);
  }

  /** Hands over the last bytes, if any, and the file with them. Where the queue is full, it waits. */
  complete(file: number, bytes: Uint8Array | undefined, offset: number, entry: Entry, path: BytePath): void {
    if (!this.#hasRoom()) this.#wait(() => this.#hasRoom());
    this.#push(file, bytes, offset, entry, path, true);
  }

  /** The first job that failed, if one has. */
  get failed(): FailedEntry | undefined {
    const words = this.#words;
    if (Atomics.load(words, FAILED) === 0) return undefined;
    const slot = words[FAILED_JOB]! & (SLOTS - 1);
    const action = ACTIONS[words[ACTION]!]!;
    const said = action === 'close' ? `write ${displayPath(this.#paths[slot]!)}` : action;
    return { path: this.#entryPaths[slot]!, failure: new SyscallError(words[ERRNO]!, said) };
  }

  /** Waits until all jobs are done. */
  drain(): void {
    this.#wait(() => Atomics.load(this.#words, DONE) === this.#pushed);
  }

  /** What could not be restored, since the last call. Only after `drain`. */
  takeLost(): { readonly owners: number; readonly setuid: number } {
    const owners = Atomics.exchange(this.#words, LOST_OWNERS, 0);
    const setuid = Atomics.exchange(this.#words, LOST_SETUID, 0);
    return { owners, setuid };
  }

  #hasRoom(): boolean {
    return ((this.#pushed - Atomics.load(this.#words, DONE)) | 0) < this.#most;
  }

  /** Blocks this thread; not where the other one has died. */
  #wait(ready: () => boolean): void {
    const over = (): boolean => ready() || Atomics.load(this.#words, SERVED) === DEAD;
    while (!over()) {
      this.announce();
      this.#ring.waitUnless(over);
    }
  }

  #push(
    file: number,
    bytes: Uint8Array | undefined,
    offset: number,
    entry: Entry,
    path: BytePath,
    isLast: boolean,
  ): void {
    const words = this.#words;
    const slot = this.#pushed & (SLOTS - 1);
    const at = HEADER_WORDS + slot * JOB_WORDS;
    words[at + FILE] = file;
    words[at + POSITION] = bytes ? this.#ring.positionOf(bytes) : 0;
    words[at + LENGTH] = bytes ? bytes.length : 0;
    words[at + OFFSET_LOW] = offset >>> 0;
    words[at + OFFSET_HIGH] = Math.floor(offset / LOW);
    words[at + LAST] = isLast ? 1 : 0;
    words[at + MODE] = entry.mode;
    words[at + UID] = entry.uid;
    words[at + GID] = entry.gid;
    words[at + SECONDS] = entry.mtimeSeconds;
    words[at + NANOSECONDS] = entry.mtimeNanoseconds;
    this.#entryPaths[slot] = entry.path;
    this.#paths[slot] = path;
    this.#pushed = (this.#pushed + 1) | 0;
    Atomics.store(words, PUSHED, this.#pushed);
    this.#unannouncedJobs += 1;
    this.#unannouncedBytes += bytes ? bytes.length : 0;
    if (this.#unannouncedJobs >= BATCH_JOBS || this.#unannouncedBytes >= BATCH_BYTES) this.announce();
  }

  /** Wakes the other thread if it waits for jobs. */
  announce(): void {
    if (this.#unannouncedJobs === 0) return;
    this.#unannouncedJobs = 0;
    this.#unannouncedBytes = 0;
    this.#ring.wakeWriter();
  }
}

/** The side that writes. */
export class FileJobRunner {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #filesystem: OpenFiles;
  /** All bytes of the ring; the capacity is a power of two. */
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  #state: MetadataState;
  #done: number;

  /** @param bytes of the ring whose positions jobs name */
  constructor(memory: SharedArrayBuffer, bytes: Uint8Array<SharedArrayBuffer>, filesystem: OpenFiles) {
    this.#words = new Int32Array(memory);
    this.#bytes = bytes;
    this.#filesystem = filesystem;
    this.#done = Atomics.load(this.#words, DONE);
    this.#state = this.#stateNow();
  }

  /** From now on jobs are taken, until the reader has left the stream. */
  begin(stream: number): void {
    this.#state = this.#stateNow();
    Atomics.store(this.#words, SERVED, stream);
  }

  get waiting(): number {
    return (Atomics.load(this.#words, PUSHED) - this.#done) | 0;
  }

  /** Position of the first byte in the ring that a job needs; undefined where none does. */
  readonly firstNeeded = (): number | undefined => {
    for (let job = this.#done, rest = this.waiting; rest > 0; job = (job + 1) | 0, rest -= 1) {
      const at = HEADER_WORDS + (job & (SLOTS - 1)) * JOB_WORDS;
      if (this.#words[at + LENGTH]! > 0) return this.#words[at + POSITION]!;
    }
    return undefined;
  };

  /** Does up to `most` jobs. After a job has failed, files are only closed. */
  run(most: number): void {
    for (let rest = Math.min(most, this.waiting); rest > 0; rest -= 1) {
      this.#one(HEADER_WORDS + (this.#done & (SLOTS - 1)) * JOB_WORDS);
      this.#done = (this.#done + 1) | 0;
      Atomics.store(this.#words, DONE, this.#done);
    }
    const { owners, setuid } = this.#state.counts;
    if (owners > 0) Atomics.add(this.#words, LOST_OWNERS, owners);
    if (setuid > 0) Atomics.add(this.#words, LOST_SETUID, setuid);
    Object.assign(this.#state.counts, { owners: 0, setuid: 0 });
  }

  #one(at: number): void {
    const words = this.#words;
    const file = words[at + FILE]!;
    const isLast = words[at + LAST] === 1;
    const failedBefore = words[FAILED] === 1;
    if (!failedBefore) {
      try {
        this.#write(file, at);
        if (isLast) this.#complete(file, at);
      } catch (error) {
        if (!(error instanceof SyscallError)) throw error;
        this.#fail(error);
      }
    }
    if (!isLast) return;
    const closed = this.#filesystem.closeFile(file);
    if (closed < 0 && words[FAILED] === 0) this.#fail(new SyscallError(closed, 'close'));
  }

  #write(file: number, at: number): void {
    const words = this.#words;
    const length = words[at + LENGTH]!;
    if (length === 0) return;
    const start = words[at + POSITION]! & (this.#bytes.length - 1);
    const offset = (words[at + OFFSET_LOW]! >>> 0) + words[at + OFFSET_HIGH]! * LOW;
    const written = this.#filesystem.write(file, this.#bytes.subarray(start, start + length), offset);
    if (written < 0) throw new SyscallError(written, 'write');
  }

  #complete(file: number, at: number): void {
    const words = this.#words;
    node.file = file;
    applyToOpenFile(this.#state, node, {
      mode: words[at + MODE]!,
      uid: words[at + UID]! >>> 0,
      gid: words[at + GID]! >>> 0,
      mtimeSeconds: words[at + SECONDS]!,
      mtimeNanoseconds: words[at + NANOSECONDS]!,
    });
  }

  #fail(error: SyscallError): void {
    const words = this.#words;
    words[FAILED_JOB] = this.#done;
    words[ERRNO] = error.errno;
    words[ACTION] = ACTIONS.indexOf(error.action as (typeof ACTIONS)[number]);
    Atomics.store(words, FAILED, 1);
  }

  #stateNow(): MetadataState {
    const words = this.#words;
    return {
      filesystem: this.#filesystem,
      counts: nothingLost(),
      creator: {
        uid: words[CREATOR_UID]! >>> 0,
        gid: words[CREATOR_GID]! >>> 0,
        umask: words[CREATOR_UMASK]!,
        careful: false,
      },
    };
  }
}

/** Marks the queue as dead: the thread that did the jobs has died. */
export function forsakeFileJobs(memory: SharedArrayBuffer): void {
  Atomics.store(new Int32Array(memory), SERVED, DEAD);
}

/** The calls for files that are open. */
export type OpenFiles = Pick<Filesystem, 'write' | 'closeFile'> & MetadataState['filesystem'];

/** The name of a job's file is irrelevant: all calls use its descriptor. */
const node = { parent: { path: '' as BytePath, handle: -1 }, name: '', file: -1 };
