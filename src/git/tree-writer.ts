import type { Inode } from './inodes.ts';
import type { ObjectStore } from './object-store.ts';
import { contentIn } from './pack-writer.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { RootfsState } from './rootfs-state.ts';
import {
  type ObjectID,
  type TreeEntry,
  DIRECTORY,
  ID_SIZE,
  isHoldable,
  LONGEST_FOR_GIT,
  treeMode,
} from './trees.ts';
import { join } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';

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
export class TreeWriter {
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
