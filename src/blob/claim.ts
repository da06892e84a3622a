import { constants } from 'node:fs';
import { lstat, open, readFile, rename, rm, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
import type { lockFile } from '../sys/file-lock.ts';
import type { StoreFiles } from './store-files.ts';
import { FILE_MODE, openTrusted } from './trust.ts';

/** A partial file that this process alone writes. */
export interface Claim {
  readonly handle: FileHandle;
  /** How much an earlier run left, without a hole, in bytes. */
  readonly length: number;
  /** The file has, or will have, holes after its first `front` bytes: should this process be killed, the next one must know. */
  sparseAfter(front: number): Promise<void>;
  /** The file is whole and its digest right: it becomes the blob. */
  publish(): Promise<void>;
  /** Nothing more is written; `keep`: another run may go on with it. */
  release(keep: boolean): Promise<void>;
}

/** A blob that is to be downloaded. */
export interface Wanted {
  readonly digest: Digest;
  /** What an earlier run left is discarded where it is longer. */
  readonly maxBytes?: number | undefined;
  readonly signal: AbortSignal;
  /** Called once when another process is at it. */
  readonly waiting: () => void;
}

export interface ClaimOptions {
  readonly files: StoreFiles;
  readonly lock: typeof lockFile | undefined;
  /** Milliseconds without progress of the other before this process does it alone. Default 30,000. */
  readonly patience?: number | undefined;
}

const POLL = 100;
const PATIENCE = 30_000;

/**
 * Claims the partial file of a blob. The lock is flock(2) on the file itself: the kernel drops it with its owner, however that
 * ends, and it holds between containers that share the directory. When another process has it, waits for the blob (`there`) or
 * for the lock; when that makes no progress, or there are no locks here, answers a private file that nobody else sees: a lock
 * saves work, but nothing ever depends on it, since a blob gets its name only whole and by rename(2).
 */
export async function claim(wanted: Wanted, options: ClaimOptions): Promise<Claim | 'there'> {
  const { digest, signal, waiting } = wanted;
  const { files, lock } = options;
  if (!lock) return privateClaim(digest, files);
  const name = files.partial(digest);
  const progress = new Progress(options.patience ?? PATIENCE);
  for (let announced = false; ;) {
    signal.throwIfAborted();
    const handle = await openPartial(name);
    const outcome = lock(handle.fd, 'exclusive');
    if (outcome === 'locked' && (await isStill(name, handle))) {
      try {
        if (!(await exists(files.blob(digest)))) return await shared(wanted, files, handle, name);
        await unlink(name);
      } catch (error) {
        await handle.close();
        throw error;
      }
      await handle.close();
      return 'there';
    }
    await handle.close();
    if (outcome === 'unsupported') return privateClaim(digest, files);
    if (outcome === 'locked') continue;
    if (await progress.stalled(name)) return privateClaim(digest, files);
    if (!announced) waiting();
    announced = true;
    await sleep(POLL, undefined, { signal }).catch(() => undefined);
    if (await exists(files.blob(digest))) return 'there';
  }
}

async function shared(
  { digest, maxBytes = Infinity }: Wanted,
  files: StoreFiles,
  handle: FileHandle,
  name: string,
): Promise<Claim> {
  const mark = `${name}.front`;
  const { size } = await handle.stat();
  const front = frontOf(await readFile(mark, 'utf8').catch(() => undefined), size);
  const length = size > maxBytes ? 0 : front;
  if (length < size) await handle.truncate(length);
  await unlink(mark).catch(() => undefined);
  let published = false;
  return {
    handle,
    length,
    async sparseAfter(bytes) {
      await writeFile(mark, String(bytes), { mode: FILE_MODE });
    },
    async publish() {
      await rename(name, files.blob(digest));
      published = true;
    },
    async release(keep) {
      if (published || !keep) await unlink(mark).catch(() => undefined);
      if (!published && !keep) await unlink(name).catch(() => undefined);
      await handle.close();
    },
  };
}

/** Up to where a file of `size` bytes has no hole, by the mark beside it. */
function frontOf(mark: string | undefined, size: number): number {
  if (mark === undefined) return size;
  return /^\d{1,15}$/.test(mark) ? Math.min(Number(mark), size) : 0;
}

async function privateClaim(digest: Digest, files: StoreFiles): Promise<Claim> {
  const name = files.private();
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const handle = await open(name, flags, FILE_MODE);
  let published = false;
  return {
    handle,
    length: 0,
    sparseAfter: async () => undefined,
    async publish() {
      await rename(name, files.blob(digest));
      published = true;
    },
    async release() {
      if (!published) await unlink(name).catch(() => undefined);
      await handle.close();
    },
  };
}

/** What is in the way and cannot be trusted (a link, another user's file) is removed. */
async function openPartial(name: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT;
  const handle = await openTrusted(name, flags);
  if (handle) return handle;
  await rm(name, { recursive: true });
  const again = await openTrusted(name, flags);
  if (!again) throw new Error(`${name} cannot be replaced`);
  return again;
}

/** The owner before may have renamed or removed the file between our open and our lock. */
async function isStill(name: string, handle: FileHandle): Promise<boolean> {
  const [named, opened] = await Promise.all([lstat(name).catch(() => undefined), handle.stat()]);
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

async function exists(name: string): Promise<boolean> {
  return (await lstat(name).catch(() => undefined)) !== undefined;
}

/** Whether a file that another process writes still changes. */
class Progress {
  readonly #patience: number;
  #last = '';
  #since = performance.now();

  constructor(patience: number) {
    this.#patience = patience;
  }

  async stalled(name: string): Promise<boolean> {
    const stats = await lstat(name).catch(() => undefined);
    const now = `${stats?.blocks} ${stats?.size} ${stats?.mtimeMs}`;
    if (now !== this.#last) this.#since = performance.now();
    this.#last = now;
    return performance.now() - this.#since > this.#patience;
  }
}
