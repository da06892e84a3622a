import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, readdir, rename, rm, unlink } from 'node:fs/promises';
import { geteuid } from 'node:process';
import { printable } from '../errors.ts';
import { algorithmOf, type Digest, digestOf, hexOf } from '../oci/digest.ts';
import type { EntryPlace } from '../sys/open-directory.ts';
import { explainOsError, hasCode } from '../sys/os-error.ts';
import { lockFile } from '../sys/system-calls.ts';
import { randomName, writeFileAtomically } from '../sys/temp-file.ts';
import {
  FILE_MODE,
  findCache,
  type Folder,
  FOLDERS,
  type OpenFolders,
  prepareCache,
} from './cache-directory.ts';

/** A file of the cache by its path in it: `blobs/sha256/…`. */
export type CacheName = `${Folder}/${string}`;

/**
 * The files of the cache: complete blobs in `blobs/<algorithm>/<hex>`, incomplete ones in
 * `partial/<algorithm>-<hex>`. The last known digest of a tag is in `tags/<sha256 of the reference>`. Other
 * files are left alone.
 *
 * The directory and its folders are opened once, and all files are named from their descriptors.
 */
export class StoreFiles {
  readonly directory: string;
  readonly #folders: OpenFolders;

  private constructor(directory: string, folders: OpenFolders) {
    this.directory = directory;
    this.#folders = folders;
  }

  /**
   * Opens an existing cache, to list it and to remove files; undefined if it does not exist.
   *
   * @throws the errors of `findCache`
   */
  static async find(directory: string): Promise<StoreFiles | undefined> {
    const folders = await findCache(directory);
    return folders && new StoreFiles(directory, folders);
  }

  /** Opens a cache, and makes its missing folders. @throws the errors of `prepareCache` */
  static async prepare(directory: string): Promise<StoreFiles> {
    return new StoreFiles(directory, await prepareCache(directory));
  }

  blob(digest: Digest): CacheName {
    return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
  }

  /** Returns the name of the partial file, which other runs can resume. */
  partial(digest: Digest): CacheName {
    return `partial/${algorithmOf(digest)}-${hexOf(digest)}`;
  }

  /** Returns the name of the list of ranges of a partial file with holes. */
  ranges(digest: Digest): CacheName {
    return `${this.partial(digest)}.ranges`;
  }

  /** Returns the name of the file with the digest of a tag; `reference` is `name:tag`. */
  tag(reference: string): CacheName {
    return `tags/${hexOf(digestOf(Buffer.from(reference)))}`;
  }

  /** Returns a unique name for a partial file that no other run resumes. */
  private(): CacheName {
    return `partial/${randomName('private-')}`;
  }

  /** Opens a file; see `openTrusted`. */
  async open(name: CacheName, flags: number): Promise<FileHandle | 'untrusted' | undefined> {
    return await openTrusted(this.#at(name), flags);
  }

  /** Opens a complete blob for reading and marks it as used. Removes a file there that cannot be trusted. */
  async openBlob(digest: Digest): Promise<FileHandle | undefined> {
    const name = this.blob(digest);
    const handle = await this.open(name, constants.O_RDONLY);
    // A missing file is not removed: another run may have completed the blob since.
    if (handle === 'untrusted') await this.removeAny(name).catch(() => undefined);
    if (handle === 'untrusted' || handle === undefined) return undefined;
    const now = new Date();
    await handle.utimes(now, now).catch(() => undefined);
    return handle;
  }

  /** Replaces a file atomically. */
  async write(name: CacheName, content: string | Uint8Array): Promise<void> {
    const workDirectory = this.#folders.get('partial')!;
    await writeFileAtomically(this.#place(name), content, { mode: FILE_MODE, workDirectory });
  }

  async rename(name: CacheName, to: CacheName): Promise<void> {
    await rename(this.#at(name), this.#at(to));
  }

  async unlink(name: CacheName): Promise<void> {
    await unlink(this.#at(name));
  }

  /** Removes a file of any type, also a directory. */
  async removeAny(name: CacheName): Promise<void> {
    await rm(this.#at(name), { recursive: true, force: true });
  }

  async stat(name: CacheName): Promise<Stats | undefined> {
    return await lstat(this.#at(name)).catch(() => undefined);
  }

  /** Returns true if the name still refers to the open file: another run may have replaced or removed it. */
  async isNameOf(name: CacheName, handle: FileHandle): Promise<boolean> {
    const [named, opened] = await Promise.all([this.stat(name), handle.stat()]);
    return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
  }

  /** Returns all files that the cache has named, complete and partial. */
  async list(): Promise<StoredFile[]> {
    const files = [...this.#folders].map(async ([folder, directory]) => {
      const names = await readdir(directory.at('.')).catch(() => []);
      const own = names.filter((name) => FOLDERS[folder].test(name));
      return Promise.all(own.map((name) => this.#describe(`${folder}/${name}`)));
    });
    return (await Promise.all(files)).flat().filter((file) => file !== undefined);
  }

  async #describe(name: CacheName): Promise<StoredFile | undefined> {
    const stats = await this.stat(name);
    // A partial file may have holes, so this is its size on disk, in blocks of 512 bytes.
    return stats && { name, bytes: stats.blocks * 512, lastUsed: stats.mtimeMs };
  }

  #place(name: CacheName): EntryPlace {
    const slash = name.lastIndexOf('/');
    return { directory: this.#folders.get(name.slice(0, slash) as Folder)!, name: name.slice(slash + 1) };
  }

  #at(name: CacheName): string | Buffer {
    const place = this.#place(name);
    return place.directory.at(place.name);
  }

  close(): void {
    for (const directory of this.#folders.values()) directory.close();
  }
}

/**
 * Opens a file in a trusted directory; undefined if it does not exist. `untrusted` for anything but a regular
 * file of this user with one link.
 *
 * @throws other errors of open(2)
 */
async function openTrusted(
  name: string | Buffer,
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

/** A file of the store, complete or partial. */
export interface StoredFile {
  readonly name: CacheName;
  /** Size on disk, in bytes. */
  readonly bytes: number;
  /** Time of the last use, in milliseconds since 1970. */
  readonly lastUsed: number;
}

export function totalBytes(files: readonly StoredFile[]): number {
  return files.reduce((sum, file) => sum + file.bytes, 0);
}

/**
 * Removes leftovers of killed runs. Then it removes the least recently used files until the others fit into
 * `maxBytes`. Files that another process is writing stay.
 *
 * @param pinned names of files that must stay
 * @returns the removed files, and the number of bytes left
 */
export async function prune(
  store: StoreFiles,
  maxBytes: number,
  pinned: ReadonlySet<string> = new Set(),
): Promise<{ readonly removed: readonly StoredFile[]; readonly left: number }> {
  const files = await store.list();
  const others = files.filter((file) => pinned.has(file.name) || !isAbandoned(file, Date.now()));
  const leftovers = files.filter((file) => !others.includes(file));
  const removed = await removeFiles(store, [...leftovers, ...filesToEvict(others, maxBytes, pinned)]);
  return { removed, left: totalBytes(files) - totalBytes(removed) };
}

/** Returns the files to remove so that the others fit into `maxBytes`, the least recently used first. */
export function filesToEvict(
  files: readonly StoredFile[],
  maxBytes: number,
  pinned: ReadonlySet<string>,
): StoredFile[] {
  let excess = totalBytes(files) - maxBytes;
  const chosen: StoredFile[] = [];
  for (const file of files.toSorted((a, b) => a.lastUsed - b.lastUsed)) {
    if (excess <= 0) break;
    if (pinned.has(file.name)) continue;
    chosen.push(file);
    excess -= file.bytes;
  }
  return chosen;
}

const DAY = 86_400_000;

/**
 * Returns true for a file of a killed run: a private one after a day, another partial one after a month
 * without use.
 */
export function isAbandoned(file: StoredFile, now: number): boolean {
  if (!file.name.startsWith('partial/')) return false;
  const days = /^partial\/(?:private-|\.dlrootfs-)/.test(file.name) ? 1 : 30;
  return now - file.lastUsed > days * DAY;
}

/** Removes files of the store, except those that another process is writing. Returns the removed ones. */
export async function removeFiles(store: StoreFiles, files: readonly StoredFile[]): Promise<StoredFile[]> {
  const removed: StoredFile[] = [];
  for (const file of files) {
    const opened = await store.open(file.name, constants.O_RDWR).catch(() => undefined);
    const handle = typeof opened === 'object' ? opened : undefined;
    const isBusy = handle !== undefined && lockFile(handle.fd, 'exclusive') === 'busy';
    if (!isBusy)
      await store.unlink(file.name).then(
        () => removed.push(file),
        () => undefined,
      );
    await handle?.close();
  }
  return removed;
}

/** Adds the directory in which a blob could not be written or read. Errors that are not the system's stay. */
export function diskError(error: unknown, where: string): unknown {
  return explainOsError(
    error,
    `keep blobs in ${printable(where)}`,
    'choose another directory with --cache-dir or -d',
  );
}
