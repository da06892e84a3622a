import type { ObjectID } from './objects.ts';
import type { Change, Written } from '../tar/mtree.ts';

/** What stands at one or, for hard links, several paths. */
export interface Inode extends Omit<Written, 'type' | 'path' | 'xattrs' | 'contents'> {
  readonly type: Exclude<Written['type'], 'hardlink'>;
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Of a commit of the user's: nobody knows the times, they stay as git makes them. */
  readonly timeless?: boolean;
  /** Where a record keeps content that no commit can hold. */
  contents?: string | undefined;
  /** Name of the content's blob, once it is known. */
  id?: ObjectID | undefined;
}

/** What has a name. */
export interface Place {
  readonly inode: Inode;
  /** What a directory holds, by name; undefined for other types. */
  readonly children: Map<string, Place> | undefined;
}

/** A directory on the way to the path looked up last. */
interface Level {
  readonly path: string;
  readonly names: Map<string, Place>;
  /** No tree has been set since this one and those above lost theirs. */
  changed: number;
}

/** What is in a rootfs after some of its layers: their changes, played in order. Paths are those of `Change`. */
export class RootfsState {
  readonly #names = new Map<string, Place>();
  #root: Place | undefined;
  /** From the root down to the directory looked up last: the next path mostly lies in one of them. */
  readonly #levels: Level[] = [{ path: '', names: this.#names, changed: -1 }];
  /** What git calls the trees of directories, by what those hold; not of those that changed since. */
  readonly #trees = new WeakMap<ReadonlyMap<string, Place>, ObjectID>();
  /** How many trees were set. */
  #treeCount = 0;

  /** What stands at a path; the root itself is known only where a layer said something of it. */
  find(path: string): Place | undefined {
    return path === '' ? this.#root : this.#above(path)?.get(nameOf(path));
  }

  /**
   * Plays one change.
   *
   * @returns what stood at its path and does no more
   * @throws RangeError when its directory or the target of a link is missing: these are not the changes of one rootfs
   */
  apply(change: Change): Place | undefined {
    const { path } = change;
    const before = this.find(path);
    this.#forgetTrees();
    if (change.type === 'removed') {
      this.#above(path)?.delete(nameOf(path));
      return before;
    }
    if (change.type === 'hardlink') {
      const target = this.find(change.linkPath);
      if (!target || target.children) throw new RangeError('a hard link to nothing');
      if (change.xattrs) target.inode.xattrs = new Map([...(target.inode.xattrs ?? []), ...change.xattrs]);
      target.inode.contents ??= change.contents;
      if (before?.inode === target.inode) return undefined;
      this.#put(path, target);
      return before;
    }
    const { path: _, type, ...metadata } = change;
    const inode: Inode = { ...metadata, type };
    if (change.type !== 'directory') {
      this.#put(path, { inode, children: undefined });
      return before;
    }
    if (path === '') this.#root = { inode, children: this.#names };
    else this.#put(path, { inode, children: before?.children ?? new Map<string, Place>() });
    return before?.children ? undefined : before;
  }

  /** What is at the root, by name. */
  root(): ReadonlyMap<string, Place> {
    return this.#names;
  }

  /** The tree that was made of a directory, unless it changed since, or one below it. */
  treeOf(children: ReadonlyMap<string, Place>): ObjectID | undefined {
    return this.#trees.get(children);
  }

  setTree(children: ReadonlyMap<string, Place>, id: ObjectID): void {
    this.#trees.set(children, id);
    this.#treeCount += 1;
  }

  /** All places but the root: each directory right before what is in it, files in the order of their paths' bytes. */
  [Symbol.iterator](): Generator<[path: string, place: Place], void, void> {
    return walk(this.#names);
  }

  /** What the directory above a path holds. Costs what the way there from the last one does, also in deep directories. */
  #above(path: string): Map<string, Place> | undefined {
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    let level = this.#levels.at(-1)!;
    for (; !isWithin(above, level.path); level = this.#levels.at(-1)!) this.#levels.pop();
    let start = level.path === '' ? 0 : level.path.length + 1;
    while (start < above.length) {
      const slash = above.indexOf('/', start);
      const end = slash < 0 ? above.length : slash;
      const names = level.names.get(above.slice(start, end))?.children;
      if (!names) return undefined;
      level = { path: above.slice(0, end), names, changed: -1 };
      this.#levels.push(level);
      start = end + 1;
    }
    return level.names;
  }

  /** The trees of the directories above a path, which was looked up right before, are no longer what git has. */
  #forgetTrees(): void {
    for (let depth = this.#levels.length - 1; depth >= 0; depth -= 1) {
      const level = this.#levels[depth]!;
      if (level.changed === this.#treeCount) return;
      level.changed = this.#treeCount;
      this.#trees.delete(level.names);
    }
  }

  #put(path: string, place: Place): void {
    const names = this.#above(path);
    if (!names || path === '') throw new RangeError('a file in no directory');
    names.set(nameOf(path), place);
  }
}

/** Whether a directory is another one or in it. */
function isWithin(path: string, above: string): boolean {
  return above === '' || path === above || (path.startsWith(above) && path[above.length] === '/');
}

function* walk(root: ReadonlyMap<string, Place>): Generator<[string, Place], void, void> {
  const levels = [{ path: '', names: root, keys: sortedKeys(root).values() }];
  for (let level = levels.at(-1); level; level = levels.at(-1)) {
    const key = level.keys.next().value;
    if (key === undefined) {
      levels.pop();
      continue;
    }
    const name = key.endsWith('/') ? key.slice(0, -1) : key;
    const place = level.names.get(name)!;
    const path = level.path === '' ? name : `${level.path}/${name}`;
    yield [path, place];
    if (place.children)
      levels.push({ path, names: place.children, keys: sortedKeys(place.children).values() });
  }
}

/** Names, directories with a slash: so they sort as the paths of the files in them do. */
function sortedKeys(names: ReadonlyMap<string, Place>): string[] {
  const keys = [...names].map(([name, { children }]) => (children ? `${name}/` : name));
  return keys.toSorted((one, other) => (one < other ? -1 : 1));
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Names of all extended attributes in a state. */
export function attributeNames(state: RootfsState): Set<string> {
  const names = new Set<string>();
  for (const [, { inode }] of state) for (const name of inode.xattrs?.keys() ?? []) names.add(name);
  return names;
}
