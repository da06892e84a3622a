import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { geteuid } from 'node:process';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes, LONGEST_TARGET } from '../sys/os-path.ts';
import { randomName } from '../sys/temp-file.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import { startRun } from './apply.ts';
import { openFilesystem } from './confined-root.ts';
import { itself, nameOf, parentPath, placeIn } from './directories.ts';
import { unlock } from './directory-metadata.ts';
import {
  type DiskFilesystem,
  type FileStat,
  type Place,
  explain,
  granted,
  isSpecial,
  statusOf,
} from './filesystem.ts';
import { permittedMode, restoreOwner, restoreTimes, setXattrs } from './metadata.ts';
import type { NotRestored } from './not-restored.ts';
import { clear } from './removal.ts';
import type { Run } from './run.ts';

const { EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM } = constants.errno;

/** The inode wanted at one path, or at several hard-linked paths. */
export type WantedInode = Omit<Entry, 'type' | 'path' | 'linkPath' | 'size' | 'sparse'> & {
  readonly type: Exclude<Entry['type'], 'hardlink'>;
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
 * Removes the files at these paths in an existing rootfs, if they are still of that type; directories only when they are empty. From then
 * on until `restoreTree` no directory keeps its owner out.
 *
 * @throws DestinationError
 */
export async function clearPaths(directory: string, found: readonly FileAtPath[]): Promise<void> {
  const deepestFirst = found.toSorted((one, other) => other.path.length - one.path.length);
  await withRun(directory, (run) => {
    if (geteuid!() !== 0) unlockAll(run);
    for (const { path, type } of deepestFirst) {
      run.directories.trim();
      const parent = run.directories.findExact(parentPath(path));
      if (!parent) continue;
      const place = placeIn(parent, nameOf(path));
      if (type === 'directory') removeEmpty(run, place);
      else if (statusOf(run.filesystem, place)?.type === type) clear(run, place);
    }
  });
}

/**
 * Makes an existing rootfs equal to `tree`, in place. Sets the metadata that other programs could not set.
 *
 * @param contents of files that are not on disk yet, or that other programs wrote
 * @param attributes names of extended attributes that stay only where `tree` has them
 * @param pause called between two paths: lets the event loop run, and throws when the run is to end
 * @returns what the system denied
 * @throws DestinationError
 */
export async function restoreTree(
  directory: string,
  tree: Tree,
  contents: Contents,
  attributes: ReadonlySet<string>,
  pause: () => Promise<void>,
): Promise<NotRestored> {
  return await withRun(directory, async (run, disk) => {
    const restoration = new Restoration(run, disk, contents, attributes);
    for (const [path, inode] of tree) {
      await restoration.place(path as BytePath, inode);
      await pause();
    }
    restoration.finish(tree.find(''));
    return run.counts;
  });
}

async function withRun<T>(name: string, use: (run: Run, disk: DiskFilesystem) => T | Promise<T>): Promise<T> {
  try {
    const filesystem = granted(openFilesystem(pathBytes(name)), 'open it');
    const run = startRun(filesystem, { name, mode: 'overlay' });
    try {
      return await use(run, filesystem);
    } finally {
      run.directories.close();
      filesystem.close();
    }
  } catch (error) {
    throw error instanceof SyscallError ? explain(error, name, name) : error;
  }
}

/** Lets this process into all directories that it owns, for git to do its work. */
function unlockAll(run: Run): void {
  const waiting: string[] = [''];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    run.directories.trim();
    const directory = run.directories.findExact(path);
    if (!directory) continue;
    unlock(run, directory);
    const names = run.filesystem.list(directory);
    if (typeof names === 'number') continue;
    for (const name of names) {
      const place = placeIn(directory, name);
      const isDirectory = statusOf(run.filesystem, place)?.type === 'directory';
      if (isDirectory && place.path !== '.git') waiting.push(place.path);
    }
  }
}

/** Removes a directory that is empty by now. */
function removeEmpty(run: Run, { parent, name, path }: Place): void {
  run.directories.drop(path);
  const removed = run.filesystem.removeDirectory(parent, name);
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
  readonly #disk: DiskFilesystem;
  readonly #contents: Contents;
  readonly #attributes: ReadonlySet<string>;
  readonly #directories: [path: BytePath, inode: WantedInode][] = [];
  /** The first name of each inode, and what is on disk there. */
  readonly #first = new Map<WantedInode, FirstName>();
  readonly #taken = new Set<string>();
  /** Name of a file that is written first and then renamed: one at a time. */
  readonly #aside = randomName('.dlrootfs-');

  /** @param attributes names of extended attributes that only stay where an inode has them */
  constructor(run: Run, disk: DiskFilesystem, contents: Contents, attributes: ReadonlySet<string>) {
    this.#run = run;
    this.#disk = disk;
    this.#contents = contents;
    this.#attributes = attributes;
  }

  /** The next path; directories come before what is in them. */
  async place(path: BytePath, inode: WantedInode): Promise<void> {
    this.#run.directories.trim();
    if (this.#contents.has(path)) await this.#write(path, inode.type);
    const place = this.#placeOf(path);
    const first = this.#first.get(inode);
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
    const there = this.#findUsable(place, inode);
    if (!there && !this.#make(place, inode)) return;
    let stat = there ?? this.#stat(place);
    if (this.#taken.has(stat.identity)) {
      await this.#copyOf(place, inode);
      stat = this.#stat(place);
    }
    this.#taken.add(stat.identity);
    this.#first.set(inode, { path: place.path, identity: stat.identity });
    this.#applyMetadata(place, inode, stat);
  }

  /** The existing file, if only its metadata must change. Any device is accepted. */
  #findUsable(place: Place, inode: WantedInode): FileStat | undefined {
    const { filesystem } = this.#run;
    const stat = statusOf(filesystem, place);
    if (stat?.type !== inode.type) return undefined;
    if (stat.type === 'file') return stat;
    // A FIFO that another name already uses is made again: it has no content to copy.
    if (stat.type === 'fifo') return this.#taken.has(stat.identity) ? undefined : stat;
    if (stat.type !== 'symlink') return undefined;
    const isRight =
      inode.timeless === true || filesystem.readLink(place.parent, place.name) === inode.linkPath;
    return isRight ? stat : undefined;
  }

  /** Makes it again; false for a device that this process may not make. */
  #make(place: Place, inode: WantedInode): boolean {
    const { filesystem, counts } = this.#run;
    const { parent, name, path } = place;
    clear(this.#run, place);
    const action = `create ${displayPath(path)}`;
    if (inode.type === 'symlink') {
      granted(filesystem.makeSymlink(parent, name, inode.linkPath as BytePath), action);
      return true;
    }
    if (!isSpecial(inode)) throw new SyscallError(-ENOENT, `find the content of ${displayPath(path)}`);
    const made = filesystem.makeSpecial(parent, name, inode, 0o600);
    if (made === -EPERM) counts.devices += 1;
    else granted(made, action);
    return made !== -EPERM;
  }

  /** Writes a file, or a symlink to the target in its content, under another name; then renames it: all or nothing. */
  async #write(path: BytePath, type: WantedInode['type']): Promise<void> {
    const { filesystem, directories } = this.#run;
    const action = `write ${displayPath(path)}`;
    if (type === 'symlink') {
      const target = await this.#targetOf(path);
      granted(filesystem.makeSymlink(this.#placeOf(path).parent, this.#aside, target), action);
    } else await this.#writeAside(path, this.#contents.read(path), action);
    const place = this.#placeOf(path);
    const { parent, name } = place;
    const rename = (): number => filesystem.rename(parent, this.#aside, parent, name);
    let renamed = rename();
    if (renamed === -EISDIR) {
      clear(this.#run, place);
      renamed = rename();
    }
    granted(renamed, action);
    directories.forgetLinks();
  }

  /** Writes a file under the other name, in the directory of `path`. */
  async #writeAside(
    path: BytePath,
    content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    action: string,
  ): Promise<void> {
    const { filesystem } = this.#run;
    const file = granted(filesystem.createFile(this.#placeOf(path).parent, this.#aside, 0o600), action);
    try {
      let position = 0;
      for await (const bytes of content) {
        granted(filesystem.write(file, bytes, position), action);
        position += bytes.length;
      }
    } catch (error) {
      filesystem.closeFile(file);
      filesystem.remove(this.#placeOf(path).parent, this.#aside);
      throw error;
    }
    granted(filesystem.closeFile(file), action);
  }

  async #targetOf(path: BytePath): Promise<BytePath> {
    let target = '';
    for await (const bytes of this.#contents.read(path)) {
      target += Buffer.from(bytes).toString('latin1');
      if (target.length > LONGEST_TARGET)
        throw new SyscallError(-ENAMETOOLONG, `create ${displayPath(path)}`);
    }
    return target as BytePath;
  }

  #makeDirectory(place: Place): void {
    const { filesystem } = this.#run;
    const { parent, name, path } = place;
    if (statusOf(filesystem, place)?.type === 'directory') return;
    clear(this.#run, place);
    granted(filesystem.makeDirectory(parent, name, 0o700), `make the directory ${displayPath(path)}`);
  }

  /** A further name of the file at the first one. */
  #link(first: FirstName, place: Place): void {
    const { filesystem } = this.#run;
    const { parent, name, path } = place;
    const stat = statusOf(filesystem, place);
    if (stat?.identity === first.identity) return;
    if (stat?.type === 'directory') clear(this.#run, place);
    const action = `link ${displayPath(path)} to ${displayPath(first.path)}`;
    const from = this.#placeOf(first.path);
    granted(filesystem.makeLink(from.parent, from.name, parent, this.#aside), action);
    granted(filesystem.rename(parent, this.#aside, parent, name), action);
  }

  /** Gives a name a copy of the content that it shares with another one. */
  async #copyOf({ parent, name, path }: Place, inode: WantedInode): Promise<void> {
    const { filesystem } = this.#run;
    const aside = this.#aside;
    const action = `copy ${displayPath(path)}`;
    if (inode.type === 'symlink') {
      const target = granted(filesystem.readLink(parent, name), action);
      granted(filesystem.makeSymlink(parent, aside, target), action);
    } else {
      const from = granted(this.#disk.openFile(parent, name), action);
      try {
        await this.#writeAside(path, piecesOf(from), action);
      } finally {
        filesystem.closeFile(from);
      }
    }
    granted(filesystem.rename(parent, aside, parent, name), action);
  }

  #applyMetadata(place: Place, inode: WantedInode, stat = this.#stat(place)): void {
    const run = this.#run;
    const ownerIsRight = restoreOwner(run, place, inode, stat);
    for (const name of this.#attributes)
      if (inode.xattrs?.has(name) !== true) run.filesystem.removeXattr(place, name);
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
    const above = parentPath(path);
    const parent = this.#run.directories.findExact(above);
    if (!parent) throw new SyscallError(-ENOENT, `find the directory ${displayPath(above)}`);
    return placeIn(parent, nameOf(path));
  }
}

/** The content of an open file; each piece is valid until the next is asked for. */
function* piecesOf(file: number): Generator<Uint8Array, void, void> {
  const buffer = Buffer.alloc(1024 * 1024);
  for (let count = readSync(file, buffer); count > 0; count = readSync(file, buffer))
    yield buffer.subarray(0, count);
}
