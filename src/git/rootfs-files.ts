import { existsSync, fstatSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { GitError, printable } from '../errors.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { Directories, nameOf, parentPath } from '../rootfs/directories.ts';
import {
  type Directory,
  type FileStat,
  type DiskFilesystem,
  granted,
  statusOf,
} from '../rootfs/filesystem.ts';
import { SyscallError } from '../sys/os-error.ts';
import { openFilesystem } from '../rootfs/confined-root.ts';
import { absolutePath, pathBytes } from '../sys/os-path.ts';
import { damaged } from './git-error.ts';

const { EACCES, EEXIST, EINVAL, ENOENT, ENOTDIR } = constants.errno;

const typeNames: Readonly<Record<string, string>> = {
  file: 'a regular file',
  directory: 'a directory',
  symlink: 'a symbolic link',
  character: 'a character device',
  block: 'a block device',
  fifo: 'a FIFO',
  other: 'a socket',
};

/**
 * The files of a rootfs, `.git` among them, by their paths from its root (one character a byte). A container may have written them, and
 * may be changing them now: each directory is opened from the one above, no link is followed, and only regular files are read.
 */
export class RootfsFiles implements Disposable {
  readonly filesystem: DiskFilesystem;
  /** The rootfs as people name it. */
  readonly #shown: string;
  readonly #path: string;
  readonly #directories: Directories;
  readonly #keptOpen: Directory[] = [];

  private constructor(filesystem: DiskFilesystem, directory: string, shown: string) {
    this.filesystem = filesystem;
    this.#shown = printable(shown);
    this.#path = absolutePath(directory);
    this.#directories = new Directories(filesystem);
  }

  /**
   * @param directory symlinks to it are followed
   * @param shown its name in messages
   * @returns undefined where no directory is
   * @throws GitError
   */
  static open(directory: string, shown = directory): RootfsFiles | undefined {
    const filesystem = openFilesystem(pathBytes(absolutePath(directory)));
    if (typeof filesystem !== 'number') return new RootfsFiles(filesystem, directory, shown);
    if (filesystem === -ENOENT || filesystem === -ENOTDIR) return undefined;
    throw new SyscallError(filesystem, `open ${printable(shown)}`);
  }

  /** To be called when directories may have been replaced by others since the last call. */
  forget(): void {
    this.#directories.close();
  }

  /** A path to a directory that stays valid when another one takes its name: until this object is disposed of. */
  keepOpen(name: string): string {
    const parent = this.parent(name);
    const handle = this.filesystem.openDirectory(parent, nameOf(name));
    if (handle < 0) throw new SyscallError(handle, `open ${this.place(name)}`);
    this.#keptOpen.push({ path: name as BytePath, handle });
    const link = `/proc/self/fd/${handle}`;
    return existsSync(link) ? link : path.join(this.#path, name);
  }

  [Symbol.dispose](): void {
    for (const directory of this.#keptOpen.splice(0)) this.filesystem.closeDirectory(directory);
    this.#directories.close();
    this.filesystem.close();
  }

  /**
   * The directory at a path, until the next call.
   *
   * @returns undefined where it does not exist
   * @throws GitError where a part of the path is not a directory
   */
  directory(name: string): Directory | undefined {
    this.#directories.trim();
    const found = this.#directories.findExact(name);
    if (found) return found;
    for (let end = name.indexOf('/'); ; end = name.indexOf('/', end + 1)) {
      const above = end < 0 ? name : name.slice(0, end);
      const stat = this.stat(above);
      if (!stat) return undefined;
      if (stat.type !== 'directory') throw this.notA('directory', above, stat.type);
      if (end < 0) return undefined;
    }
  }

  /** The status of a path; undefined where it does not exist, or this process may not read the directory. */
  stat(name: string): FileStat | undefined {
    return this.statIn(parentPath(name), name === '' ? '.' : nameOf(name));
  }

  /** The same for a name in a directory. */
  statIn(directory: string, name: string): FileStat | undefined {
    this.#directories.trim();
    const parent = this.#directories.findExact(directory);
    return parent && statusOf(this.filesystem, { parent, name });
  }

  /** The names in a directory; none if it does not exist. */
  list(name: string): string[] {
    const directory = this.directory(name);
    if (!directory) return [];
    const names = this.filesystem.list(directory);
    if (typeof names === 'number') throw new SyscallError(names, `read ${this.place(name)}`);
    return names;
  }

  /**
   * Opens a regular file to read; if its mode denies the owner access, the mode is changed for a moment.
   *
   * @returns undefined where it does not exist
   * @throws GitError for any other type of file
   */
  open(name: string): number | undefined {
    const parent = this.directory(parentPath(name));
    if (!parent) return undefined;
    const file = this.filesystem.openFile(parent, nameOf(name));
    if (file >= 0) return file;
    if (file === -ENOENT) return undefined;
    const stat = this.stat(name);
    if (file === -EACCES && stat?.type === 'file') return this.#openUnreadable(name, stat.mode);
    if (file === -EINVAL && stat && stat.type !== 'file') throw this.notA('regular file', name, stat.type);
    throw new SyscallError(file, `read ${this.place(name)}`);
  }

  /**
   * All of a regular file.
   *
   * @param most bytes that it may have
   * @returns undefined where it does not exist
   * @throws GitError for any other type of file, or more bytes
   */
  read(name: string, most: number): Buffer | undefined {
    const file = this.open(name);
    if (file === undefined) return undefined;
    try {
      const { size } = fstatSync(file);
      if (size > most) {
        throw damaged(`cannot read ${this.place(name)}: it has ${size} bytes, more than ${most}`);
      }
      const bytes = Buffer.alloc(size);
      let length = 0;
      for (let count = -1; count !== 0 && length < size; length += count) {
        count = readSync(file, bytes, length, size - length, length);
      }
      return bytes.subarray(0, length);
    } finally {
      this.filesystem.closeFile(file);
    }
  }

  /** The content of a regular file, in pieces: each is in `buffer`, until the next one. None if it does not exist. */
  *pieces(name: string, buffer: Buffer): Generator<Buffer, void, void> {
    const file = this.open(name);
    if (file === undefined) return;
    try {
      for (let count = readSync(file, buffer); count > 0; count = readSync(file, buffer))
        yield buffer.subarray(0, count);
    } finally {
      this.filesystem.closeFile(file);
    }
  }

  /** Puts a file in place of what has its name, as git does: completely or not at all. The directory must exist. */
  replace(name: string, content: Uint8Array): void {
    using file = this.replacing(name);
    file.write(content, 0);
    file.close();
  }

  /** The file that is to replace `name` when it is closed: git's lock, as long as it has its own name. To be disposed of. */
  replacing(name: string): NewFile {
    return new NewFile(this, `${name}.lock`, name);
  }

  /** Makes a file that does not exist yet. */
  create(name: string, content: Uint8Array): void {
    using file = new NewFile(this, name);
    file.write(content, 0);
    file.close();
  }

  /** Removes a file, if there is one. */
  remove(name: string): void {
    const parent = this.directory(parentPath(name));
    const removed = parent ? this.filesystem.remove(parent, nameOf(name)) : 0;
    if (removed < 0 && removed !== -ENOENT) throw new SyscallError(removed, `remove ${this.place(name)}`);
  }

  /** Makes a directory, and those above it that are missing. */
  makeDirectory(name: string): void {
    for (let end = name.indexOf('/'); ; end = name.indexOf('/', end + 1)) {
      const level = end < 0 ? name : name.slice(0, end);
      if (!this.directory(level)) {
        const made = this.filesystem.makeDirectory(this.parent(level), nameOf(level), 0o755);
        if (made < 0 && made !== -EEXIST) throw new SyscallError(made, `make ${this.place(level)}`);
      }
      if (end < 0) return;
    }
  }

  /** A path as people read it. */
  place(name: string): string {
    return name === '' ? this.#shown : `${this.#shown}/${displayPath(name)}`;
  }

  notA(wanted: string, name: string, type: string): GitError {
    return damaged(`cannot read ${this.place(name)}: it is ${typeNames[type] ?? type}, not a ${wanted}`);
  }

  /** The directory above a path. @throws SyscallError where it does not exist */
  parent(name: string): Directory {
    const parent = this.directory(parentPath(name));
    if (!parent) throw new SyscallError(-ENOENT, `write ${this.place(name)}`);
    return parent;
  }

  #openUnreadable(name: string, mode: number): number {
    const node = { parent: this.parent(name), name: nameOf(name), file: -1 };
    this.filesystem.setMode(node, mode | 0o400);
    const file = this.filesystem.openFile(node.parent, node.name);
    this.filesystem.setMode(node, mode);
    return granted(file, `read ${this.place(name)}`);
  }
}

/** A file that did not exist before and is being written. Unless it is closed it is removed when it is disposed of. */
export class NewFile implements Disposable {
  readonly name: string;
  readonly #files: RootfsFiles;
  readonly #finalName: string;
  readonly #file: number;
  #isOpen = true;

  /**
   * @param finalName the name that it gets when it is closed
   * @throws GitError where it exists
   */
  constructor(files: RootfsFiles, name: string, finalName = name) {
    this.name = name;
    this.#files = files;
    this.#finalName = finalName;
    this.#file = files.filesystem.createFile(files.parent(name), nameOf(name), 0o644);
    if (this.#file === -EEXIST) {
      throw new GitError(`cannot write ${files.place(name)}: it exists`, {
        code: 'GIT_LOCKED',
        hint: 'wait until no other git runs there; if none does, remove that file',
      });
    }
    granted(this.#file, `write ${files.place(name)}`);
  }

  write(bytes: Uint8Array, position: number): void {
    granted(
      this.#files.filesystem.write(this.#file, bytes, position),
      `write ${this.#files.place(this.name)}`,
    );
  }

  /** Completes it and gives it its name. @throws SyscallError, and then it is removed */
  close(): void {
    const { filesystem } = this.#files;
    this.#isOpen = false;
    let result = filesystem.closeFile(this.#file);
    if (result === 0 && this.#finalName !== this.name) {
      const parent = this.#files.parent(this.name);
      result = filesystem.rename(parent, nameOf(this.name), parent, nameOf(this.#finalName));
    }
    if (result < 0) this.#files.remove(this.name);
    granted(result, `write ${this.#files.place(this.#finalName)}`);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#files.filesystem.closeFile(this.#file);
    try {
      this.#files.remove(this.name);
    } catch {
      // The reason why it is not complete counts.
    }
  }
}
