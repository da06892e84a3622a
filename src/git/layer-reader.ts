import { closeSync } from 'node:fs';
import { GitError, printable } from '../errors.ts';
import type { Breath } from './breath.ts';
import type { Came, LayerDraft } from './layer-draft.ts';
import type { ObjectID } from './object-id.ts';
import type { ObjectStore } from './object-store.ts';
import { SizeMismatch, contentIn, contentOf, type TreeFiles } from './tree-files.ts';

/** Turns what is on disk into blobs. */
export class LayerReader {
  readonly #objects: ObjectStore;
  readonly #files: TreeFiles;
  readonly #breath: Breath;

  constructor(objects: ObjectStore, files: TreeFiles, breath: Breath) {
    this.#objects = objects;
    this.#files = files;
    this.#breath = breath;
  }

  /**
   * Reads all of a complete layer that has no blob yet.
   *
   * @throws the system's errors, GitError for a file that is not what the layer says, the reason of the signal
   */
  async readAll(draft: LayerDraft): Promise<void> {
    for (const came of draft.unstored()) {
      came.inode.id = await this.#read(came);
      if (this.#breath.isDue()) await this.#breath.take();
    }
  }

  async #read({ path, inode }: Came): Promise<ObjectID> {
    if (inode.type === 'symlink') {
      const target = Buffer.from(inode.linkPath, 'latin1');
      return this.#objects.add(target.length, contentIn(target));
    }
    const file = this.#files.open(path);
    try {
      return await this.#objects.add(inode.size, contentOf(file));
    } catch (error) {
      throw error instanceof SizeMismatch
        ? new GitError(`${printable(path)} changed while it was read`, {
            code: 'GIT_CHANGED',
            hint: 'see who else writes there, and run it again',
          })
        : error;
    } finally {
      closeSync(file);
    }
  }
}
