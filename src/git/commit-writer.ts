import { childPath } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';
import { FileDirectory, type FileNode, type FileTree, sortedNames } from './file-tree.ts';
import type { ObjectStore } from './object-store.ts';
import { contentIn } from './pack-writer.ts';
import type { RepositoryFiles } from './repository-files.ts';
import {
  DIRECTORY,
  ID_BYTES,
  isHoldable,
  MAX_GIT_PATH_BYTES,
  type ObjectID,
  type TreeMode,
} from './trees.ts';

/** A directory whose tree is not complete yet. */
interface UnfinishedTree {
  readonly path: string;
  readonly name: string;
  readonly directory: FileDirectory;
  readonly names: Iterator<[key: string, node: FileNode], void>;
  /** The offset of its first byte. */
  readonly start: number;
  /** The number of files in it and in the directories below it. */
  files: number;
}

/** Initial size in bytes, enough for most rootfs. */
const FIRST_BYTES = 64 * 1024;

/**
 * Writes tree objects: for each name its mode, a space, the name, NUL and the bytes of its id.
 * gitformat-pack(5) does not describe them. base_name_compare in git's read-cache.c defines the order:
 * directories sort as if their names ended in a slash.
 */
class TreeWriter {
  readonly #objects: ObjectStore;
  readonly #files: RepositoryFiles;
  readonly #yielder: Yielder;
  /** The incomplete trees, each behind the one that it belongs to. */
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;

  constructor(objects: ObjectStore, files: RepositoryFiles, yielder: Yielder) {
    this.#objects = objects;
    this.#files = files;
    this.#yielder = yielder;
  }

  /**
   * Adds the root tree of all files that git can hold, and below it the trees of changed directories. Reads
   * the status of the files in these.
   */
  async addAll(tree: FileTree): Promise<ObjectID> {
    const open = [this.#open('', '', tree.root)];
    for (;;) {
      const last = open.at(-1)!;
      const next = last.names.next();
      if (next.done !== true) {
        const below = this.#addEntry(tree, last, next.value);
        if (below) open.push(below);
        if (this.#yielder.isDue()) await this.#yielder.pause();
        continue;
      }
      open.pop();
      const above = open.at(-1);
      const id = await this.#finish(last, above === undefined);
      if (!above) return id!.toString('hex') as ObjectID;
      this.#addDirectory(above, last.name, last.directory);
    }
  }

  #open(path: string, name: string, directory: FileDirectory): UnfinishedTree {
    const names = sortedNames(directory).values();
    return { path, name, directory, names, start: this.#length, files: 0 };
  }

  /**
   * Adds a file, or a directory whose tree exists, to `above`; returns a tree that must be completed first.
   */
  #addEntry(
    tree: FileTree,
    above: UnfinishedTree,
    [key, node]: [key: string, node: FileNode],
  ): UnfinishedTree | undefined {
    const isDirectory = node instanceof FileDirectory;
    const name = isDirectory ? key.slice(0, -1) : key;
    if (above.path.length + 1 + name.length > MAX_GIT_PATH_BYTES) return undefined;
    if (isDirectory) {
      if (node.children.size === 0 || !isHoldable(name, 'file')) return undefined;
      if (node.tree === undefined) return this.#open(childPath(above.path, name), name, node);
      this.#addDirectory(above, name, node);
      return undefined;
    }
    const mode = tree.mode(name, node);
    if (mode === undefined) return undefined;
    const { records } = tree;
    // Later only a new or a removed name of the file changes its status.
    if (records.needsStat(node)) records.setStat(node, this.#files.statIn(above.path, name));
    // `#begin` may move the bytes.
    const at = this.#begin(mode, name);
    records.copyId(node, this.#bytes, at);
    above.files += 1;
    return undefined;
  }

  #addDirectory(above: UnfinishedTree, name: string, { tree }: FileDirectory): void {
    // Git has no empty directories.
    if (!tree?.id) return;
    const at = this.#begin(DIRECTORY, name);
    tree.id.copy(this.#bytes, at);
    above.files += tree.files;
  }

  /** Adds an entry without its id; returns the offset for the id. */
  #begin(mode: TreeMode | typeof DIRECTORY, name: string): number {
    const size = mode.length + name.length + 2 + ID_BYTES;
    if (this.#length + size > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(2 * (this.#length + size));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.write(`${mode} ${name}\0`, this.#length, 'latin1');
    this.#length += size;
    return this.#length - ID_BYTES;
  }

  /** Adds the last tree as an object, unless it is empty and not the root. */
  async #finish({ directory, start, files }: UnfinishedTree, isRoot: boolean): Promise<Buffer | undefined> {
    const bytes = this.#bytes.subarray(start, this.#length);
    this.#length = start;
    let id: Buffer | undefined;
    if (isRoot || bytes.length > 0)
      id = Buffer.from(await this.#objects.addNamed(bytes.length, contentIn(bytes), 'tree'));
    directory.tree = { id, files };
    return id;
  }
}

/** Makes the trees and the commit of each layer, with the previous layer's commit as its parent. */
export class CommitWriter {
  readonly #objects: ObjectStore;
  readonly #trees: TreeWriter;
  /** The commit of the previous layer. */
  #tip: ObjectID | undefined;

  constructor(objects: ObjectStore, files: RepositoryFiles, yielder: Yielder) {
    this.#objects = objects;
    this.#trees = new TreeWriter(objects, files, yielder);
  }

  /**
   * Adds a layer's commit, whose author is dlrootfs. All contents must have their ids.
   *
   * @param number of the layer, from 0
   * @param time in seconds since 1970
   */
  async add(number: number, time: number, tree: FileTree): Promise<ObjectID> {
    const by = `dlrootfs <mail@mail.com> ${time} +0000`;
    const lines = [
      `tree ${await this.#trees.addAll(tree)}`,
      ...(this.#tip === undefined ? [] : [`parent ${this.#tip}`]),
      `author ${by}`,
      `committer ${by}`,
      '',
      `adding layer ${number}`,
    ];
    const text = Buffer.from(lines.join('\n'), 'latin1');
    this.#tip = await this.#objects.add(text.length, contentIn(text), 'commit');
    return this.#tip;
  }
}

/**
 * Returns a layer's date (RFC 3339) in seconds since 1970, so that two pulls of an image make the same
 * commits; without a valid date, the current time.
 */
export function commitTime(created: string | undefined): number {
  const milliseconds = created === undefined ? Number.NaN : Date.parse(created);
  if (Number.isNaN(milliseconds)) return Math.floor(Date.now() / 1000);
  // git has no dates before 1970.
  return Math.max(0, Math.floor(milliseconds / 1000));
}
