import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import type { Breath } from './breath.ts';
import type { Came, LayerDraft } from './layer-draft.ts';
import type { ObjectID } from './object-id.ts';
import type { ObjectStore } from './object-store.ts';
import { SizeMismatch, contentIn, contentOf } from './pack-writer.ts';
import { refused } from './git-error.ts';
import type { RootfsFiles } from './rootfs-files.ts';

/** Turns what is on disk into blobs. */
export class LayerReader {
  readonly #objects: ObjectStore;
  readonly #files: RootfsFiles;
  readonly #breath: Breath;

  constructor(objects: ObjectStore, files: RootfsFiles, breath: Breath) {
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
    this.#files.forget();
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
    if (file === undefined) throw refused(`read ${this.#files.place(path)}`, -constants.errno.ENOENT);
    try {
      return await this.#objects.add(inode.size, contentOf(file));
    } catch (error) {
      throw error instanceof SizeMismatch ? changed(path) : error;
    } finally {
      this.#files.filesystem.closeFile(file);
    }
  }
}

function changed(path: string): GitError {
  return new GitError(`${printable(path)} changed while it was read`, {
    code: 'GIT_CHANGED',
    hint: 'see who else writes there, and run it again',
  });
}
