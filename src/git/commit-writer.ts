import type { ObjectStore } from './object-store.ts';
import { contentIn } from './pack-writer.ts';
import type { Inode } from './inodes.ts';
import type { RootfsState } from './rootfs-state.ts';
import { join } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';
import type { LayerRecord } from './history.ts';
import type { LayerDraft } from './layer-draft.ts';
import { branchRef, composeTitle, keptFiles, recordPath, recordRef } from './refs.ts';
import { type ObjectID, type TreeEntry, ID_SIZE, isHoldable, treeFile, LONGEST_FOR_GIT } from './trees.ts';

/** Commits that the next layer's are put upon. */
type Tip = Pick<LayerRecord, 'commit' | 'id'>;

/** What there is to say of a layer in commits. All contents must be stored. */
export interface LayerCommits {
  readonly branch: string;
  /** Counted from 0. */
  readonly number: number;
  /** Seconds since 1970. */
  readonly time: number;
  readonly state: RootfsState;
  readonly draft: LayerDraft;
}

/**
 * Makes trees and commits, each layer's on those of the one before.
 *
 * `git fast-import` could do it, but it looks for each file of a directory from its beginning: a layer of 40,000 files took it 1.6 s.
 */
export class CommitWriter {
  readonly #objects: ObjectStore;
  readonly #trees: TreeWriter;
  #tip: Tip | undefined;
  readonly #refs = new Map<string, ObjectID>();

  /**
   * @param tip the layer to go on from, undefined: there is none
   * @param see told what is in each directory in which something changed
   */
  constructor(objects: ObjectStore, yielder: Yielder, tip: Tip | undefined, see: SeeFile) {
    this.#objects = objects;
    this.#trees = new TreeWriter(objects, yielder, see);
    this.#tip = tip;
  }

  /** Refs of the commits, by their full names, once git sees them. */
  get refs(): ReadonlyMap<string, ObjectID> {
    return this.#refs;
  }

  /** Adds the layer's commit, and the one of its record. */
  async add({ branch, number, time, state, draft }: LayerCommits): Promise<void> {
    const before = this.#tip;
    const commit = await this.#addCommit({
      tree: await this.#trees.write(state),
      parents: before ? [before.commit] : [],
      time,
      message: `adding layer ${number}`,
    });
    const id = await this.#addCommit({
      tree: await this.#addRecord(branch, draft),
      parents: before ? [before.id, commit] : [commit],
      time,
      message: `what git cannot hold of ${branch}`,
    });
    this.#tip = { commit, id };
    this.#refs.set(branchRef(branch), commit).set(recordRef(branch), id);
  }

  /** The tree with the record of the layer and the contents that no commit can hold. */
  async #addRecord(branch: string, draft: LayerDraft): Promise<ObjectID> {
    const record = [Buffer.from(composeTitle(branch), 'latin1'), ...draft.record()];
    const size = record.reduce((sum, { length }) => sum + length, 0);
    const id = await this.#objects.add(size, contentIn(record));
    const contents = [...draft.keptFiles()];
    const below =
      contents.length === 0
        ? []
        : [{ name: keptFiles, mode: '40000', id: await this.#trees.add(contents) } as const];
    return this.#trees.add([{ name: recordPath, mode: '100644', id }, ...below]);
  }

  async #addCommit(commit: Commit): Promise<ObjectID> {
    const text = composeCommit(commit);
    return this.#objects.add(text.length, contentIn(text), 'commit');
  }
}

/** Writes the trees of a rootfs, only of directories that changed since they were last written. */
class TreeWriter {
  readonly #store: ObjectStore;
  readonly #yielder: Yielder;
  readonly #see: SeeFile;

  /** @param see told what is in each directory that is made a tree of */
  constructor(store: ObjectStore, yielder: Yielder, see: SeeFile) {
    this.#store = store;
    this.#yielder = yielder;
    this.#see = see;
  }

  /** The tree of all that git holds of a rootfs. All contents must be stored. */
  async write(state: RootfsState): Promise<ObjectID> {
    const { root } = state;
    if (root.id !== undefined) return root.id;
    const open = [openTree('', '', root)];
    for (;;) {
      const tree = open.at(-1)!;
      const next = tree.rest.next();
      if (next.done !== true) {
        const [name, number] = next.value;
        const below = this.#addFile(tree, name, state.get(number));
        if (below) open.push(below);
        if (this.#yielder.isDue()) await this.#yielder.pause();
        continue;
      }
      open.pop();
      const above = open.at(-1);
      // Git has no empty directories.
      if (tree.entries.length > 0 || !above) {
        const id = await this.add(tree.entries);
        state.setTree(tree.directory, id);
        if (!above) return id;
        above.entries.push({ name: tree.name, mode: '40000', id });
      }
    }
  }

  /** Adds the file of that name to the tree; returns the tree that must be written first. */
  #addFile(tree: OpenTree, name: string, inode: Inode): OpenTree | undefined {
    if (lengthIn(tree.path, name) > LONGEST_FOR_GIT) return undefined;
    const { children } = inode;
    if (!children) {
      const file = treeFile(name, inode);
      if (!file) return undefined;
      this.#see(tree.path, name, inode);
      tree.entries.push({ name, mode: file.mode, id: file.id });
      return undefined;
    }
    if (children.size === 0 || !isHoldable(name, 'file')) return undefined;
    const { id } = inode;
    if (id === undefined) return openTree(name, join(tree.path, name), inode);
    tree.entries.push({ name, mode: '40000', id });
    return undefined;
  }

  /** The tree of some files. */
  async add(entries: readonly TreeEntry[]): Promise<ObjectID> {
    const tree = composeTree(entries);
    return this.#store.add(tree.length, contentIn(tree), 'tree');
  }
}

/** Takes a file or a symlink that git holds: the path of its directory, its name there. */
export type SeeFile = (directory: string, name: string, inode: Inode) => void;

/** A tree that is not complete yet. */
interface OpenTree {
  readonly name: string;
  readonly path: string;
  readonly directory: Inode;
  readonly rest: MapIterator<[string, number]>;
  readonly entries: TreeEntry[];
}

function lengthIn(directory: string, name: string): number {
  return directory === '' ? name.length : directory.length + 1 + name.length;
}

function openTree(name: string, path: string, directory: Inode): OpenTree {
  return { name, path, directory, rest: directory.children!.entries(), entries: [] };
}

interface Commit {
  readonly tree: ObjectID;
  readonly parents: readonly ObjectID[];
  /** Seconds since 1970. */
  readonly time: number;
  readonly message: string;
}

const author = 'dlrootfs <mail@mail.com>';

/** A tree object (gitformat-pack(5) has no word on it; base_name_compare in git's read-cache.c says how it is sorted). */
function composeTree(entries: readonly TreeEntry[]): Buffer {
  const sorted = areSorted(entries)
    ? entries
    : entries.toSorted((one, other) => (sortedBy(one) < sortedBy(other) ? -1 : 1));
  const size = entries.reduce((sum, { mode, name }) => sum + mode.length + 1 + name.length + 1 + ID_SIZE, 0);
  const tree = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { mode, name, id } of sorted) {
    at += tree.write(`${mode} ${name}\0`, at, 'latin1');
    at += tree.write(id, at, 'hex');
  }
  return tree;
}

function areSorted(entries: readonly TreeEntry[]): boolean {
  let before = '';
  return entries.every((entry) => {
    const name = sortedBy(entry);
    const isNext = before < name;
    before = name;
    return isNext;
  });
}

function sortedBy({ mode, name }: TreeEntry): string {
  return mode === '40000' ? `${name}/` : name;
}

/** A commit object, by us. */
function composeCommit({ tree, parents, time, message }: Commit): Buffer {
  const head = [`tree ${tree}`, ...parents.map((parent) => `parent ${parent}`)];
  const people = ['author', 'committer'].map((role) => `${role} ${author} ${time} +0000`);
  return Buffer.from(`${[...head, ...people].join('\n')}\n\n${message}`, 'latin1');
}
