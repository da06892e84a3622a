import type { ObjectStore } from './object-store.ts';
import { type ObjectID, type TreeEntry, type TreeFile, type TreeMode, composeTree } from './objects.ts';
import { contentIn } from './pack-writer.ts';
import type { Inode } from './inodes.ts';
import type { RootfsState } from './rootfs-state.ts';
import { join } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';

/**
 * Whether git can hold a path at all. It refuses a component `.git` in upper or lower case (verify_path in its read-cache.c), and
 * a symlink `.gitmodules`, which could make it read configuration from anywhere. It cannot check out a path longer than PATH_MAX. With
 * core.protectHFS and core.protectNTFS off it takes all others.
 */
export function isHoldable(path: string, type: 'file' | 'symlink'): boolean {
  if (path.length > LONGEST_FOR_GIT) return false;
  if (!path.includes('.')) return true;
  return !/(?:^|\/)\.git(?:\/|$)/i.test(path) && !(type === 'symlink' && /(?:^|\/)\.gitmodules$/i.test(path));
}

/** In bytes, with the NUL: the longest path that a system call takes (PATH_MAX). */
const LONGEST_FOR_GIT = 4095;
/** In bytes: the longest path of a rootfs. */
const LONGEST_PATH = 16_384;

/** Whether a path stays below the root, and outside of the repository. */
export function isSoundPath(path: string, root: boolean): boolean {
  if (path === '') return root;
  return path.length <= LONGEST_PATH && !/(?:^|\/)\.{0,2}(?:\/|$)|\0|^\.git(?:\/|$)/i.test(path);
}

const escapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** Decodes a path that git has printed with core.quotePath: one character for each byte. */
export function unquotePath(text: string): string {
  if (!text.startsWith('"')) return text;
  return text
    .slice(1, -1)
    .replaceAll(/\\(?:([0-7]{3})|(.))/g, (_, octal: string | undefined, letter: string) =>
      octal === undefined ? (escapes[letter] ?? letter) : String.fromCharCode(Number.parseInt(octal, 8)),
    );
}

/** Whether git has files of this type. */
function isTreeType(type: Inode['type']): type is 'file' | 'symlink' {
  return type === 'file' || type === 'symlink';
}

/** How git shows an inode at a path, undefined where it cannot hold it. Its content must be stored. */
export function treeFile(path: string, { type, mode, id }: Inode): TreeFile | undefined {
  if (!isTreeType(type) || id === undefined || !isHoldable(path, type)) return undefined;
  return { path, mode: treeMode(type, mode), id };
}

/** All that git holds of a rootfs, in the order of the paths' bytes. */
export function* treeFiles(state: RootfsState): Generator<TreeFile, void, void> {
  for (const [path, inode] of state) {
    const file = treeFile(path, inode);
    if (file) yield file;
  }
}

/** git keeps one bit of a file's mode: whether its owner may execute it. */
function treeMode(type: 'file' | 'symlink', mode: number): TreeMode {
  if (type === 'symlink') return '120000';
  return (mode & 0o100) === 0 ? '100644' : '100755';
}

/** Writes the trees of a rootfs, only of directories that changed since they were last written. */
export class TreeWriter {
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
