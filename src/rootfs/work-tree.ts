import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes, LONGEST_TARGET } from '../sys/os-path.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import { startRun } from './apply.ts';
import { openFilesystem } from './confined-root.ts';
import { itself, parentPath } from './directories.ts';
import {
  permittedMode,
  restoreOwner,
  restoreTimes,
  retryUnlocked,
  setXattrs,
  systemAttribute,
} from './metadata.ts';
import { type FileStat, type Place, explain, granted, isSpecial, statusOf } from './filesystem.ts';
import type { NotRestored } from './not-restored.ts';
import { create } from './place.ts';
import { clear } from './removal.ts';
import type { Run } from './run.ts';

const { EEXIST, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM } = constants.errno;

/** The inode wanted at one path, or at several hard-linked paths. */
export type WantedInode = Omit<Entry, 'type' | 'path' | 'linkPath' | 'size' | 'sparse'> & {
  readonly type: Exclude<Entry['type'], 'hardlink'>;
  /** The same for all paths of one inode. */
  readonly number: number;
  readonly linkPath: string;
  /** Its times stay as they are, and so does a symlink's target. */
  readonly timeless?: boolean;
};

/** Contents of files that are not on disk, or that other programs wrote. */
export interface Contents {
  has(path: string): boolean;
  /** The content of a path that it has: each once, in the order of the tree. */
  read(path: string): AsyncIterable<Uint8Array>;
}

/** A whole tree: all paths from the root, each directory before what is in it. */
export interface Tree extends Iterable<readonly [path: string, inode: WantedInode]> {
  /** For the root, with the empty path; undefined: it stays as it is. */
  find(path: string): WantedInode | undefined;
}

/** A file that may be on disk. */
export interface FileAtPath {
  readonly path: string;
  readonly type: FileStat['type'];
}

/**
 * Removes the files at these paths in an existing rootfs, if they are still of that type; directories only when they are empty. A directory
 * on the way that kept its owner out does so again after `restoreTree`.
 *
 * @throws DestinationError
 */
export async function clearPaths(directory: string, found: readonly FileAtPath[]): Promise<void> {
  const deepestFirst = found.toSorted((one, other) => other.path.length - one.path.length);
  await withRun(directory, (run) => {
    for (const { path, type } of deepestFirst) {
      run.directories.trim();
      const place = run.directories.place(path, 'findExact');
      if (!place) continue;
      const stat = retryUnlocked(run, place.parent, () => run.filesystem.stat(place.parent, place.name));
      if (typeof stat === 'number' || stat.type !== type) continue;
      if (type === 'directory') removeEmpty(run, place);
      else clear(run, place);
    }
  });
}

/**
 * Makes an existing rootfs equal to `tree`, in place. Sets the metadata that other programs could not set.
 *
 * @param contents of files that are not on disk yet, that other programs wrote, or that share an inode with other names
 * @param pause called between two paths: lets the event loop run, and throws when the run is to end
 * @returns what the system denied
 * @throws DestinationError
 */
export async function restoreTree(
  directory: string,
  tree: Tree,
  contents: Contents,
  pause: () => Promise<void>,
): Promise<NotRestored> {
  return await withRun(directory, async (run) => {
    const restoration = new Restoration(run, contents);
    for (const [path, inode] of tree) {
      await restoration.place(path as BytePath, inode);
      await pause();
    }
    restoration.finish(tree.find(''));
    return run.counts;
  });
}

async function withRun<T>(name: string, use: (run: Run) => T | Promise<T>): Promise<T> {
  try {
    const filesystem = granted(openFilesystem(pathBytes(name)), 'open it');
    const run = startRun(filesystem, { name, mode: 'overlay' });
    try {
      return await use(run);
    } finally {
      run.directories.close();
      filesystem.close();
    }
  } catch (error) {
    throw error instanceof SyscallError ? explain(error, name, name) : error;
  }
}

/** Removes a directory that is empty by now. */
function removeEmpty(run: Run, { parent, name, path }: Place): void {
  run.directories.drop(path);
  const removed = retryUnlocked(run, parent, () => run.filesystem.removeDirectory(parent, name));
  if (removed < 0 && ![-ENOENT, -ENOTDIR, -ENOTEMPTY, -EEXIST].includes(removed)) {
    throw new SyscallError(removed, `remove the directory ${displayPath(path)}`);
  }
}

interface FirstName {
  readonly path: BytePath;
  readonly identity: string;
}

/** One pass that turns an existing tree into the listed one: paths and their inodes. */
class Restoration {
  readonly #run: Run;
  readonly #contents: Contents;
  readonly #directories: [path: BytePath, inode: WantedInode][] = [];
  /** The first name of each inode, by its number, and what is on disk there. */
  readonly #first = new Map<number, FirstName>();

  constructor(run: Run, contents: Contents) {
    this.#run = run;
    this.#contents = contents;
  }

  /** The next path; directories come before what is in them. */
  async place(path: BytePath, inode: WantedInode): Promise<void> {
    this.#run.directories.trim();
    const place = this.#placeOf(path);
    const first = this.#first.get(inode.number);
    if (inode.type === 'directory') {
      this.#makeDirectory(place);
      this.#directories.push([path, inode]);
    } else if (first) this.#link(first, place);
    else await this.#placeFirst(place, inode);
  }

  /** Directories, now that nothing more changes in them: the deepest first, the root last. */
  finish(root: WantedInode | undefined): void {
    const { filesystem, directories } = this.#run;
    for (const [path, inode] of this.#directories.toReversed()) {
      directories.trim();
      this.#applyMetadata(this.#placeOf(path), inode);
    }
    if (root) this.#applyMetadata(itself(filesystem.root), root);
  }

  async #placeFirst(place: Place, inode: WantedInode): Promise<void> {
    if (this.#contents.has(place.path)) await this.#write(place, inode.type);
    else if (!this.#isUsable(place, inode) && !this.#make(place, inode)) return;
    const stat = this.#stat(place);
    this.#first.set(inode.number, { path: place.path, identity: stat.identity });
    this.#applyMetadata(place, inode, stat);
  }

  /** Whether only the metadata of the existing file must change. Any device is made again, and what has other names. */
  #isUsable(place: Place, inode: WantedInode): boolean {
    const { filesystem } = this.#run;
    const stat = statusOf(filesystem, place);
    if (stat?.type !== inode.type) return false;
    if (stat.type === 'file') return true;
    if (stat.links > 1) return false;
    if (stat.type === 'fifo') return true;
    if (stat.type !== 'symlink') return false;
    return inode.timeless === true || filesystem.readLink(place.parent, place.name) === inode.linkPath;
  }

  /** Makes it again; false for a device that this process may not make. */
  #make(place: Place, inode: WantedInode): boolean {
    if (inode.type === 'symlink') {
      this.#makeSymlink(place, inode.linkPath as BytePath);
      return true;
    }
    const { parent, name, path } = place;
    if (!isSpecial(inode)) throw new SyscallError(-ENOENT, `find the content of ${displayPath(path)}`);
    const make = (): number => this.#run.filesystem.makeSpecial(parent, name, inode, 0o600);
    const isMade = create(this.#run, place, make, [-EPERM]) === 0;
    if (!isMade) this.#run.counts.devices += 1;
    return isMade;
  }

  #makeSymlink(place: Place, target: BytePath): void {
    create(this.#run, place, () => this.#run.filesystem.makeSymlink(place.parent, place.name, target));
  }

  /** Makes a file, or a symlink to the target in its content. */
  async #write(place: Place, type: WantedInode['type']): Promise<void> {
    const { filesystem } = this.#run;
    const { parent, name, path } = place;
    const action = `write ${displayPath(path)}`;
    const content = this.#contents.read(path);
    if (type === 'symlink') {
      this.#makeSymlink(place, await targetIn(content, path));
      return;
    }
    const file = create(this.#run, place, () => filesystem.createFile(parent, name, 0o600));
    try {
      let position = 0;
      for await (const bytes of content) {
        granted(filesystem.write(file, bytes, position), action);
        position += bytes.length;
      }
    } catch (error) {
      filesystem.closeFile(file);
      throw error;
    }
    granted(filesystem.closeFile(file), action);
  }

  /** Makes a directory, or lets this process into the existing one while it is filled. */
  #makeDirectory(place: Place): void {
    const { filesystem } = this.#run;
    const stat = statusOf(filesystem, place);
    if (stat?.type !== 'directory')
      create(this.#run, place, () => filesystem.makeDirectory(place.parent, place.name, 0o700));
    else if ((stat.mode & 0o700) !== 0o700) filesystem.setMode(place, stat.mode | 0o700);
  }

  /** A further name of the file at the first one. */
  #link(first: FirstName, place: Place): void {
    const { filesystem } = this.#run;
    if (statusOf(filesystem, place)?.identity === first.identity) return;
    const from = this.#placeOf(first.path);
    create(this.#run, place, () => filesystem.makeLink(from.parent, from.name, place.parent, place.name));
  }

  #applyMetadata(place: Place, inode: WantedInode, stat = this.#stat(place)): void {
    const run = this.#run;
    const ownerIsRight = restoreOwner(run, place, inode, stat);
    const xattrs = run.filesystem.readXattrs(place);
    for (const name of typeof xattrs === 'number' ? [] : xattrs.keys())
      if (inode.xattrs?.has(name) !== true && !systemAttribute.test(name))
        run.filesystem.removeXattr(place, name);
    const ownMode = setXattrs(run, place, inode);
    if (inode.type !== 'symlink') {
      const permitted = permittedMode(run, ownMode, ownerIsRight);
      const doubtful = stat.uid !== inode.uid || stat.gid !== inode.gid || inode.xattrs !== undefined;
      if (permitted !== stat.mode || doubtful)
        granted(run.filesystem.setMode(place, permitted), `set the mode of ${displayPath(place.path)}`);
    }
    const timeIsRight =
      stat.mtimeSeconds === inode.mtimeSeconds && stat.mtimeNanoseconds === inode.mtimeNanoseconds;
    if (inode.timeless !== true && !timeIsRight) restoreTimes(run, place, inode);
  }

  #stat({ parent, name, path }: Place): FileStat {
    return granted(this.#run.filesystem.stat(parent, name), `find ${displayPath(path)}`);
  }

  #placeOf(path: BytePath): Place {
    const place = this.#run.directories.place(path, 'findExact');
    if (!place) throw new SyscallError(-ENOENT, `find the directory ${displayPath(parentPath(path))}`);
    return place;
  }
}

async function targetIn(content: AsyncIterable<Uint8Array>, path: BytePath): Promise<BytePath> {
  let target = '';
  for await (const bytes of content) {
    target += Buffer.from(bytes).toString('latin1');
    if (target.length > LONGEST_TARGET) throw new SyscallError(-ENAMETOOLONG, `create ${displayPath(path)}`);
  }
  return target as BytePath;
}
