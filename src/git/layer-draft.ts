import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { keptFiles } from './refs.ts';
import type { ObjectStore } from './object-store.ts';
import { type ObjectID, type TreeEntry, ID_SIZE, isHoldable } from './trees.ts';
import { SizeMismatch, contentIn, contentOf } from './pack-writer.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { Inode } from './inodes.ts';
import type { RootfsState } from './rootfs-state.ts';
import type { Yielder } from '../sys/yielder.ts';
import { type Change, type Written, composeLine, parseLine } from '../tar/mtree.ts';

/** What came to a path. */
export interface Came {
  readonly path: string;
  readonly inode: Inode;
}

/** What one layer did, on its way to become a commit and a record. */
export class LayerDraft {
  readonly #state: RootfsState;
  readonly #names: BlobNames | undefined;
  /** Files whose contents must be read from the disk. */
  readonly #files: Came[] = [];
  /** Symlinks whose targets are no blobs yet. */
  readonly #symlinks: Came[] = [];
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: Uint8Array[] = [];

  /** @param names told what a layer brings; undefined: all is to be read from the disk */
  constructor(state: RootfsState, names: BlobNames | undefined) {
    this.#state = state;
    this.#names = names;
  }

  /**
   * Plays lines of `composeLine`.
   *
   * @throws GitError when they are not the changes of this rootfs
   */
  play(bytes: Uint8Array): void {
    const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    let copied = 0;
    let start = 0;
    for (let end = lines.indexOf('\n'); end !== -1; start = end + 1, end = lines.indexOf('\n', start)) {
      const change = parseLine(lines.slice(start, end));
      const inode = this.#apply(change);
      if (inode?.type !== 'file' && inode?.type !== 'symlink') continue;
      this.#await(change, inode);
      if (inode.type !== 'file' || isHoldable(change.path, 'file')) continue;
      const kept = composeLine({ ...(change as Written), contents: this.#keep(change.path) });
      this.#lines.push(bytes.subarray(copied, start), Buffer.from(kept, 'latin1'));
      copied = end + 1;
    }
    this.#lines.push(bytes.subarray(copied));
  }

  /** Files that came, are there still, and whose contents are to be read from the disk before it changes. */
  filesToRead(): Came[] {
    return this.#files.filter((came) => this.#isUnstored(came));
  }

  /** Symlinks that came, are there still, and have no blob. */
  symlinksToStore(): Came[] {
    return this.#symlinks.filter((came) => isHoldable(came.path, 'symlink') && this.#isUnstored(came));
  }

  /** Contents that the record's tree gets, in a directory `files`. All must be stored. */
  *keptFiles(): Generator<TreeEntry, void, void> {
    for (const [path, name] of this.#kept) {
      const id = this.#state.find(path)?.id;
      if (id !== undefined) yield { name, mode: '100644', id };
    }
  }

  /** The record, in parts. */
  record(): readonly Uint8Array[] {
    return this.#lines;
  }

  /** Notes how a file or a symlink gets its blob. */
  #await({ path, type }: Change, inode: Inode): void {
    const isNew = type !== 'hardlink';
    if (isNew && !inode.own && this.#names) this.#names.expect(inode);
    else if (inode.type === 'symlink') this.#symlinks.push({ path, inode });
    // A further name of what this or an earlier layer brought has its blob, but for what only an earlier run's record holds.
    else if (isNew || !this.#names || inode.contents !== undefined) this.#files.push({ path, inode });
  }

  #isUnstored({ path, inode }: Came): boolean {
    return inode.id === undefined && this.#state.find(path)?.number === inode.number;
  }

  #keep(path: string): string {
    const name = this.#kept.get(path) ?? String(this.#kept.size);
    this.#kept.set(path, name);
    return `${keptFiles}/${name}`;
  }

  #apply(change: Change): Inode | undefined {
    try {
      return this.#state.apply(change);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new GitError(
        `the changes of the layer do not fit together at ${printable(change.path)}: ${error.message}`,
        {
          code: 'GIT_CHANGES',
          hint: 'pull it without -g, and report this with the name of the image',
          cause: error,
        },
      );
    }
  }
}

/** Gives files and symlinks the names of their blobs, which come from elsewhere in the same order. */
export class BlobNames {
  readonly #state: RootfsState;
  /** Numbers of inodes. */
  #waiting: number[] = [];
  #named = 0;
  #ids: Uint8Array[] = [];
  #failure: { readonly reason: unknown } | undefined;
  #settled: (() => void) | undefined;

  constructor(state: RootfsState) {
    this.#state = state;
  }

  /** What was written next. */
  expect({ number }: Inode): void {
    this.#waiting.push(number);
  }

  /** The next names, `idSize` bytes each. */
  take(ids: Uint8Array): void {
    this.#ids.push(ids);
    this.#match();
  }

  /** No more names will come. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#settled?.();
  }

  /**
   * Waits until all have their names.
   *
   * @throws what it failed with
   */
  async settled(): Promise<void> {
    this.#match();
    while (this.#waiting.length > 0) {
      if (this.#failure) throw this.#failure.reason;
      await new Promise<void>((resolve) => {
        this.#settled = resolve;
      });
    }
  }

  #match(): void {
    for (const ids of this.#ids.splice(0)) {
      const count = Math.min(ids.length / ID_SIZE, this.#waiting.length - this.#named);
      const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.length);
      for (let number = 0; number < count; number += 1) {
        const id = bytes.toString('hex', number * ID_SIZE, (number + 1) * ID_SIZE);
        this.#state.get(this.#waiting[this.#named + number]!).id = id as ObjectID;
      }
      this.#named += count;
      if (count * ID_SIZE < ids.length) this.#ids.push(ids.subarray(count * ID_SIZE));
    }
    if (this.#named < this.#waiting.length) return;
    this.#waiting = [];
    this.#named = 0;
    this.#settled?.();
  }
}

/** Turns what is on disk into blobs. */
export class LayerReader {
  readonly #objects: ObjectStore;
  readonly #files: RootfsFiles;
  readonly #yielder: Yielder;

  constructor(objects: ObjectStore, files: RootfsFiles, yielder: Yielder) {
    this.#objects = objects;
    this.#files = files;
    this.#yielder = yielder;
  }

  /**
   * Writes a blob for each of these entries that has none.
   *
   * @throws the system's errors, GitError for a file that is not what the layer says, the reason of the signal
   */
  async readAll(came: readonly Came[]): Promise<void> {
    this.#files.forget();
    for (const one of came) {
      one.inode.id ??= await this.#read(one);
      if (this.#yielder.isDue()) await this.#yielder.pause();
    }
  }

  async #read({ path, inode }: Came): Promise<ObjectID> {
    if (inode.type === 'symlink') {
      const target = Buffer.from(inode.linkPath, 'latin1');
      return this.#objects.add(target.length, contentIn(target));
    }
    const file = this.#files.open(path);
    if (file === undefined)
      throw new SyscallError(-constants.errno.ENOENT, `read ${this.#files.place(path)}`);
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
