import type { ObjectID } from './objects.ts';
import { join, nameOf } from '../rootfs/directories.ts';
import type { Change, Written } from '../tar/mtree.ts';

/** A file, with one path or, for hard links, several. */
export interface Inode extends Omit<Written, 'type' | 'path' | 'xattrs' | 'contents' | 'own'> {
  readonly type: Exclude<Written['type'], 'hardlink'>;
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  readonly own: boolean;
  /** Of a commit of the user's: nobody knows the times, they stay as git makes them. */
  readonly timeless: boolean;
  /** Where a record keeps content that no commit can hold. */
  contents: string | undefined;
  /** Name of the content's blob, once it is known. */
  id: ObjectID | undefined;
  /** It has had a further name. */
  linked: boolean;
  /** What the disk says of it: its number in `FileStats`, -1 where that is not known. */
  stat: number;
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
  /** From the root down to the directory that was looked up last: the next path is mostly in one of them. */
  readonly #levels: Level[] = [{ path: '', names: this.#names, changed: -1 }];
  /** What git calls the trees of directories, by what those hold; not of those that changed since. */
  readonly #trees = new WeakMap<ReadonlyMap<string, Place>, ObjectID>();
  /** How many trees were set. */
  #treeCount = 0;

  /** The file at a path; the root itself is known only where a layer has an entry for it. */
  find(path: string): Place | undefined {
    return path === '' ? this.#root : this.#above(path)?.get(nameOf(path));
  }

  /**
   * Plays one change.
   *
   * @returns what stands at its path now
   * @throws RangeError when its directory or the target of a link is missing: these are not the changes of one rootfs
   */
  apply(change: Change): Inode | undefined {
    const { path } = change;
    const above = this.#above(path);
    this.#forgetTrees();
    const name = nameOf(path);
    if (change.type === 'removed') {
      if (path !== '') above?.delete(name);
      return undefined;
    }
    if (change.type === 'hardlink') return this.#link(path, change);
    const inode = inodeOf(change);
    const isDirectory = change.type === 'directory';
    if (path === '') {
      if (!isDirectory) throw new RangeError('a file in no directory');
      this.#root = { inode, children: this.#names };
      return inode;
    }
    if (!above) throw new RangeError('a file in no directory');
    const children = isDirectory ? (above.get(name)?.children ?? new Map<string, Place>()) : undefined;
    above.set(ownCopy(name), { inode, children });
    return inode;
  }

  #link(path: string, { linkPath, xattrs, contents }: Written): Inode {
    const target = this.find(linkPath);
    if (!target || target.children) throw new RangeError('a hard link to nothing');
    const { inode } = target;
    if (xattrs) inode.xattrs = new Map([...(inode.xattrs ?? []), ...xattrs]);
    inode.contents ??= contents;
    const names = this.#above(path);
    if (!names || path === '') throw new RangeError('a file in no directory');
    const name = nameOf(path);
    if (names.get(name)?.inode === inode) return inode;
    names.set(ownCopy(name), target);
    inode.linked = true;
    return inode;
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
}

function inodeOf(change: Exclude<Written, { type: 'hardlink' }>): Inode {
  return {
    type: change.type as Inode['type'],
    linkPath: ownCopy(change.linkPath),
    mode: change.mode,
    uid: change.uid,
    gid: change.gid,
    size: change.size,
    mtimeSeconds: change.mtimeSeconds,
    mtimeNanoseconds: change.mtimeNanoseconds,
    deviceMajor: change.deviceMajor,
    deviceMinor: change.deviceMinor,
    xattrs: change.xattrs,
    own: change.own === true,
    contents: change.contents,
    timeless: false,
    id: undefined,
    linked: false,
    stat: -1,
  };
}

/** The same text by itself: V8 keeps all of a text in memory for a slice of it, here thousands of lines for a name. */
function ownCopy(text: string): string {
  return ` ${text}`.slice(1);
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
    const path = join(level.path, name);
    yield [path, place];
    if (place.children)
      levels.push({ path, names: place.children, keys: sortedKeys(place.children).values() });
  }
}

/** Names, directories with a slash: so they sort as the paths of the files in them do. */
function sortedKeys(names: ReadonlyMap<string, Place>): string[] {
  const keys: string[] = [];
  let isSorted = true;
  for (const [name, { children }] of names) {
    const key = children ? `${name}/` : name;
    if (keys.length > 0 && key < keys.at(-1)!) isSorted = false;
    keys.push(key);
  }
  return isSorted ? keys : keys.toSorted((one, other) => (one < other ? -1 : 1));
}

/** Names of all extended attributes in a state. */
export function attributeNames(state: RootfsState): Set<string> {
  const names = new Set<string>();
  for (const [, { inode }] of state) for (const name of inode.xattrs?.keys() ?? []) names.add(name);
  return names;
}
