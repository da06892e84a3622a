import { closeSync } from 'node:fs';
import { GitError, printable } from '../errors.ts';
import type { ObjectStore } from './object-store.ts';
import type { Breath } from './breath.ts';
import type { Came, LayerDraft } from './layer-draft.ts';
import type { ObjectID } from './object-id.ts';
import { SizeMismatch, contentIn, contentOf, type TreeFiles } from './tree-files.ts';

/** Turns what layers brought into blobs: each file is read once, mostly while the next ones are still being written. */
export class LayerReader {
  readonly #objects: ObjectStore;
  readonly #files: TreeFiles;
  readonly #breath: Breath;
  readonly #queue: Came[] = [];
  /** Read before the layer was complete: its path may have become another file's since. */
  #early: Came[] = [];
  #reading: Promise<void> | undefined;

  constructor(objects: ObjectStore, files: TreeFiles, breath: Breath) {
    this.#objects = objects;
    this.#files = files;
    this.#breath = breath;
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
      const id = this.#read(came);
      came.inode.id = typeof id === 'string' ? id : await id;
      if (this.#breath.isDue()) await this.#breath.take();
    }
  }

  /** Stops reading. */
  async discard(): Promise<void> {
    this.#queue.length = 0;
    await this.#reading;
  }

  async #readQueue(draft: LayerDraft): Promise<void> {
    try {
      for (let next = 0; next < this.#queue.length; next++) {
        const came = this.#queue[next]!;
        if (came.inode.id === undefined && draft.isThere(came)) {
          const reading = this.#readEarly(came);
          if (reading) await reading;
        }
        if (this.#breath.isDue()) await this.#breath.take();
      }
    } catch {
      // The signal: `readAll` hears of it too.
    }
    this.#queue.length = 0;
    this.#reading = undefined;
  }

  /** Reads what may be gone, or another file, by now. */
  #readEarly(came: Came): void | Promise<void> {
    const keep = (id: ObjectID): void => {
      came.inode.id = id;
      this.#early.push(came);
    };
    try {
      const id = this.#read(came);
      return typeof id === 'string' ? keep(id) : id.then(keep, () => undefined);
    } catch {
      return undefined;
    }
  }

  /** Answers at once for small files. */
  #read({ path, inode }: Came): ObjectID | Promise<ObjectID> {
    if (inode.type === 'symlink') {
      const target = Buffer.from(inode.linkPath, 'latin1');
      return this.#objects.add(target.length, contentIn(target));
    }
    const file = this.#files.open(path);
    let id: ObjectID | Promise<ObjectID>;
    try {
      id = this.#objects.add(inode.size, contentOf(file));
    } catch (error) {
      closeSync(file);
      throw readError(error, path);
    }
    if (typeof id === 'string') {
      closeSync(file);
      return id;
    }
    return id
      .catch((error: unknown) => {
        throw readError(error, path);
      })
      .finally(() => closeSync(file));
  }
}

function readError(error: unknown, path: string): unknown {
  if (!(error instanceof SizeMismatch)) return error;
  return new GitError(`${printable(path)} changed while it was read`, {
    code: 'GIT_CHANGED',
    hint: 'see who else writes there, and run it again',
  });
}
