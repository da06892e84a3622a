import { type Described, type Inode, Inodes, ownCopy, plain } from './inodes.ts';
import { join, nameOf } from '../rootfs/directories.ts';
import type { TreeChange, Written } from '../tar/mtree.ts';

/** A directory on the way to the path looked up last. */
interface Level {
  readonly path: string;
  readonly directory: Inode;
  readonly children: Map<string, number>;
}

/** The files of a rootfs after some of its layers: it applies their changes in order. Paths are those of `TreeChange`. */
export class RootfsState {
  readonly #inodes = new Inodes();
  /** Whether a layer has an entry for the root. */
  #hasRoot = false;
  /** From the root down to the directory that was looked up last: the next path is mostly in one of them. */
  readonly #levels: Level[] = [this.#level('', this.#inodes.add({ ...plain, type: 'directory' }))];

  /** The file at a path; the root itself is known only where a layer has an entry for it. */
  find(path: string): Inode | undefined {
    if (path === '') return this.#hasRoot ? this.root : undefined;
    const number = this.#above(path)?.get(nameOf(path));
    return number === undefined ? undefined : this.#inodes.get(number);
  }

  /** The inode of a number that `children` of another one has. */
  get(number: number): Inode {
    return this.#inodes.get(number);
  }

  /** The root. If no layer has an entry for it, only its `children` and `id` are known. */
  get root(): Inode {
    return this.#inodes.get(ROOT);
  }

  /**
   * Applies one change.
   *
   * @returns the file that is at its path now
   * @throws RangeError when its directory or the target of a link is missing: the changes are not those of one rootfs
   */
  apply(change: TreeChange): Inode | undefined {
    const { path } = change;
    const above = this.#above(path);
    this.#forgetTrees();
    const name = nameOf(path);
    if (change.type === 'removed') {
      if (path !== '') above?.delete(name);
      return undefined;
    }
    if (change.type === 'hardlink') return this.#link(path, change);
    const described = change as Described;
    if (path === '') {
      if (change.type !== 'directory') throw new RangeError('a file in no directory');
      this.#hasRoot = true;
      this.#inodes.describe(ROOT, described);
      return this.root;
    }
    if (!above) throw new RangeError('a file in no directory');
    const before = change.type === 'directory' ? above.get(name) : undefined;
    if (before !== undefined && this.#inodes.childrenOf(before)) {
      this.#inodes.describe(before, described);
      return this.#inodes.get(before);
    }
    const number = this.#inodes.add(described);
    above.set(ownCopy(name), number);
    return this.#inodes.get(number);
  }

  #link(path: string, { linkPath, xattrs, contents }: Written): Inode {
    const inode = this.find(linkPath);
    if (!inode || inode.children) throw new RangeError('a hard link to nothing');
    const { number } = inode;
    const rare = this.#inodes.rareOf(number);
    this.#inodes.setRare(number, {
      ...rare,
      xattrs: xattrs ? new Map([...(rare.xattrs ?? []), ...xattrs]) : rare.xattrs,
      contents: rare.contents ?? contents,
    });
    const names = this.#above(path);
    if (!names || path === '') throw new RangeError('a file in no directory');
    const name = nameOf(path);
    if (names.get(name) === number) return inode;
    names.set(ownCopy(name), number);
    inode.markLinked();
    return inode;
  }

  /** All but the root: each directory right before what is in it, files in the order of their paths' bytes. */
  *[Symbol.iterator](): Generator<[path: string, inode: Inode], void, void> {
    const levels = [{ path: '', names: this.sortedNames(this.root).values() }];
    for (let level = levels.at(-1); level; level = levels.at(-1)) {
      const next = level.names.next().value;
      if (next === undefined) {
        levels.pop();
        continue;
      }
      const [key, number] = next;
      const inode = this.#inodes.get(number);
      const path = join(level.path, inode.type === 'directory' ? key.slice(0, -1) : key);
      yield [path, inode];
      if (inode.children) levels.push({ path, names: this.sortedNames(inode).values() });
    }
  }

  /** Names in a directory, those of directories with a slash: so they sort as the paths of the files in them do. */
  sortedNames(directory: Inode): [key: string, number: number][] {
    const names: [string, number][] = [];
    let isSorted = true;
    for (const [name, number] of directory.children!) {
      const key = this.#inodes.childrenOf(number) ? `${name}/` : name;
      if (names.length > 0 && key < names.at(-1)![0]) isSorted = false;
      names.push([key, number]);
    }
    return isSorted ? names : names.toSorted(([one], [other]) => (one < other ? -1 : 1));
  }

  /** What the directory above a path holds. The cost depends only on the way from the directory looked up last. */
  #above(path: string): Map<string, number> | undefined {
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    let level = this.#levels.at(-1)!;
    for (; !isWithin(above, level.path); level = this.#levels.at(-1)!) this.#levels.pop();
    let start = level.path === '' ? 0 : level.path.length + 1;
    while (start < above.length) {
      const slash = above.indexOf('/', start);
      const end = slash < 0 ? above.length : slash;
      const number = level.children.get(above.slice(start, end));
      if (number === undefined || !this.#inodes.childrenOf(number)) return undefined;
      level = this.#level(above.slice(0, end), number);
      this.#levels.push(level);
      start = end + 1;
    }
    return level.children;
  }

  #level(path: string, number: number): Level {
    return { path, directory: this.#inodes.get(number), children: this.#inodes.childrenOf(number)! };
  }

  /** The trees of the directories above a path, which was looked up right before, are no longer what git has: their `id` goes. */
  #forgetTrees(): void {
    for (const { directory } of this.#levels) directory.id = undefined;
  }
}

const ROOT = 0;

/** Whether a directory is another one or in it. */
function isWithin(path: string, above: string): boolean {
  return above === '' || path === above || (path.startsWith(above) && path[above.length] === '/');
}
