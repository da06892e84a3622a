import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import { nameOf, parentPath } from './directories.ts';
import {
  type ByteName,
  type Directory,
  type FileStat,
  type DiskFilesystem,
  type Filesystem,
  type Node,
  granted,
} from './filesystem.ts';
import { permittedMode, restoreOwner, restoreTimes, restoreXattrs } from './metadata.ts';
import { SyscallError } from '../sys/os-error.ts';
import { clear } from './removal.ts';
import type { Run } from './run.ts';
import { randomName } from '../sys/temp-file.ts';

const { EINVAL, EISDIR, ENAMETOOLONG, ENOENT, EPERM } = constants.errno;

/** Of a symlink, in bytes: symlink(2). */
const LONGEST_TARGET = 4095;

/** What is to stand at one or, when they share the object, at several paths. */
export type Inode = Omit<Entry, 'type' | 'path' | 'linkPath' | 'sparse'> & {
  readonly type: Exclude<Entry['type'], 'hardlink'>;
  readonly linkPath: string;
  /** Its times stay as they are, and so does a symlink's target. */
  readonly timeless?: boolean;
};

/** Contents of files that are not on disk, or are others'. */
export interface Contents {
  has(path: string): boolean;
  /** The content of a path that it has: each once, in the order of the tree. */
  read(path: string): AsyncIterable<Uint8Array>;
}

/** One pass over a tree that is there, and is to be as a list of paths and inodes says. */
export class Restoration {
  readonly #run: Run;
  readonly #disk: DiskFilesystem;
  readonly #contents: Contents;
  readonly #attributes: ReadonlySet<string>;
  readonly #directories: [path: BytePath, inode: Inode][] = [];
  /** The first name of each inode, and what is on disk there. */
  readonly #first = new Map<Inode, { readonly path: BytePath; readonly identity: string }>();
  readonly #taken = new Set<string>();
  /** For what is written before it is renamed to its place: one at a time. */
  readonly #aside = randomName('.dlrootfs-');

  /**
   * @param attributes names of extended attributes that only stay where an inode has them
   */
  constructor(run: Run, disk: DiskFilesystem, contents: Contents, attributes: ReadonlySet<string>) {
    this.#run = run;
    this.#disk = disk;
    this.#contents = contents;
    this.#attributes = attributes;
  }

  /** The next path; directories come before what is in them. */
  async place(path: BytePath, inode: Inode): Promise<void> {
    this.#run.directories.trim();
    if (this.#contents.has(path)) await this.#write(path, inode.type);
    const parent = this.#parentOf(path);
    const name = nameOf(path);
    const first = this.#first.get(inode);
    if (inode.type === 'directory') {
      this.#makeDirectory(parent, name, path);
      this.#directories.push([path, inode]);
    } else if (first) this.#link(first, parent, name, path);
    else this.#placeFirst(parent, name, path, inode);
  }

  /** Directories, now that nothing more changes in them: the deepest first, the root last. */
  finish(root: Inode | undefined): void {
    const { filesystem, directories } = this.#run;
    for (const [path, inode] of this.#directories.toReversed()) {
      directories.trim();
      const parent = this.#parentOf(path);
      const name = nameOf(path);
      this.#applyMetadata({ parent, name, file: -1 }, path, inode, this.#stat(parent, name, path));
    }
    const { root: directory } = filesystem;
    const node = { parent: directory, name: '.', file: -1 };
    if (root) this.#applyMetadata(node, directory.path, root, this.#stat(directory, '.', directory.path));
  }

  #placeFirst(parent: Directory, name: ByteName, path: BytePath, inode: Inode): void {
    const there = this.#findUsable(parent, name, inode);
    if (!there && !this.#make(parent, name, path, inode)) return;
    let stat = there ?? this.#stat(parent, name, path);
    if (this.#taken.has(stat.identity)) {
      this.#part(parent, name, path, inode);
      stat = this.#stat(parent, name, path);
    }
    this.#taken.add(stat.identity);
    this.#first.set(inode, { path, identity: stat.identity });
    this.#applyMetadata({ parent, name, file: -1 }, path, inode, stat);
  }

  /** What is there, where it may stay but for its metadata. A device may be any. */
  #findUsable(parent: Directory, name: ByteName, inode: Inode): FileStat | undefined {
    const stat = this.#run.filesystem.stat(parent, name);
    if (typeof stat === 'number' || stat.type !== inode.type) return undefined;
    if (stat.type === 'file' || stat.type === 'fifo') return stat;
    if (stat.type !== 'symlink') return undefined;
    const isRight = inode.timeless === true || this.#run.filesystem.readLink(parent, name) === inode.linkPath;
    return isRight ? stat : undefined;
  }

  /** Makes it again; false for a device that this process may not make. */
  #make(parent: Directory, name: ByteName, path: BytePath, inode: Inode): boolean {
    const { filesystem, counts } = this.#run;
    clear(this.#run, parent, name, path);
    const action = `create ${displayPath(path)}`;
    switch (inode.type) {
      case 'symlink':
        granted(filesystem.makeSymlink(parent, name, inode.linkPath as BytePath), action);
        return true;
      case 'file':
        throw new SyscallError(-ENOENT, `find the content of ${displayPath(path)}`);
      case 'character':
      case 'block':
      case 'fifo': {
        const { type, deviceMajor, deviceMinor } = inode;
        const made = filesystem.makeSpecial(parent, name, type, 0o600, deviceMajor, deviceMinor);
        if (made === -EPERM) counts.devices += 1;
        else granted(made, action);
        return made !== -EPERM;
      }
      case 'directory':
    }
    throw new SyscallError(-EINVAL, action);
  }

  /** Writes a file, or a symlink to what its content says, beside its place and puts it there: whole or not at all. */
  async #write(path: BytePath, type: Inode['type']): Promise<void> {
    const { filesystem, directories } = this.#run;
    const action = `write ${displayPath(path)}`;
    const aside = this.#aside;
    if (type === 'symlink') {
      const target = await this.#targetOf(path);
      granted(filesystem.makeSymlink(this.#parentOf(path), aside, target), action);
    } else await this.#writeContent(path, aside);
    const parent = this.#parentOf(path);
    const name = nameOf(path);
    let renamed = filesystem.rename(parent, aside, parent, name);
    if (renamed === -EISDIR) {
      clear(this.#run, parent, name, path);
      renamed = filesystem.rename(parent, aside, parent, name);
    }
    granted(renamed, action);
    directories.forgetLinks();
  }

  async #writeContent(path: BytePath, aside: ByteName): Promise<void> {
    const { filesystem } = this.#run;
    const action = `write ${displayPath(path)}`;
    const file = granted(filesystem.createFile(this.#parentOf(path), aside, 0o600), action);
    try {
      let position = 0;
      for await (const bytes of this.#contents.read(path)) {
        granted(filesystem.write(file, bytes, position), action);
        position += bytes.length;
      }
    } catch (error) {
      filesystem.closeFile(file);
      filesystem.remove(this.#parentOf(path), aside);
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

  #makeDirectory(parent: Directory, name: ByteName, path: BytePath): void {
    const { filesystem } = this.#run;
    const stat = filesystem.stat(parent, name);
    if (typeof stat !== 'number' && stat.type === 'directory') return;
    clear(this.#run, parent, name, path);
    granted(filesystem.makeDirectory(parent, name, 0o700), `make the directory ${displayPath(path)}`);
  }

  /** A further name of the file at the first one. */
  #link(
    first: { readonly path: BytePath; readonly identity: string },
    parent: Directory,
    name: ByteName,
    path: BytePath,
  ): void {
    const { filesystem } = this.#run;
    const stat = filesystem.stat(parent, name);
    if (typeof stat !== 'number' && stat.identity === first.identity) return;
    if (typeof stat !== 'number' && stat.type === 'directory') clear(this.#run, parent, name, path);
    const firstParent = this.#parentOf(first.path);
    const aside = this.#aside;
    const action = `link ${displayPath(path)} to ${displayPath(first.path)}`;
    granted(filesystem.makeLink(firstParent, nameOf(first.path), parent, aside), action);
    granted(filesystem.rename(parent, aside, parent, name), action);
  }

  /** Gives a name content of its own that shares it with another one. */
  #part(parent: Directory, name: ByteName, path: BytePath, inode: Inode): void {
    const { filesystem } = this.#run;
    const aside = this.#aside;
    const action = `copy ${displayPath(path)}`;
    if (inode.type === 'symlink') {
      const target = filesystem.readLink(parent, name);
      if (typeof target === 'number') throw new SyscallError(target, action);
      granted(filesystem.makeSymlink(parent, aside, target), action);
    } else {
      const from = granted(this.#disk.openFile(parent, name), action);
      const file = granted(filesystem.createFile(parent, aside, 0o600), action);
      copy(filesystem, from, file, action);
    }
    granted(filesystem.rename(parent, aside, parent, name), action);
  }

  #applyMetadata(node: Node, path: BytePath, inode: Inode, stat: FileStat): void {
    const { filesystem } = this.#run;
    const entry: Entry = { ...inode, path, linkPath: inode.linkPath as BytePath, sparse: undefined };
    const ownerIsRight = restoreOwner(this.#run, node, entry, stat);
    for (const name of this.#attributes) {
      if (inode.xattrs?.has(name) !== true) filesystem.removeXattr(node, name);
    }
    const ownMode = restoreXattrs(this.#run, node, entry);
    if (inode.type !== 'symlink') {
      const mode = permittedMode(this.#run, ownMode, ownerIsRight);
      const doubtful = stat.uid !== inode.uid || stat.gid !== inode.gid || inode.xattrs !== undefined;
      if (mode !== stat.mode || doubtful)
        granted(filesystem.setMode(node, mode), `set the mode of ${displayPath(path)}`);
    }
    const timeIsRight =
      stat.mtimeSeconds === inode.mtimeSeconds && stat.mtimeNanoseconds === inode.mtimeNanoseconds;
    if (inode.timeless !== true && !timeIsRight) {
      restoreTimes(this.#run, node, inode.mtimeSeconds, inode.mtimeNanoseconds);
    }
  }

  #stat(parent: Directory, name: ByteName, path: BytePath): FileStat {
    const stat = this.#run.filesystem.stat(parent, name);
    if (typeof stat === 'number') throw new SyscallError(stat, `find ${displayPath(path)}`);
    return stat;
  }

  #parentOf(path: BytePath): Directory {
    const above = parentPath(path);
    const parent = this.#run.directories.find(above, false);
    if (parent?.path !== above) throw new SyscallError(-ENOENT, `find the directory ${displayPath(above)}`);
    return parent;
  }
}

/** Copies all of one open file to another, and closes both. */
function copy(filesystem: Filesystem, from: number, to: number, action: string): void {
  const buffer = Buffer.alloc(1024 * 1024);
  let position = 0;
  try {
    for (let count = readSync(from, buffer); count > 0; count = readSync(from, buffer)) {
      granted(filesystem.write(to, buffer.subarray(0, count), position), action);
      position += count;
    }
  } finally {
    filesystem.closeFile(from);
    granted(filesystem.closeFile(to), action);
  }
}
