import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, rm, stat, unlink, utimes } from 'node:fs/promises';
import path from 'node:path';
import { geteuid } from 'node:process';
import { printable } from '../errors.ts';
import { algorithmOf, type Digest, type DigestAlgorithm, digestOf, hexOf } from '../oci/digest.ts';
import { explainOsError, hasCode, unlessCode } from '../sys/os-error.ts';
import { lockFile } from '../sys/system-calls.ts';
import { randomName } from '../sys/temp-file.ts';
import { trustedPath } from '../sys/os-path.ts';

const ALGORITHMS: readonly DigestAlgorithm[] = ['sha256', 'sha512'];

/**
 * The layout of the store's directory: complete blobs in `blobs/<algorithm>/<hex>`, incomplete ones in `partial/<algorithm>-<hex>`, and the last
 * known digest of a tag in `tags/<sha256 of the reference>`.
 */
export class StoreFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * The store in a directory, which may be missing.
   *
   * @throws DestinationError for a symlink that the kernel would not follow, or something that cannot be read as a directory
   */
  static async find(directory: string): Promise<StoreFiles> {
    const shown = printable(directory);
    const elsewhere = 'choose another directory with --cache-dir';
    try {
      await trustedPath(directory);
      await readdir(directory);
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw explainOsError(error, `read the cache ${shown}`, elsewhere);
    }
    return new StoreFiles(directory);
  }

  /**
   * Creates the missing directories.
   *
   * @throws DestinationError for a symlink that the kernel would not follow; an Error that says why the directory cannot be used
   */
  async prepare(): Promise<void> {
    await trustedPath(this.directory);
    await makeDirectories(this.directory);
    requireTrusted(this.directory, await stat(this.directory));
    // Without following links.
    for (const name of [this.blobs, ...this.#folders]) {
      await mkdir(name, { mode: DIRECTORY_MODE }).catch(unlessCode('EEXIST'));
      requireTrusted(name, await lstat(name));
    }
  }

  /** The directories of all files. */
  get #folders(): readonly string[] {
    return [...ALGORITHMS.map((name) => path.join(this.blobs, name)), this.partials, this.#tags];
  }

  get blobs(): string {
    return path.join(this.directory, 'blobs');
  }

  get partials(): string {
    return path.join(this.directory, 'partial');
  }

  blob(digest: Digest): string {
    return path.join(this.blobs, algorithmOf(digest), hexOf(digest));
  }

  /** The partial file, which other runs can resume. */
  partial(digest: Digest): string {
    return path.join(this.partials, `${algorithmOf(digest)}-${hexOf(digest)}`);
  }

  get #tags(): string {
    return path.join(this.directory, 'tags');
  }

  /** The file with the digest of a tag; `reference` is `name:tag`. */
  tag(reference: string): string {
    return path.join(this.#tags, hexOf(digestOf(Buffer.from(reference))));
  }

  /** A unique name for a partial file that no other run resumes. */
  private(): string {
    return path.join(this.partials, randomName('private-'));
  }

  /** Opens a complete blob for reading and marks it as used; removes a file there that cannot be trusted. */
  async openBlob(digest: Digest): Promise<FileHandle | undefined> {
    const name = this.blob(digest);
    const handle = await openTrusted(name, constants.O_RDONLY);
    // Nothing is removed where nothing was found: by now another run may have completed the blob.
    if (handle === 'untrusted') await rm(name, { recursive: true, force: true }).catch(() => undefined);
    if (handle === 'untrusted' || handle === undefined) return undefined;
    const now = new Date();
    await utimes(name, now, now).catch(() => undefined);
    return handle;
  }

  /** All files, complete and partial. */
  async list(): Promise<StoredFile[]> {
    const files = this.#folders.map(async (directory) => {
      const names = await readdir(directory).catch(() => []);
      return Promise.all(names.map((name) => describe(path.join(directory, name))));
    });
    return (await Promise.all(files)).flat().filter((file) => file !== undefined);
  }
}

async function describe(name: string): Promise<StoredFile | undefined> {
  const stats = await lstat(name).catch(() => undefined);
  // A partial file may have holes: its size on disk counts, in blocks of 512 bytes.
  return stats && { path: name, bytes: stats.blocks * 512, lastUsed: stats.mtimeMs };
}

/** Modes of new directories and files: private. */
export const DIRECTORY_MODE = 0o700;
export const FILE_MODE = 0o600;
const WRITABLE_BY_OTHERS = 0o022;

/** @throws an Error that says why the store must not use a directory: it must be this user's, and no other may write there */
function requireTrusted(name: string, stats: Stats): void {
  if (!stats.isDirectory()) throw new Error(`${name} is not a directory`);
  const me = geteuid?.();
  if (me !== undefined && stats.uid !== me)
    throw new Error(`${name} belongs to user ${stats.uid}, not to user ${me}`);
  if ((stats.mode & WRITABLE_BY_OTHERS) !== 0) throw new Error(`${name} can be written by others`);
}

/** Creates a directory and its missing parents. Node's recursive mkdir reports ENOENT for a read-only or failing disk. */
async function makeDirectories(name: string): Promise<void> {
  // The caller checks an existing one.
  const make = () => mkdir(name, { mode: DIRECTORY_MODE }).catch(unlessCode('EEXIST', 'EISDIR'));
  await make().catch(async (error: unknown) => {
    const parent = path.dirname(name);
    if (parent === name || !hasCode(error, 'ENOENT')) throw error;
    await makeDirectories(parent);
    await make();
  });
}

/**
 * Opens a file in a trusted directory; undefined where there is none, `untrusted` for anything but a regular file of this user with one link.
 *
 * @throws other errors of open(2)
 */
export async function openTrusted(
  name: string,
  flags: number,
): Promise<FileHandle | 'untrusted' | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(name, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, FILE_MODE);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    if (hasCode(error, 'ELOOP', 'EISDIR', 'ENXIO', 'ENOTDIR')) return 'untrusted';
    throw error;
  }
  const stats = await handle.stat();
  const me = geteuid?.();
  if (stats.isFile() && stats.nlink <= 1 && (me === undefined || stats.uid === me)) return handle;
  await handle.close();
  return 'untrusted';
}

/** Whether the name still leads to the open file, and not to one that another run put there, or to none. */
export async function isNameOf(name: string, handle: FileHandle): Promise<boolean> {
  const [named, opened] = await Promise.all([lstat(name).catch(() => undefined), handle.stat()]);
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

/** A file of the store, complete or partial. */
export interface StoredFile {
  readonly path: string;
  /** On disk, in bytes. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly lastUsed: number;
}

export function totalBytes(files: readonly StoredFile[]): number {
  return files.reduce((sum, file) => sum + file.bytes, 0);
}

/**
 * Removes leftovers of killed runs, and the least recently used files so that the others fit into `maxBytes`; not those that another process
 * is writing.
 *
 * @param pinned paths of files that must stay
 * @returns the files that are gone, and how many bytes are left
 */
export async function prune(
  store: StoreFiles,
  maxBytes: number,
  pinned: ReadonlySet<string> = new Set(),
): Promise<{ readonly removed: readonly StoredFile[]; readonly left: number }> {
  const files = await store.list();
  const others = files.filter((file) => pinned.has(file.path) || !isAbandoned(file, Date.now()));
  const leftovers = files.filter((file) => !others.includes(file));
  const removed = await removeUnused([...leftovers, ...filesToEvict(others, maxBytes, pinned)]);
  return { removed, left: totalBytes(files) - totalBytes(removed) };
}

/** The files to remove so that the others fit into `maxBytes`: the least recently used first. */
export function filesToEvict(
  files: readonly StoredFile[],
  maxBytes: number,
  pinned: ReadonlySet<string>,
): StoredFile[] {
  let excess = totalBytes(files) - maxBytes;
  const chosen: StoredFile[] = [];
  for (const file of files.toSorted((a, b) => a.lastUsed - b.lastUsed)) {
    if (excess <= 0) break;
    if (pinned.has(file.path)) continue;
    chosen.push(file);
    excess -= file.bytes;
  }
  return chosen;
}

const DAY = 86_400_000;

/** A file of a killed run: a private one after a day, another partial one after a month without use. */
export function isAbandoned(file: StoredFile, now: number): boolean {
  if (path.basename(path.dirname(file.path)) !== 'partial') return false;
  const days = /^(?:private-|\.dlrootfs-)/.test(path.basename(file.path)) ? 1 : 30;
  return now - file.lastUsed > days * DAY;
}

/** Removes files of the store, except partial ones that another process is writing. Returns those that are gone. */
async function removeUnused(files: readonly StoredFile[]): Promise<StoredFile[]> {
  const removed: StoredFile[] = [];
  for (const file of files) {
    const opened = await openTrusted(file.path, constants.O_RDWR).catch(() => undefined);
    const handle = typeof opened === 'object' ? opened : undefined;
    const isBusy = handle !== undefined && lockFile(handle.fd, 'exclusive') === 'busy';
    if (!isBusy)
      await unlink(file.path).then(
        () => removed.push(file),
        () => undefined,
      );
    await handle?.close();
  }
  return removed;
}

/** Names the directory in which a blob could not be written or read; errors that are not the system's stay as they are. */
export function diskError(error: unknown, where: string): unknown {
  return explainOsError(
    error,
    `keep blobs in ${printable(where)}`,
    'choose another directory with --cache-dir or -d',
  );
}
