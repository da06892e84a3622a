import { childPath, nameOf } from '../rootfs/directories.ts';
import type { TreeChange } from '../rootfs/changes.ts';
import { FileRecords } from './file-records.ts';
import { isHoldable, type TreeMode } from './trees.ts';

/** A directory of the rootfs. */
export class FileDirectory {
  readonly children = new Map<string, FileNode>();
  /** Its tree object; undefined if something in the directory changed since. */
  tree: { readonly id: Buffer | undefined; readonly files: number } | undefined;
}

/** A directory, the number of a file or symlink in `FileTree.records`, or SPECIAL. */
export type FileNode = FileDirectory | number;

/** A device or FIFO, which git cannot hold. */
const SPECIAL = -1;

/** A directory on the way to the path that was looked up last. */
interface Ancestor {
  readonly path: string;
  readonly directory: FileDirectory;
}

/** The names in a rootfs. It applies the changes of layers in order. */
export class FileTree {
  readonly root = new FileDirectory();
  readonly records = new FileRecords();
  /** The number of files and symlinks so far, including removed ones. */
  count = 0;
  /** From the root to the directory that was looked up last: mostly the next path is in one of these. */
  readonly #ancestors: Ancestor[] = [{ path: '', directory: this.root }];

  /**
   * @throws RangeError if the parent directory or the target of a link is missing: the changes are not of one
   * rootfs
   */
  apply({ kind, path, target, number }: TreeChange): void {
    // A hard link does not change the directory of its target.
    const node = kind === 'hardlink' ? this.#find(target) : undefined;
    const above = this.#above(path);
    const name = nameOf(path);
    if (kind === 'removed') {
      above?.children.delete(name);
      if (above) this.#forgetTrees();
      return;
    }
    if (!above || path === '') throw new RangeError('a file in no directory');
    this.#forgetTrees();
    switch (kind) {
      case 'directory':
        if (!(above.children.get(name) instanceof FileDirectory))
          above.children.set(ownCopy(name), new FileDirectory());
        return;
      case 'hardlink':
        if (node === undefined || node instanceof FileDirectory)
          throw new RangeError('a hard link to nothing');
        if (node !== SPECIAL && above.children.get(name) !== node) this.records.markLinked(node);
        above.children.set(ownCopy(name), node);
        return;
      case 'special':
        above.children.set(ownCopy(name), SPECIAL);
        return;
      default:
        if (number !== this.count) throw new RangeError(`content ${number} instead of ${this.count}`);
        this.count += 1;
        this.records.describe(number, modes[kind]);
        above.children.set(ownCopy(name), number);
    }
  }

  /**
   * Returns git's mode of a node; undefined if git cannot hold it.
   *
   * @param path of the node, or only its name
   */
  mode(path: string, node: FileNode): TreeMode | undefined {
    if (node instanceof FileDirectory || node === SPECIAL) return undefined;
    return isHoldable(path, this.typeFor(node)) ? this.records.mode(node) : undefined;
  }

  /** Returns the type for `isHoldable`. */
  typeFor(node: FileNode): 'file' | 'symlink' {
    const isSymlink = typeof node === 'number' && node !== SPECIAL && this.records.mode(node) === '120000';
    return isSymlink ? 'symlink' : 'file';
  }

  /**
   * Yields all nodes but the root: each directory right before its content, files in the order of their
   * paths' bytes.
   */
  *[Symbol.iterator](): Generator<[path: string, node: FileNode], void, void> {
    const levels = [{ path: '', names: sortedNames(this.root).values() }];
    for (let level = levels.at(-1); level; level = levels.at(-1)) {
      const next = level.names.next().value;
      if (next === undefined) {
        levels.pop();
        continue;
      }
      const [key, node] = next;
      const isDirectory = node instanceof FileDirectory;
      const path = childPath(level.path, isDirectory ? key.slice(0, -1) : key);
      yield [path, node];
      if (isDirectory) levels.push({ path, names: sortedNames(node).values() });
    }
  }

  /** Returns the directory at a path; undefined if none is there. */
  directory(path: string): FileDirectory | undefined {
    const found = path === '' ? this.root : this.#find(path);
    return found instanceof FileDirectory ? found : undefined;
  }

  #find(path: string): FileNode | undefined {
    return this.#above(path)?.children.get(nameOf(path));
  }

  /**
   * Returns the directory above a path. The cost depends only on the distance from the directory looked up
   * last.
   */
  #above(path: string): FileDirectory | undefined {
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    let ancestor = this.#ancestors.at(-1)!;
    for (; !isWithin(above, ancestor.path); ancestor = this.#ancestors.at(-1)!) this.#ancestors.pop();
    let start = ancestor.path === '' ? 0 : ancestor.path.length + 1;
    while (start < above.length) {
      const slash = above.indexOf('/', start);
      const end = slash < 0 ? above.length : slash;
      const directory = ancestor.directory.children.get(above.slice(start, end));
      if (!(directory instanceof FileDirectory)) return undefined;
      ancestor = { path: above.slice(0, end), directory };
      this.#ancestors.push(ancestor);
      start = end + 1;
    }
    return ancestor.directory;
  }

  /** Drops the tree objects of the directories above the path that was looked up last. */
  #forgetTrees(): void {
    for (const { directory } of this.#ancestors) directory.tree = undefined;
  }
}

const modes = { file: '100644', executable: '100755', symlink: '120000' } as const;

/**
 * Returns the names in a directory, those of directories with a slash at the end. So they are sorted as in
 * git's trees, and as the paths of all files below are.
 */
export function sortedNames({ children }: FileDirectory): [key: string, node: FileNode][] {
  const names: [string, FileNode][] = [];
  let isSorted = true;
  for (const [name, node] of children) {
    const key = node instanceof FileDirectory ? `${name}/` : name;
    if (names.length > 0 && key < names.at(-1)![0]) isSorted = false;
    names.push([key, node]);
  }
  return isSorted ? names : names.toSorted(([one], [other]) => (one < other ? -1 : 1));
}

/** True if `path` is `above` or below it. */
function isWithin(path: string, above: string): boolean {
  return above === '' || path === above || (path.startsWith(above) && path[above.length] === '/');
}

/** Copies a text: V8 keeps the whole path in memory for a slice of it. */
function ownCopy(text: string): string {
  return ` ${text}`.slice(1);
}
