import { openFilesFor } from '../sys/open-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import type { Filesystem } from './filesystem.ts';
import type { Creator } from './creator.ts';
import { applyToOpenFile, type MetadataState } from './metadata.ts';
import { nothingLost } from './not-restored.ts';
import type { RingReader } from '../sys/ring.ts';

// The queue of jobs for open files, in shared memory. The thread that reads a layer's entries opens each
// file. The thread that decodes the tar writes some of them. Work that needs a name or an order stays in the
// first thread.

/** A power of two. */
const SLOTS = 128;
/** Share of the limit of open files: each job keeps its file open. */
const SHARE = 0.2;
const HEADER_WORDS = 16;
const JOB_WORDS = 16;

/**
 * The shared words of the header. docs/threads.md lists for each one its writers and the threads that wait
 * for it.
 */
const Word = {
  /** Jobs handed over, and jobs done. Both wrap around, and only their difference matters. */
  pushed: 0,
  done: 1,
  /**
   * Incremented when all jobs are done or the decoder has died. The thread that hands over jobs waits for it.
   */
  idle: 2,
  /** 1 while the decoder takes jobs; DEAD after it has died. */
  taken: 3,
  /** 1 after a job has failed. The next three words are its number, its error and the step that failed. */
  failed: 4,
  failedJob: 5,
  errno: 6,
  action: 7,
  lostOwners: 8,
  lostSetuid: 9,
  creatorUID: 10,
  creatorGID: 11,
  creatorUmask: 12,
} as const;

/** Words of a job. The other thread may read them when it has seen the job in `pushed`. */
const Job = {
  file: 0,
  /** Position of the first byte, as `RingWriter.position` counts, and the number of bytes. */
  position: 1,
  length: 2,
  /** Offset of the bytes in the file. */
  offsetLow: 3,
  offsetHigh: 4,
  /** 1 in the last job of a file, which is then given its metadata and closed. */
  last: 5,
  mode: 6,
  uid: 7,
  gid: 8,
  seconds: 9,
  nanoseconds: 10,
} as const;

/** The steps of a job that can fail, in the words of `placeFile`. */
const ACTIONS = ['write', 'set the owner', 'set the mode', 'set the time', 'close'] as const;

/**
 * The decoder is woken after so many jobs, or bytes in them. Waking it for each job costs a tenth of the
 * time.
 */
const BATCH_JOBS = 16;
const BATCH_BYTES = 256 * 1024;
/**
 * Jobs are handed over only while the decoder is this many bytes ahead. Otherwise decoding is more urgent.
 */
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

/** The queue in the thread that opens the files and hands them over. */
export class FileJobs {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #ring: RingReader;
  /** Paths by slot: the name in the entry, and the file's own path. */
  readonly #entryPaths: BytePath[] = Array.from({ length: SLOTS }, () => '' as BytePath);
  readonly #paths: BytePath[] = Array.from({ length: SLOTS }, () => '' as BytePath);
  /** One slot stays free, so that a job that has just failed keeps its paths until `failed` is read. */
  readonly #most = openFilesFor(SHARE, SLOTS - 1);
  #pushed = 0;
  #unannouncedJobs = 0;
  #unannouncedBytes = 0;

  constructor(memory: SharedArrayBuffer, ring: RingReader) {
    this.#words = new Int32Array(memory);
    this.#ring = ring;
  }

  /** Sets the owner and the umask of new files. Called before the first job. */
  begin({ uid, gid, umask }: Creator): void {
    this.#words[Word.creatorUID] = uid;
    this.#words[Word.creatorGID] = gid;
    this.#words[Word.creatorUmask] = umask;
  }

  /** True if a job may be handed over now. */
  get open(): boolean {
    return this.#ring.ahead >= LEAST_AHEAD && this.#hasRoom() && Atomics.load(this.#words, Word.taken) === 1;
  }

  /** Hands over bytes of the ring, which belong at `offset` of `file`. Called only if `open` is true. */
  write(file: number, bytes: Uint8Array, offset: number, entry: Entry, path: BytePath): void {
    this.#push(file, bytes, offset, entry, path, false);
  }

  /** Hands over a file with its last bytes, if any. If the queue is full, waits until all jobs are done. */
  complete(file: number, bytes: Uint8Array | undefined, offset: number, entry: Entry, path: BytePath): void {
    if (!this.#hasRoom()) this.#wait(() => this.#hasRoom());
    this.#push(file, bytes, offset, entry, path, true);
  }

  /** Entry and error of the first job that failed, if any. */
  get failed(): FailedEntry | undefined {
    const words = this.#words;
    if (Atomics.load(words, Word.failed) === 0) return undefined;
    const slot = words[Word.failedJob]! & (SLOTS - 1);
    const action = ACTIONS[words[Word.action]!]!;
    const said = action === 'close' ? `write ${displayPath(this.#paths[slot]!)}` : action;
    return { path: this.#entryPaths[slot]!, failure: new SyscallError(words[Word.errno]!, said) };
  }

  /** Waits until all jobs are done, or the decoder has died. */
  drain(): void {
    this.#wait(() => Atomics.load(this.#words, Word.done) === this.#pushed);
  }

  /** Returns how many owners and setuid bits were lost since the last call. Called after `drain`. */
  takeLost(): { readonly owners: number; readonly setuid: number } {
    const owners = Atomics.exchange(this.#words, Word.lostOwners, 0);
    const setuid = Atomics.exchange(this.#words, Word.lostSetuid, 0);
    return { owners, setuid };
  }

  #hasRoom(): boolean {
    return ((this.#pushed - Atomics.load(this.#words, Word.done)) | 0) < this.#most;
  }

  /** Blocks this thread until `ready` returns true or the decoder has died. */
  #wait(ready: () => boolean): void {
    const words = this.#words;
    for (;;) {
      const seen = Atomics.load(words, Word.idle);
      if (ready() || Atomics.load(words, Word.taken) === DEAD) return;
      this.announce();
      Atomics.wait(words, Word.idle, seen);
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
    words[at + Job.file] = file;
    words[at + Job.position] = bytes ? this.#ring.positionOf(bytes) : 0;
    words[at + Job.length] = bytes ? bytes.length : 0;
    words[at + Job.offsetLow] = offset >>> 0;
    words[at + Job.offsetHigh] = Math.floor(offset / LOW);
    words[at + Job.last] = isLast ? 1 : 0;
    words[at + Job.mode] = entry.mode;
    words[at + Job.uid] = entry.uid;
    words[at + Job.gid] = entry.gid;
    words[at + Job.seconds] = entry.mtimeSeconds;
    words[at + Job.nanoseconds] = entry.mtimeNanoseconds;
    this.#entryPaths[slot] = entry.path;
    this.#paths[slot] = path;
    this.#pushed = (this.#pushed + 1) | 0;
    Atomics.store(words, Word.pushed, this.#pushed);
    this.#unannouncedJobs += 1;
    this.#unannouncedBytes += bytes ? bytes.length : 0;
    if (this.#unannouncedJobs >= BATCH_JOBS || this.#unannouncedBytes >= BATCH_BYTES) this.announce();
  }

  /** Wakes the decoder if it waits for jobs. */
  announce(): void {
    if (this.#unannouncedJobs === 0) return;
    this.#unannouncedJobs = 0;
    this.#unannouncedBytes = 0;
    this.#ring.ringBell();
  }
}

/** The queue in the thread that does the jobs. */
export class FileJobRunner {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #filesystem: OpenFiles;
  /** All bytes of the ring. Their number is a power of two. */
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  #state: MetadataState;
  #done: number;

  /** @param bytes all bytes of the ring that holds the jobs' bytes */
  constructor(memory: SharedArrayBuffer, bytes: Uint8Array<SharedArrayBuffer>, filesystem: OpenFiles) {
    this.#words = new Int32Array(memory);
    this.#bytes = bytes;
    this.#filesystem = filesystem;
    this.#done = Atomics.load(this.#words, Word.done);
    this.#state = this.#stateNow();
  }

  /** Allows jobs from now on. */
  begin(): void {
    this.#state = this.#stateNow();
    Atomics.store(this.#words, Word.taken, 1);
  }

  /** Allows no more jobs. Called after the other thread has handed over its last one. */
  end(): void {
    Atomics.store(this.#words, Word.taken, 0);
  }

  get waiting(): number {
    return (Atomics.load(this.#words, Word.pushed) - this.#done) | 0;
  }

  /** Position of the first byte in the ring that a job needs; undefined if none does. */
  readonly firstNeeded = (): number | undefined => {
    for (let job = this.#done, rest = this.waiting; rest > 0; job = (job + 1) | 0, rest -= 1) {
      const at = HEADER_WORDS + (job & (SLOTS - 1)) * JOB_WORDS;
      if (this.#words[at + Job.length]! > 0) return this.#words[at + Job.position]!;
    }
    return undefined;
  };

  /** Does up to `most` jobs. After one has failed, the others only close their files. */
  run(most: number): void {
    for (let rest = Math.min(most, this.waiting); rest > 0; rest -= 1) {
      this.#one(HEADER_WORDS + (this.#done & (SLOTS - 1)) * JOB_WORDS);
      // Before `done`: the other thread reads these counts as soon as all jobs are done.
      this.#addLost();
      this.#done = (this.#done + 1) | 0;
      Atomics.store(this.#words, Word.done, this.#done);
    }
    if (this.waiting === 0) signalIdle(this.#words);
  }

  #addLost(): void {
    const { counts } = this.#state;
    if (counts.owners > 0) Atomics.add(this.#words, Word.lostOwners, counts.owners);
    if (counts.setuid > 0) Atomics.add(this.#words, Word.lostSetuid, counts.setuid);
    counts.owners = 0;
    counts.setuid = 0;
  }

  #one(at: number): void {
    const words = this.#words;
    const file = words[at + Job.file]!;
    const isLast = words[at + Job.last] === 1;
    const failedBefore = words[Word.failed] === 1;
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
    if (closed < 0 && words[Word.failed] === 0) this.#fail(new SyscallError(closed, 'close'));
  }

  #write(file: number, at: number): void {
    const words = this.#words;
    const length = words[at + Job.length]!;
    if (length === 0) return;
    const start = words[at + Job.position]! & (this.#bytes.length - 1);
    const offset = (words[at + Job.offsetLow]! >>> 0) + words[at + Job.offsetHigh]! * LOW;
    const written = this.#filesystem.write(file, this.#bytes.subarray(start, start + length), offset);
    if (written < 0) throw new SyscallError(written, 'write');
  }

  #complete(file: number, at: number): void {
    const words = this.#words;
    node.file = file;
    applyToOpenFile(this.#state, node, {
      mode: words[at + Job.mode]!,
      uid: words[at + Job.uid]! >>> 0,
      gid: words[at + Job.gid]! >>> 0,
      mtimeSeconds: words[at + Job.seconds]!,
      mtimeNanoseconds: words[at + Job.nanoseconds]!,
    });
  }

  #fail(error: SyscallError): void {
    const words = this.#words;
    words[Word.failedJob] = this.#done;
    words[Word.errno] = error.errno;
    words[Word.action] = ACTIONS.indexOf(error.action as (typeof ACTIONS)[number]);
    Atomics.store(words, Word.failed, 1);
  }

  #stateNow(): MetadataState {
    const words = this.#words;
    return {
      filesystem: this.#filesystem,
      counts: nothingLost(),
      creator: {
        uid: words[Word.creatorUID]! >>> 0,
        gid: words[Word.creatorGID]! >>> 0,
        umask: words[Word.creatorUmask]!,
        careful: false,
      },
    };
  }
}

/** Marks the queue as dead, after the thread that did the jobs has died. */
export function forsakeFileJobs(memory: SharedArrayBuffer): void {
  const words = new Int32Array(memory);
  Atomics.store(words, Word.taken, DEAD);
  signalIdle(words);
}

function signalIdle(words: Int32Array<SharedArrayBuffer>): void {
  Atomics.add(words, Word.idle, 1);
  Atomics.notify(words, Word.idle);
}

/** The file system's calls for open files. */
export type OpenFiles = Pick<Filesystem, 'write' | 'closeFile'> & MetadataState['filesystem'];

/** The name of a job's file is irrelevant: all calls use its descriptor. */
const node = { parent: { path: '' as BytePath, handle: -1 }, name: '', file: -1 };
