import { closeSync } from 'node:fs';
import { GitError, printable } from '../errors.ts';
import { BlobStore } from './blob-store.ts';
import type { Came, LayerDraft } from './layer-draft.ts';
import type { ObjectID } from './object-id.ts';
import { SizeMismatch, contentIn, contentOf, type TreeFiles } from './tree-files.ts';

/** Turns what layers brought into blobs: each file is read once, mostly while the next ones are still being written. */
export class LayerReader {
  readonly #blobs: BlobStore;
  readonly #files: TreeFiles;
  readonly #breathe: () => Promise<void>;
  readonly #queue: Came[] = [];
  /** Read before the layer was complete: its path may have become another file's since. */
  #early: Came[] = [];
  #reading: Promise<void> | undefined;

  /**
   * @param directory `objects/pack` of the repository
   * @param breathe called in long loops
   */
  constructor(directory: string, files: TreeFiles, breathe: () => Promise<void>) {
    this.#blobs = new BlobStore(directory, breathe);
    this.#files = files;
    this.#breathe = breathe;
  }

  /** Bytes of blobs that git does not see yet. */
  get pending(): number {
    return this.#blobs.pending;
  }

  /**
   * Reads files that came, in the background. What goes wrong here does not count: a file may be gone or another one again before the
   * layer is complete. (Of one that is, git will have a blob that no commit needs.)
   */
  readAhead(draft: LayerDraft): void {
    this.#queue.push(...draft.takeWritten());
    this.#reading ??= this.#readQueue(draft);
  }

  /**
   * Reads all of a complete layer that was not read yet.
   *
   * @throws the system's errors, GitError for a file that is not what the layer says, the reason of the signal
   */
  async readAll(draft: LayerDraft): Promise<void> {
    await this.#reading;
    for (const came of this.#early) {
      if (!draft.isThere(came)) came.inode.id = undefined;
    }
    this.#early = [];
    for (const came of draft.unstored()) {
      came.inode.id = await this.#read(came);
      await this.#breathe();
    }
  }

  /** Adds a blob of our own. */
  store(bytes: Uint8Array): Promise<ObjectID> {
    return this.#blobs.add(bytes.length, contentIn(bytes));
  }

  /** Lets git see all blobs so far. */
  complete(): Promise<void> {
    return this.#blobs.complete();
  }

  /** Leaves nothing behind that was not completed. */
  async discard(): Promise<void> {
    this.#queue.length = 0;
    await this.#reading;
    await this.#blobs.discard();
  }

  async #readQueue(draft: LayerDraft): Promise<void> {
    try {
      for (let next = 0; next < this.#queue.length; next++) {
        const came = this.#queue[next]!;
        if (came.inode.id === undefined && draft.isThere(came)) {
          came.inode.id = await this.#read(came).catch(() => undefined);
          this.#early.push(came);
        }
        await this.#breathe();
      }
    } catch {
      // The signal: `readAll` hears of it too.
    }
    this.#queue.length = 0;
    this.#reading = undefined;
  }

  async #read({ path, inode }: Came): Promise<ObjectID> {
    if (inode.type === 'symlink') return this.store(Buffer.from(inode.linkPath, 'latin1'));
    const file = this.#files.open(path);
    try {
      return await this.#blobs.add(inode.size, contentOf(file));
    } catch (error) {
      if (!(error instanceof SizeMismatch)) throw error;
      throw new GitError(`${printable(path)} changed while it was read`, { code: 'GIT_CHANGED' });
    } finally {
      closeSync(file);
    }
  }
}
