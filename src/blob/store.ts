import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rmdir, unlink } from 'node:fs/promises';
import { reasonOf } from '../errors.ts';
import { algorithmOf, Digest, digestOf } from '../oci/digest.ts';
import type { Report } from '../report/event.ts';
import { namelessFile } from '../sys/temp-file.ts';
import { claim, type Claim, type Wanted } from './claim.ts';
import { lockFile } from '../sys/system-calls.ts';
import {
  abandoned,
  DIRECTORY_MODE,
  diskError,
  FILE_MODE,
  openTrusted,
  removeUnused,
  StoreFiles,
  victims,
} from './store-files.ts';

export interface StoreOptions {
  /** Undefined: nothing is kept. */
  readonly directory: string | undefined;
  /** Where blobs lie that are not kept: on the disk of the destination, never in a temporary folder that is small. */
  readonly spoolDirectory: string;
  readonly maxBytes?: number | undefined;
  /** False: as where there are no locks between processes. */
  readonly locks?: boolean | undefined;
  readonly report: Report;
}

const DEFAULT_MAX_BYTES = 10 * 2 ** 30;
/** Manifests and configs are not larger than this, in bytes. */
const SMALL = 8 * 2 ** 20;
/** `sha512:` and 128 digits. */
const LONGEST_DIGEST = 135;

/**
 * Blobs by their digest, on disk, between runs. A directory that cannot be used (another user's, read-only, a file) is reported once
 * and the run goes on without it. Nothing that is read from it is trusted: see `openBlob`.
 */
export class Store {
  readonly #lock: typeof lockFile | undefined;
  readonly #spool: Spool;
  readonly #maxBytes: number;
  readonly #report: Report;
  readonly #pinned = new Set<string>();
  #files: StoreFiles | undefined;
  #writable = true;
  #keeps = false;
  /** Of all files together, once somebody asked. */
  #bytes: number | undefined;

  private constructor(options: StoreOptions) {
    this.#lock = options.locks === false ? undefined : lockFile;
    this.#spool = new Spool(options.spoolDirectory);
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
    this.#report = options.report;
  }

  static async open(options: StoreOptions): Promise<Store> {
    const store = new Store(options);
    if (options.directory === undefined) return store;
    const files = new StoreFiles(options.directory);
    try {
      await files.prepare();
      store.#files = files;
    } catch (error) {
      store.#writable = false;
      store.#warn('going on without the cache', error);
    }
    return store;
  }

  /** A manifest or config, whose digest was checked; undefined when it is not here. */
  async get(digest: Digest): Promise<Uint8Array | undefined> {
    const handle = await this.openBlob(digest);
    if (!handle) return undefined;
    try {
      const { size } = await handle.stat();
      const bytes = size <= SMALL ? await handle.readFile() : undefined;
      if (bytes && digestOf(bytes, algorithmOf(digest)) === digest) return bytes;
      await this.remove(digest);
      return undefined;
    } catch {
      return undefined;
    } finally {
      await handle.close();
    }
  }

  /** Keeps a manifest or config, whose digest the caller has checked, if it can be kept. */
  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    await this.#write((files) => files.blob(digest), bytes);
  }

  /** The digest that `remember` was told for `reference` (`name:tag`): perhaps not the tag's any more, but worth asking by HEAD. */
  async recall(reference: string): Promise<Digest | undefined> {
    if (!this.#files) return undefined;
    const name = this.#files.tag(reference);
    const handle = await openTrusted(name, constants.O_RDONLY).catch(() => undefined);
    if (!handle) return undefined;
    try {
      return Digest.parse((await handle.readFile('latin1')).slice(0, LONGEST_DIGEST));
    } catch {
      return undefined;
    } finally {
      await handle.close();
    }
  }

  /** Notes which digest a tag has. */
  async remember(reference: string, digest: Digest): Promise<void> {
    await this.#write((files) => files.tag(reference), Buffer.from(digest));
  }

  async #write(place: (files: StoreFiles) => string, bytes: Uint8Array): Promise<void> {
    const files = this.#files;
    if (!files || !this.#writable) return;
    const name = `${files.partials}/private-${randomUUID()}`;
    try {
      const handle = await open(name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, FILE_MODE);
      try {
        await handle.writeFile(bytes);
      } finally {
        await handle.close();
      }
      await rename(name, place(files));
      await this.#grown(bytes.length);
    } catch (error) {
      await unlink(name).catch(() => undefined);
      this.#readOnly(error);
    }
  }

  /** Whether a blob is here; not yet that it is right. */
  async has(digest: Digest): Promise<boolean> {
    const handle = await this.openBlob(digest);
    await handle?.close();
    return handle !== undefined;
  }

  /** A complete blob, for reading; the reader checks the digest. It is not evicted during this run. */
  async openBlob(digest: Digest): Promise<FileHandle | undefined> {
    if (!this.#files) return undefined;
    this.#pinned.add(this.#files.blob(digest));
    return this.#files.openBlob(digest).catch(() => undefined);
  }

  /** Removes a corrupt blob. */
  async remove(digest: Digest): Promise<void> {
    if (this.#files) await unlink(this.#files.blob(digest)).catch(() => undefined);
  }

  /** A file to write a blob to, or word that it is there by now; undefined when it cannot be kept. */
  async claim(wanted: Wanted): Promise<Claim | 'there' | undefined> {
    const files = this.#files;
    if (!files || !this.#writable) return undefined;
    const { digest, signal } = wanted;
    this.#pinned.add(files.partial(digest)).add(files.blob(digest));
    try {
      const claimed = await claim(wanted, { files, lock: this.#lock });
      return claimed === 'there' ? claimed : this.#counted(claimed);
    } catch (error) {
      signal.throwIfAborted();
      this.#readOnly(error);
      return undefined;
    }
  }

  #counted(claimed: Claim): Claim {
    const publish = async () => {
      const { size } = await claimed.handle.stat();
      await claimed.publish();
      this.#keeps = true;
      await this.#grown(size);
    };
    const release = async (keep: boolean) => {
      const kept = await claimed.release(keep);
      this.#keeps ||= kept;
      return kept;
    };
    return { ...claimed, publish, release };
  }

  /** What this run has downloaded of layers, whole or in part, is here for the next one. */
  get keeps(): boolean {
    return this.#keeps;
  }

  /**
   * A file for a blob that is not kept.
   *
   * @throws DestinationError
   */
  async spool(): Promise<FileHandle> {
    return this.#spool.file();
  }

  /** Where `spool` puts files. */
  get spoolDirectory(): string {
    return this.#spool.directory;
  }

  get directory(): string | undefined {
    return this.#files?.directory;
  }

  /** Makes the store fit its bound and removes what was left behind long ago. */
  async close(): Promise<void> {
    this.#pinned.clear();
    if (this.#files && this.#writable) {
      await removeUnused(abandoned(await this.#files.list(), Date.now()));
      await this.#fit(this.#files);
    }
    await this.#spool.close();
  }

  async #grown(bytes: number): Promise<void> {
    if (!this.#files) return;
    if (this.#bytes !== undefined) this.#bytes += bytes;
    if (this.#bytes === undefined || this.#bytes > this.#maxBytes) await this.#fit(this.#files);
  }

  async #fit(files: StoreFiles): Promise<void> {
    const all = await files.list(this.#pinned);
    const total = all.reduce((sum, file) => sum + file.bytes, 0);
    this.#bytes = total - (await removeUnused(victims(all, this.#maxBytes)));
  }

  #readOnly(error: unknown): void {
    if (this.#writable) this.#warn('nothing is added to the cache', error);
    this.#writable = false;
  }

  #warn(what: string, error: unknown): void {
    this.#report({ type: 'notice', message: `${what}: ${reasonOf(error)}` });
  }
}

/** Files without a name, for blobs that nobody wants to keep: the kernel frees them however the program ends. */
export class Spool {
  readonly directory: string;
  #made: string | undefined;

  constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * A new empty file, for reading and writing.
   *
   * @throws DestinationError
   */
  async file(): Promise<FileHandle> {
    try {
      this.#made ??= await mkdir(this.directory, { recursive: true, mode: DIRECTORY_MODE });
      return await namelessFile(this.directory);
    } catch (error) {
      throw diskError(error, this.directory);
    }
  }

  /** Removes the directory if it was made here. */
  async close(): Promise<void> {
    if (this.#made !== undefined) await rmdir(this.directory).catch(() => undefined);
  }
}

export interface StoreSize {
  /** Whole blobs, manifests and configs. */
  readonly blobs: number;
  /** Blobs that an interrupted run left, or that another run is fetching. */
  readonly partials: number;
  /** On disk. */
  readonly bytes: number;
}

/** What a store holds. A directory that is not there holds nothing. */
export async function storeSize(directory: string): Promise<StoreSize> {
  const store = new StoreFiles(directory);
  const files = await store.list();
  const below = (folder: string) => files.filter((file) => file.path.startsWith(`${folder}/`)).length;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return { blobs: below(store.blobs), partials: below(store.partials), bytes };
}

/**
 * Removes what was used longest ago until at most `maxBytes` are left; what another run is fetching stays. Answers how many files
 * and bytes are gone.
 */
export async function pruneStore(
  directory: string,
  maxBytes: number,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const store = new StoreFiles(directory);
  const before = await store.list();
  const leftovers = new Set(abandoned(before, Date.now()));
  await removeUnused([...leftovers]);
  await removeUnused(
    victims(
      before.filter((file) => !leftovers.has(file)),
      maxBytes,
    ),
  );
  const left = new Set((await store.list()).map((file) => file.path));
  const gone = before.filter((file) => !left.has(file.path));
  return { files: gone.length, bytes: gone.reduce((sum, file) => sum + file.bytes, 0) };
}
