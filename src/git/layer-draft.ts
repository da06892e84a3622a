import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { keptFiles } from './names.ts';
import type { ObjectStore } from './object-store.ts';
import { type ObjectID, type TreeEntry, ID_SIZE } from './objects.ts';
import { SizeMismatch, contentIn, contentOf } from './pack-writer.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { Inode, RootfsState } from './rootfs-state.ts';
import { isHoldable } from './trees.ts';
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
  /** Paths of files and symlinks that came; some may be gone again. */
  readonly #came = new Set<string>();
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: string[] = [];
  /** Files and symlinks that layers brought, not taken yet. */
  #written: Inode[] = [];

  constructor(state: RootfsState) {
    this.#state = state;
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
      this.#apply(change);
      if (change.type !== 'file' && change.type !== 'symlink' && change.type !== 'hardlink') continue;
      this.#came.add(change.path);
      const { inode } = this.#state.find(change.path)!;
      if (change.type !== 'hardlink' && change.own !== true) this.#written.push(inode);
      if (inode.type !== 'file') continue;
      if (isHoldable(change.path, 'file')) continue;
      this.#lines.push(lines.slice(copied, start), composeLine({ ...change, contents: this.#keep(change) }));
      copied = end + 1;
    }
    this.#lines.push(lines.slice(copied, start));
  }

  /** Files and symlinks that layers brought since the last call, in their order: some may be gone again. */
  takeWritten(): Inode[] {
    const written = this.#written;
    this.#written = [];
    return written;
  }

  /** Files and symlinks that came, are there still, and have no content yet. */
  unstored(): Came[] {
    return this.#present().filter(
      ({ path, inode }) =>
        inode.id === undefined &&
        (inode.type === 'file' || (inode.type === 'symlink' && isHoldable(path, 'symlink'))),
    );
  }

  /** Contents that the record's tree gets, in a directory `files`. All must be stored. */
  *keptFiles(): Generator<TreeEntry, void, void> {
    for (const [path, name] of this.#kept) {
      const id = this.#state.find(path)?.inode.id;
      if (id !== undefined) yield { name, mode: '100644', id };
    }
  }

  /** The record, one character a byte. */
  record(): string {
    return this.#lines.join('');
  }

  #keep({ path }: Written): string {
    const name = this.#kept.get(path) ?? String(this.#kept.size);
    this.#kept.set(path, name);
    return `${keptFiles}/${name}`;
  }

  #apply(change: Change): void {
    try {
      this.#state.apply(change);
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

  #present(): Came[] {
    return [...this.#came].flatMap((path) => {
      const place = this.#state.find(path);
      return place ? [{ path, inode: place.inode }] : [];
    });
  }
}

/** Gives files and symlinks the names of their blobs, which come from elsewhere in the same order. */
export class BlobNames {
  #waiting: Inode[] = [];
  #named = 0;
  #ids: Uint8Array[] = [];
  #failure: { readonly reason: unknown } | undefined;
  #settled: (() => void) | undefined;

  /** What was written next. */
  expect(inodes: readonly Inode[]): void {
    for (const inode of inodes) this.#waiting.push(inode);
    this.#match();
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
    while (this.#waiting.length > 0) {
      if (this.#failure) throw this.#failure.reason;
      await new Promise<void>((resolve) => {
        this.#settled = resolve;
      });
    }
  }

  #match(): void {
    for (let ids = this.#ids[0]; ids && this.#named < this.#waiting.length;) {
      this.#waiting[this.#named]!.id = Buffer.from(ids.buffer, ids.byteOffset, ID_SIZE).toString(
        'hex',
      ) as ObjectID;
      this.#named += 1;
      this.#ids[0] = ids = ids.subarray(ID_SIZE);
      if (ids.length > 0) continue;
      this.#ids.shift();
      ids = this.#ids[0]!;
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
   * Reads all of a complete layer that has no blob yet.
   *
   * @throws the system's errors, GitError for a file that is not what the layer says, the reason of the signal
   */
  async readAll(draft: LayerDraft): Promise<void> {
    this.#files.forget();
    for (const came of draft.unstored()) {
      came.inode.id = await this.#read(came);
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
