import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { DestinationError } from '../errors.ts';
import { algorithmOf, Digest, digestOf } from '../oci/digest.ts';
import type { Report } from '../report/event.ts';
import { EXPOSED_DIRECTORY } from '../sys/level.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { hasCode, reasonOf } from '../sys/os-error.ts';
import { namelessFile } from '../sys/temp-file.ts';
import { DIRECTORY_MODE, unusable } from './cache-directory.ts';
import { claim, type Claim, type WantedBlob } from './claim.ts';
import { lockFile } from '../sys/system-calls.ts';
import { type CacheName, diskError, prune, type StoredFile, StoreFiles, totalBytes } from './store-files.ts';

export interface StoreOptions {
  /** Directory of the cache; undefined: nothing is kept. */
  readonly directory: string | undefined;
  /** A directory that cannot be used is an error, not a notice. */
  readonly required?: boolean | undefined;
  /** Directory for blobs that are not kept: on the disk of the destination, since /tmp may be small. */
  readonly spoolDirectory: string;
  readonly maxBytes: number;
  /** False: no locks between processes. */
  readonly locks?: boolean | undefined;
  readonly report: Report;
}

/** Limit in bytes on manifests and configs. */
const SMALL = 8 * 2 ** 20;

/**
 * Blobs by digest, on disk, for further runs. A directory that cannot be used (another user's, read-only, a
 * file) is reported once, and the run continues without it. Its contents are not trusted: see `openBlob`.
 */
export class Store {
  readonly #lock: typeof lockFile | undefined;
  /** Directory of the files of `spool`. */
  readonly spoolDirectory: string;
  #openSpoolDirectory: OpenDirectory | undefined;
  readonly #maxBytes: number;
  readonly #report: Report;
  readonly #pinned = new Set<CacheName>();
  #files: StoreFiles | undefined;
  #writable = true;
  #keeps = false;
  readonly #unpublished = new Set<Claim>();
  /** Size of all files together, once it was needed. */
  #bytes: number | undefined;

  private constructor(options: StoreOptions) {
    this.#lock = options.locks === false ? undefined : lockFile;
    this.spoolDirectory = options.spoolDirectory;
    this.#maxBytes = options.maxBytes;
    this.#report = options.report;
  }

  /**
   * Opens the store.
   *
   * @throws DestinationError for a directory with other files, or behind a symlink of another user
   * @throws errors for any other directory that cannot be used, if it is required
   */
  static async open(options: StoreOptions): Promise<Store> {
    const { directory, required = false } = options;
    const store = new Store(options);
    if (directory === undefined) return store;
    try {
      store.#files = await StoreFiles.prepare(directory);
    } catch (error) {
      if (required) throw unusable(error, directory);
      if (error instanceof DestinationError && error.code !== EXPOSED_DIRECTORY) throw error;
      store.#writable = false;
      store.#warn('continuing without the cache', error);
    }
    return store;
  }

  /** Returns a manifest or config with a verified digest; undefined if the store has none. */
  async get(digest: Digest): Promise<Uint8Array | undefined> {
    const handle = await this.openBlob(digest);
    if (!handle) return undefined;
    try {
      const { size } = await handle.stat();
      const bytes = size <= SMALL ? await handle.readFile() : undefined;
      if (bytes && digestOf(bytes, algorithmOf(digest)) === digest) return bytes;
      await this.remove(digest, handle);
      return undefined;
    } catch {
      return undefined;
    } finally {
      await handle.close();
    }
  }

  /** Keeps a manifest or config, if possible; the caller has verified its digest. */
  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    await this.#write((files) => files.blob(digest), bytes);
  }

  /**
   * Returns the digest that `remember` noted for `reference` (`name:tag`). The tag may have changed since; a
   * HEAD request tells.
   */
  async recall(reference: string): Promise<{ readonly digest: Digest; readonly at: Date } | undefined> {
    if (!this.#files) return undefined;
    const name = this.#files.tag(reference);
    const handle = await this.#files.open(name, constants.O_RDONLY).catch(() => undefined);
    if (typeof handle !== 'object') return undefined;
    try {
      const { mtime: at } = await handle.stat();
      // Notes of earlier versions have the first line alone.
      const [digest = ''] = (await handle.readFile('utf8')).split('\n', 1);
      return { digest: Digest.parse(digest), at };
    } catch {
      return undefined;
    } finally {
      await handle.close();
    }
  }

  /**
   * Notes the digest of a tag, and the tag itself, since the name of the file is a digest of it.
   *
   * @param subject the manifest that the document with this digest is about, such as the image of a signature
   */
  async remember(reference: string, digest: Digest, subject?: Digest): Promise<void> {
    const lines = [digest, reference, ...(subject === undefined ? [] : [subject]), ''];
    await this.#write((files) => files.tag(reference), Buffer.from(lines.join('\n')));
  }

  async #write(name: (files: StoreFiles) => CacheName, bytes: Uint8Array): Promise<void> {
    const files = this.#files;
    if (!files || !this.#writable) return;
    try {
      await files.write(name(files), bytes);
      await this.#grown(bytes.length);
    } catch (error) {
      this.#readOnly(error);
    }
  }

  /** Returns true if the store has a blob; its digest is not checked. */
  async has(digest: Digest): Promise<boolean> {
    const handle = await this.openBlob(digest);
    await handle?.close();
    return handle !== undefined;
  }

  /** Opens a complete blob; the reader checks its digest. This run does not evict it. */
  async openBlob(digest: Digest): Promise<FileHandle | undefined> {
    if (!this.#files) return undefined;
    this.#pinned.add(this.#files.blob(digest));
    return this.#files.openBlob(digest).catch(() => undefined);
  }

  /** Removes a corrupt blob, which was opened as `handle`, unless another run has replaced it. */
  async remove(digest: Digest, handle: FileHandle): Promise<void> {
    const files = this.#files;
    const name = files?.blob(digest);
    if (!files || name === undefined) return;
    if (await files.isNameOf(name, handle).catch(() => false))
      await files.unlink(name).catch(() => undefined);
  }

  /**
   * Returns a file for a blob, or `there` if another run has completed the blob. Undefined if it cannot be
   * kept.
   */
  async claim(wanted: WantedBlob): Promise<Claim | 'there' | undefined> {
    const files = this.#files;
    if (!files || !this.#writable) return undefined;
    const { digest, signal } = wanted;
    this.#pinned.add(files.partial(digest)).add(files.blob(digest));
    try {
      const claimed = await claim(wanted, { files, lock: this.#lock });
      if (claimed !== 'there') this.#unpublished.add(claimed);
      return claimed;
    } catch (error) {
      signal.throwIfAborted();
      this.#readOnly(error);
      return undefined;
    }
  }

  /** Makes a claimed file the blob: it is complete and its digest is right. */
  async publish(claimed: Claim): Promise<void> {
    const { size } = await claimed.handle.stat();
    await claimed.publish();
    this.#unpublished.delete(claimed);
    this.#keeps = true;
    await this.#grown(size);
  }

  /**
   * Discards a claimed file that cannot be written, because of `error`. Nothing more is added to the store.
   */
  async giveUp(claimed: Claim, error: unknown): Promise<void> {
    this.#unpublished.delete(claimed);
    this.#readOnly(error);
    await claimed.discard();
  }

  /** Ends a claim. `keep`: another run may resume the file. */
  async release(claimed: Claim, keep: boolean): Promise<void> {
    if (await claimed.release(keep)) this.#keeps = true;
  }

  /**
   * True if layers are missing and the store has some of their bytes, so that the next run downloads less.
   */
  get isResumable(): boolean {
    return this.#keeps && this.#unpublished.size > 0;
  }

  /**
   * Opens a nameless file for a blob that is not kept: the kernel frees it when the program ends.
   *
   * @throws DestinationError
   */
  async spool(): Promise<FileHandle> {
    const directory = this.spoolDirectory;
    try {
      this.#openSpoolDirectory ??= OpenDirectory.open(directory, { make: DIRECTORY_MODE });
      return await namelessFile(this.#openSpoolDirectory);
    } catch (error) {
      throw diskError(error, directory);
    }
  }

  get directory(): string | undefined {
    return this.#files?.directory;
  }

  /** Removes old leftovers, and evicts blobs until the store is within its limit. */
  async close(): Promise<void> {
    this.#pinned.clear();
    if (this.#files && this.#writable) await prune(this.#files, this.#maxBytes);
    this.#files?.close();
    this.#files = undefined;
    this.#openSpoolDirectory?.removeMade();
    this.#openSpoolDirectory?.close();
    this.#openSpoolDirectory = undefined;
  }

  async #grown(bytes: number): Promise<void> {
    if (!this.#files) return;
    if (this.#bytes !== undefined) this.#bytes += bytes;
    if (this.#bytes !== undefined && this.#bytes <= this.#maxBytes) return;
    this.#bytes = (await prune(this.#files, this.#maxBytes, this.#pinned)).left;
  }

  #readOnly(error: unknown): void {
    const explained = this.#files ? diskError(error, this.#files.directory) : error;
    if (this.#writable) this.#warn('nothing is added to the cache', explained);
    this.#writable = false;
  }

  #warn(what: string, error: unknown): void {
    const hint = hasCode(error, EXPOSED_DIRECTORY) ? '; choose another directory with --cache-dir' : '';
    this.#report({ type: 'notice', message: `${what}: ${reasonOf(error)}${hint}` });
  }
}

/** Files of a store: all of them, or those that were removed. */
export interface StoreSize {
  readonly directory: string;
  /** Number of complete blobs, manifests and configs. */
  readonly blobs: number;
  /** Number of incomplete blobs of interrupted runs, and of blobs that another run is downloading. */
  readonly partials: number;
  /** Size on disk in bytes, including the notes of tags. */
  readonly bytes: number;
}

/**
 * Returns the numbers and size of a store's files; all 0 if the directory does not exist.
 *
 * @throws the errors of `StoreFiles.find`
 */
export async function storeSize(directory: string): Promise<StoreSize> {
  return await withFiles(directory, (store) => store.list());
}

/**
 * Removes the least recently used files until at most `maxBytes` are left, except those that another run is
 * writing. Returns the numbers and size of the removed files.
 *
 * @throws the errors of `StoreFiles.find`
 */
export async function pruneStore(directory: string, maxBytes: number): Promise<StoreSize> {
  return await withFiles(directory, async (store) => (await prune(store, maxBytes)).removed);
}

async function withFiles(
  directory: string,
  use: (store: StoreFiles) => Promise<readonly StoredFile[]>,
): Promise<StoreSize> {
  const store = await StoreFiles.find(directory);
  const files = store ? await use(store) : [];
  store?.close();
  return sizeOf(directory, files);
}

/** Counts files of a store and adds up their sizes. */
export function sizeOf(directory: string, files: readonly StoredFile[]): StoreSize {
  const below = (folder: string) => files.filter(({ name }) => name.startsWith(folder)).length;
  return { directory, blobs: below('blobs/'), partials: below('partial/'), bytes: totalBytes(files) };
}
