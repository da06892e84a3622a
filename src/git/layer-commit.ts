import { constants } from 'node:os';
import { GitError, printable } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { keptFiles, branchRef, composeTitle, recordPath, recordRef } from './refs.ts';
import type { ObjectStore } from './object-store.ts';
import {
  type ObjectID,
  type TreeEntry,
  DIRECTORY,
  ID_SIZE,
  isHoldable,
  LONGEST_FOR_GIT,
  treeMode,
} from './trees.ts';
import type { Packer } from './packer.ts';
import { join } from '../rootfs/directories.ts';
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
  readonly #packer: Pick<Packer, 'expect'>;
  /** Files whose contents must be read from the disk. */
  readonly #files: Came[] = [];
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: Uint8Array[] = [];

  /** @param packer gives the new files and symlinks of the layer their blobs */
  constructor(state: RootfsState, packer: Pick<Packer, 'expect'>) {
    this.#state = state;
    this.#packer = packer;
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
      const change = parseLine(lines, start, end);
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
    if (isNew && !inode.own) this.#packer.expect(inode);
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

/** A directory whose tree is not complete yet. */
interface OpenTree {
  readonly path: string;
  readonly name: string;
  readonly directory: Inode;
  readonly names: Iterator<[key: string, number: number], void>;
  /** Where its bytes begin. */
  readonly start: number;
}

/** In bytes: enough for most rootfs. */
const FIRST_SIZE = 64 * 1024;

/**
 * Writes tree objects: for each name its mode, a space, the name, NUL and the bytes of its id. gitformat-pack(5) does not describe them.
 * base_name_compare in git's read-cache.c defines the order: directories are sorted as if their names ended in a slash.
 *
 * `git fast-import` could do it, but it looks for each file of a directory from its beginning: a layer of 40,000 files took it 1.6 s.
 */
class TreeWriter {
  readonly #objects: ObjectStore;
  readonly #files: RootfsFiles;
  readonly #yielder: Yielder;
  /** The trees that are not complete, each behind the one that it belongs to. */
  #bytes = Buffer.allocUnsafeSlow(FIRST_SIZE);
  #length = 0;

  constructor(objects: ObjectStore, files: RootfsFiles, yielder: Yielder) {
    this.#objects = objects;
    this.#files = files;
    this.#yielder = yielder;
  }

  /** Adds a tree of these entries, which are in git's order. */
  async add(entries: readonly TreeEntry[]): Promise<ObjectID> {
    const start = this.#length;
    for (const { mode, name, id } of entries) this.#bytes.write(id, this.#begin(mode, name), 'hex');
    return this.#finish(start);
  }

  /**
   * Adds the tree of all that git holds of a rootfs, and below it those of directories that changed since they were last added. Reads the
   * status of the files in those.
   */
  async addAll(state: RootfsState): Promise<ObjectID> {
    if (state.root.id !== undefined) return state.root.id;
    const open = [this.#open(state, '', '', state.root)];
    for (;;) {
      const tree = open.at(-1)!;
      const next = tree.names.next();
      if (next.done !== true) {
        const below = this.#addEntry(state, tree, next.value);
        if (below) open.push(below);
        if (this.#yielder.isDue()) await this.#yielder.pause();
        continue;
      }
      open.pop();
      const above = open.at(-1);
      // Git has no empty directories.
      if (this.#length === tree.start && above) continue;
      const id = await this.#finish(tree.start);
      tree.directory.id = id;
      if (!above) return id;
      this.#put(DIRECTORY, tree.name, tree.directory);
    }
  }

  #open(state: RootfsState, path: string, name: string, directory: Inode): OpenTree {
    return { path, name, directory, names: state.sortedNames(directory).values(), start: this.#length };
  }

  /** Adds a file, or a directory that has its tree, to the last tree; returns the tree that must be added first. */
  #addEntry(
    state: RootfsState,
    { path }: OpenTree,
    [key, number]: [key: string, number: number],
  ): OpenTree | undefined {
    const inode = state.get(number);
    const { children } = inode;
    const name = children ? key.slice(0, -1) : key;
    if (path.length + 1 + name.length > LONGEST_FOR_GIT) return undefined;
    if (!children) {
      const mode = treeMode(name, inode);
      if (mode === undefined) return undefined;
      // Only a new or a removed name of the file changes it later.
      if (!inode.linked && !inode.hasStat) inode.setStat(this.#files.statIn(path, name));
      this.#put(mode, name, inode);
      return undefined;
    }
    if (children.size === 0 || !isHoldable(name, 'file')) return undefined;
    if (!inode.hasId) return this.#open(state, join(path, name), name, inode);
    this.#put(DIRECTORY, name, inode);
    return undefined;
  }

  #put(mode: TreeEntry['mode'], name: string, inode: Inode): void {
    const at = this.#begin(mode, name);
    inode.copyId(this.#bytes, at);
  }

  /** Adds an entry; returns where its id is to be written. */
  #begin(mode: TreeEntry['mode'], name: string): number {
    const size = mode.length + name.length + 2 + ID_SIZE;
    if (this.#length + size > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(2 * (this.#length + size));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.write(`${mode} ${name}\0`, this.#length, 'latin1');
    this.#length += size;
    return this.#length - ID_SIZE;
  }

  /** Adds the last tree as an object. */
  async #finish(start: number): Promise<ObjectID> {
    const tree = this.#bytes.subarray(start, this.#length);
    this.#length = start;
    return this.#objects.add(tree.length, contentIn(tree), 'tree');
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
