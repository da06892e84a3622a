import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { keptFiles, branchRef, composeTitle, recordPath, recordRef } from './refs.ts';
import type { ObjectStore } from './object-store.ts';
import { type ObjectID, type TreeEntry, DIRECTORY, ID_SIZE, isHoldable } from './trees.ts';
import { TreeWriter } from './tree-writer.ts';
import { SizeMismatch, contentIn, contentOf } from './pack-writer.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { Inode } from './inodes.ts';
import type { RootfsState } from './rootfs-state.ts';
import type { Yielder } from '../sys/yielder.ts';
import { type TreeChange, type Written, composeLine, parseLine } from '../tar/mtree.ts';
import type { LayerRecord } from './history.ts';

/** A new file at a path. */
export interface Came {
  readonly path: string;
  readonly inode: Inode;
}

/** The changes of one layer, until they become a commit and a record. */
export class LayerDraft {
  readonly #state: RootfsState;
  readonly #names: BlobNames;
  /** Files whose contents must be read from the disk. */
  readonly #files: Came[] = [];
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: Uint8Array[] = [];

  /** @param names gets the new files and symlinks of the layer */
  constructor(state: RootfsState, names: BlobNames) {
    this.#state = state;
    this.#names = names;
  }

  /**
   * Applies recorded changes: lines of `composeLine`.
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

  /** New files that still exist and whose contents must be read from the disk before it changes. */
  filesToRead(): Came[] {
    return this.#files.filter(
      ({ path, inode }) => inode.id === undefined && this.#state.find(path)?.number === inode.number,
    );
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
  #await({ path, type }: TreeChange, inode: Inode): void {
    const isNew = type !== 'hardlink';
    if (isNew && !inode.own) this.#names.expect(inode);
    // dlrootfs's own file. A further name has its blob already, except contents held only in an earlier record.
    else if (isNew || inode.contents !== undefined) this.#files.push({ path, inode });
  }

  #keep(path: string): string {
    const name = this.#kept.get(path) ?? String(this.#kept.size);
    this.#kept.set(path, name);
    return `${keptFiles}/${name}`;
  }

  #apply(change: TreeChange): Inode | undefined {
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
  #wake: (() => void) | undefined;

  constructor(state: RootfsState) {
    this.#state = state;
  }

  /** The inode whose content is the next one. */
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
    this.#wake?.();
  }

  /**
   * Waits until all have their names.
   *
   * @throws what it failed with
   */
  async allNamed(): Promise<void> {
    this.#match();
    while (this.#waiting.length > 0) {
      if (this.#failure) throw this.#failure.reason;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #match(): void {
    for (const ids of this.#ids.splice(0)) {
      const count = Math.min(ids.length / ID_SIZE, this.#waiting.length - this.#named);
      const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.length);
      for (let number = 0; number < count; number += 1) {
        this.#state.get(this.#waiting[this.#named + number]!).setId(bytes, number * ID_SIZE);
      }
      this.#named += count;
      if (count * ID_SIZE < ids.length) this.#ids.push(ids.subarray(count * ID_SIZE));
    }
    if (this.#named < this.#waiting.length) return;
    this.#waiting = [];
    this.#named = 0;
    this.#wake?.();
  }
}

/**
 * Stores a blob for each of these files that has none.
 *
 * @throws the system's errors, GitError for a file that is not what the layer says, the reason of the signal
 */
export async function storeContents(
  came: readonly Came[],
  objects: ObjectStore,
  files: RootfsFiles,
  yielder: Yielder,
): Promise<void> {
  files.forget();
  for (const { path, inode } of came) {
    if (inode.id !== undefined) continue;
    const file = files.open(path);
    if (file === undefined) throw new SyscallError(-constants.errno.ENOENT, `read ${files.place(path)}`);
    try {
      inode.id = await objects.add(inode.size, contentOf(file));
    } catch (error) {
      if (!(error instanceof SizeMismatch)) throw error;
      throw new GitError(`${printable(path)} changed while it was read`, {
        code: 'GIT_CHANGED',
        hint: 'see who else writes there, and run it again',
      });
    } finally {
      files.filesystem.closeFile(file);
    }
    if (yielder.isDue()) await yielder.pause();
  }
}

/** Makes trees and commits, each layer's on those of the one before. */
export class CommitWriter {
  readonly #objects: ObjectStore;
  readonly #trees: TreeWriter;
  /** The parents of the next layer's commits. */
  #tip: Pick<LayerRecord, 'commit' | 'id'> | undefined;
  /** Refs of the commits, by their full names, once git sees them. */
  readonly refs = new Map<string, ObjectID>();

  /** @param tip the layer below; undefined for the base layer */
  constructor(objects: ObjectStore, files: RootfsFiles, yielder: Yielder, tip: LayerRecord | undefined) {
    this.#objects = objects;
    this.#trees = new TreeWriter(objects, files, yielder);
    this.#tip = tip;
  }

  /**
   * Adds the layer's commit, and the one of its record. All contents must be stored.
   *
   * @param number of the layer, counted from 0
   * @param time in seconds since 1970
   */
  async add(
    branch: string,
    number: number,
    time: number,
    state: RootfsState,
    draft: LayerDraft,
  ): Promise<void> {
    const before = this.#tip;
    const tree = await this.#trees.addAll(state);
    const commit = await this.#addCommit(tree, before ? [before.commit] : [], time, `adding layer ${number}`);
    const record = await this.#addRecord(branch, draft);
    const parents = before ? [before.id, commit] : [commit];
    const id = await this.#addCommit(record, parents, time, `what git cannot hold of ${branch}`);
    this.#tip = { commit, id };
    this.refs.set(branchRef(branch), commit).set(recordRef(branch), id);
  }

  /** The tree with the record of the layer and the contents that no commit can hold. */
  async #addRecord(branch: string, draft: LayerDraft): Promise<ObjectID> {
    const record = [Buffer.from(composeTitle(branch), 'latin1'), ...draft.record()];
    const size = record.reduce((sum, { length }) => sum + length, 0);
    const entries: TreeEntry[] = [
      { name: recordPath, mode: '100644', id: await this.#objects.add(size, contentIn(record)) },
    ];
    const contents = [...draft.keptFiles()].toSorted((one, other) => (one.name < other.name ? -1 : 1));
    if (contents.length > 0)
      entries.unshift({ name: keptFiles, mode: DIRECTORY, id: await this.#trees.add(contents) });
    return this.#trees.add(entries);
  }

  /** Adds a commit object whose author is dlrootfs. */
  async #addCommit(
    tree: ObjectID,
    parents: readonly ObjectID[],
    time: number,
    message: string,
  ): Promise<ObjectID> {
    const by = `dlrootfs <mail@mail.com> ${time} +0000`;
    const lines = [
      `tree ${tree}`,
      ...parents.map((parent) => `parent ${parent}`),
      `author ${by}`,
      `committer ${by}`,
      '',
      message,
    ];
    const text = Buffer.from(lines.join('\n'), 'latin1');
    return this.#objects.add(text.length, contentIn(text), 'commit');
  }
}
