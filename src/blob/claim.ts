import { constants, type Stats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
import type { lockFile, LockResult } from '../sys/system-calls.ts';
import type { ByteRange } from './pieces.ts';
import type { CacheName, StoreFiles } from './store-files.ts';

/** The contents of a partial file. */
export interface PartialContents {
  /** Received ranges, in order, without overlaps. */
  readonly ranges: readonly ByteRange[];
  /** Size of the whole blob in bytes, if it was known. */
  readonly size: number | undefined;
}

const NOTHING_KEPT: PartialContents = { ranges: [], size: undefined };

/** A partial file that only this process writes; see `claim`. */
export class Claim {
  readonly handle: FileHandle;
  /** Contents left by an earlier run. */
  readonly kept: PartialContents;
  readonly #files: StoreFiles;
  readonly #name: CacheName;
  readonly #blob: CacheName;
  /**
   * File that lists the ranges of a partial file with holes; undefined for a private file, which no other run
   * can resume.
   */
  readonly #note: CacheName | undefined;
  /** The file has its name among the partial ones. */
  #isNamed = true;

  constructor(
    handle: FileHandle,
    kept: PartialContents,
    {
      files,
      digest,
      name,
    }: { readonly files: StoreFiles; readonly digest: Digest; readonly name: CacheName },
  ) {
    this.handle = handle;
    this.kept = kept;
    this.#files = files;
    this.#name = name;
    this.#blob = files.blob(digest);
    this.#note = name === files.partial(digest) ? files.ranges(digest) : undefined;
  }

  /**
   * Notes the contents of a file that has or will have holes. The next run reads them, even if this one is
   * killed. Make one call at a time.
   */
  async note({ ranges, size }: PartialContents): Promise<void> {
    if (this.#note === undefined) return;
    const lines = [size ?? '', ...ranges.map(({ start, end }) => `${start}-${end}`)];
    await this.#files.write(this.#note, lines.join('\n'));
  }

  /** Makes the file the blob: it is complete and its digest is right. */
  async publish(): Promise<void> {
    await this.#files.rename(this.#name, this.#blob);
    this.#isNamed = false;
    await this.#removeNote();
  }

  /** Removes the name of the file, so that no run resumes it; it can still be read. */
  async discard(): Promise<void> {
    if (!this.#isNamed) return;
    this.#isNamed = false;
    await this.#removeNote();
    await this.#files.unlink(this.#name).catch(() => undefined);
  }

  async #removeNote(): Promise<void> {
    if (this.#note !== undefined) await this.#files.unlink(this.#note).catch(() => undefined);
  }

  /** Ends the writing. `keep`: another run may resume the file. Returns true if one can. */
  async release(keep: boolean): Promise<boolean> {
    const resumable = keep && this.#isNamed && this.#note !== undefined;
    if (!resumable) await this.discard();
    const stats = await this.handle.stat().catch(() => undefined);
    await this.handle.close();
    return resumable && stats !== undefined && stats.size > 0;
  }
}

/** A blob that is to be downloaded. */
export interface WantedBlob {
  readonly digest: Digest;
  /** Most bytes of the blob: a longer partial file is discarded. */
  readonly maxBytes?: number | undefined;
  readonly signal: AbortSignal;
  /** Called once if another process is downloading it. */
  readonly waiting: () => void;
}

export interface ClaimOptions {
  readonly files: StoreFiles;
  readonly lock: typeof lockFile | undefined;
  /** Milliseconds without progress of the other process before this one downloads alone. Default 30,000. */
  readonly patience?: number | undefined;
}

const POLL = 100;
const DEFAULT_PATIENCE = 30_000;

/**
 * Claims the partial file of a blob by flock(2) on the file itself. The kernel releases the lock when its
 * owner ends. It works between containers that share the directory. While another process has the lock, this
 * waits for the blob (`there`) or for the lock. Without locks, or if the other process makes no progress, it
 * returns a private file. A lock only saves work: a complete blob gets its name by rename(2).
 */
export async function claim(wanted: WantedBlob, options: ClaimOptions): Promise<Claim | 'there'> {
  const { digest, signal, waiting } = wanted;
  const { files, lock, patience = DEFAULT_PATIENCE } = options;
  const hasStalled = watchFile(() => files.stat(files.partial(digest)), patience);
  for (let isAnnounced = false; ;) {
    signal.throwIfAborted();
    const outcome = lock ? await tryClaim(wanted, files, lock) : 'unsupported';
    if (outcome === 'moved') continue;
    if (outcome === 'unsupported') return await privateClaim(digest, files);
    if (outcome !== 'busy') return outcome;
    if (await hasStalled()) return await privateClaim(digest, files);
    if (!isAnnounced) waiting();
    isAnnounced = true;
    await sleep(POLL, undefined, { signal }).catch(() => undefined);
    if ((await files.stat(files.blob(digest))) !== undefined) return 'there';
  }
}

/**
 * Tries once. `moved`: the previous owner renamed or removed the file between our open and our lock. `busy`:
 * another process has the lock.
 */
async function tryClaim(
  wanted: Pick<WantedBlob, 'digest' | 'maxBytes'>,
  files: StoreFiles,
  lock: typeof lockFile,
): Promise<Claim | Exclude<LockResult, 'locked'> | 'moved' | 'there'> {
  const { digest } = wanted;
  const name = files.partial(digest);
  const handle = await openPartial(files, name);
  let claimed: Claim | undefined;
  try {
    const outcome = lock(handle.fd, 'exclusive');
    if (outcome !== 'locked') return outcome;
    if (!(await files.isNameOf(name, handle))) return 'moved';
    if ((await files.stat(files.blob(digest))) !== undefined) {
      await files.unlink(name);
      return 'there';
    }
    claimed = await claimLocked(wanted, files, handle);
    return claimed;
  } finally {
    if (!claimed) await handle.close();
  }
}

/** Returns the claim of a locked file, with the contents that an earlier run left in it. */
async function claimLocked(
  { digest, maxBytes = Infinity }: Pick<WantedBlob, 'digest' | 'maxBytes'>,
  files: StoreFiles,
  handle: FileHandle,
): Promise<Claim> {
  const name = files.partial(digest);
  const note = files.ranges(digest);
  const { size: length } = await handle.stat();
  const noted = await readNote(files, note);
  const found = noted ?? { ranges: [{ start: 0, end: length }], size: undefined };
  const kept = length > maxBytes ? NOTHING_KEPT : { ...found, ranges: clip(found.ranges, length) };
  const end = kept.ranges.at(-1)?.end ?? 0;
  if (end < length) await handle.truncate(end);
  // The length of a file without holes describes its contents.
  const holes = kept.ranges.length > 1 || (kept.ranges[0]?.start ?? 0) > 0;
  if (noted && !holes) await files.unlink(note).catch(() => undefined);
  return new Claim(handle, kept, { files, digest, name });
}

/**
 * Reads the size of the blob and one range per line; undefined without a note. After an invalid note nothing
 * is kept.
 */
async function readNote(files: StoreFiles, name: CacheName): Promise<PartialContents | undefined> {
  const handle = await files.open(name, constants.O_RDONLY);
  if (handle === undefined) return undefined;
  if (handle === 'untrusted') return NOTHING_KEPT;
  try {
    const [first, ...lines] = (await handle.readFile('latin1')).split('\n');
    if (!/^\d{0,15}$/.test(first!) || !lines.every((line) => /^\d{1,15}-\d{1,15}$/.test(line)))
      return NOTHING_KEPT;
    const ranges = lines.map((line) => {
      const [start, end] = line.split('-');
      return { start: Number(start), end: Number(end) };
    });
    const ordered = ranges.every(
      ({ start, end }, n) => start <= end && (n === 0 || ranges[n - 1]!.end <= start),
    );
    return ordered ? { ranges, size: first === '' ? undefined : Number(first) } : NOTHING_KEPT;
  } finally {
    await handle.close();
  }
}

/** Returns the parts of the ranges before `length`. */
function clip(ranges: readonly ByteRange[], length: number): ByteRange[] {
  return ranges
    .map(({ start, end }) => ({ start, end: Math.min(end, length) }))
    .filter(({ start, end }) => start < end);
}

async function privateClaim(digest: Digest, files: StoreFiles): Promise<Claim> {
  const name = files.private();
  const handle = await files.open(name, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL);
  if (typeof handle !== 'object') throw new Error(`${name} cannot be made`);
  return new Claim(handle, NOTHING_KEPT, { files, digest, name });
}

/** Opens or makes a partial file. Replaces one that cannot be trusted (a link, another user's file). */
async function openPartial(files: StoreFiles, name: CacheName): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT;
  const handle = await files.open(name, flags);
  if (typeof handle === 'object') return handle;
  await files.removeAny(name);
  const again = await files.open(name, flags);
  if (typeof again !== 'object') throw new Error(`${name} cannot be replaced`);
  return again;
}

/**
 * Returns a function that checks a file; it resolves to true once the file has not changed for `patience`
 * milliseconds.
 */
function watchFile(stat: () => Promise<Stats | undefined>, patience: number): () => Promise<boolean> {
  let last = '';
  let since = performance.now();
  return async () => {
    const stats = await stat();
    const now = `${stats?.blocks} ${stats?.size} ${stats?.mtimeMs}`;
    if (now !== last) since = performance.now();
    last = now;
    return performance.now() - since > patience;
  };
}
