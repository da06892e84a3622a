import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { GitError, printable } from '../errors.ts';
import { openFilesystem } from '../rootfs/confined-root.ts';
import { Directories, nameOf, parentPath } from '../rootfs/directories.ts';
import {
  type Directory,
  type DiskFilesystem,
  type FileStat,
  granted,
  statusOf,
} from '../rootfs/filesystem.ts';
import { SyscallError } from '../sys/os-error.ts';
import { absolutePath, pathBytes } from '../sys/os-path.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';

const { EEXIST, ENOENT } = constants.errno;

/**
 * Writes the new repository in a rootfs, and reads the status of other files, by their paths from its root
 * (one character per byte). Each directory is opened from its parent, and no link is followed. No content is
 * read.
 */
export class RepositoryFiles implements Disposable {
  readonly filesystem: DiskFilesystem;
  readonly #path: string;
  /** For messages. */
  readonly #shown: string;
  readonly #directories: Directories;
  readonly #keptOpen: Directory[] = [];

  /**
   * @param shown the directory's name in messages
   * @throws SyscallError if it cannot be opened
   */
  constructor(directory: string, shown: string) {
    this.#path = absolutePath(directory);
    this.#shown = printable(shown);
    this.filesystem = granted(openFilesystem(pathBytes(this.#path)), `open ${this.#shown}`);
    this.#directories = new Directories(this.filesystem);
  }

  /** Closes kept directories. Call it when directories may have been replaced since the last call. */
  forget(): void {
    this.#directories.close();
  }

  /**
   * Opens a directory and returns a path to it that stays valid if another one takes its name, until this
   * object is disposed of.
   */
  keepOpen(name: string): string {
    const handle = this.filesystem.openDirectory(this.parent(name), nameOf(name));
    granted(handle, `open ${this.place(name)}`);
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
   * Returns the status of a name in a directory; undefined if it does not exist, or the directory cannot be
   * read.
   */
  statIn(directory: string, name: string): FileStat | undefined {
    this.#directories.trim();
    const parent = this.#directories.findExact(directory);
    return parent && statusOf(this.filesystem, { parent, name });
  }

  /** Replaces a file completely or not at all, as git does. The directory must exist. */
  replace(name: string, content: Uint8Array): void {
    using file = this.replacing(name);
    file.write(content);
    file.close();
  }

  /** Opens git's lock for a file; closing it renames it to `name`. The caller disposes of it. */
  replacing(name: string): NewFile {
    return new NewFile(this, `${name}.lock`, name);
  }

  /** Makes a directory and its missing parents. */
  makeDirectory(name: string): void {
    for (let end = name.indexOf('/'); ; end = name.indexOf('/', end + 1)) {
      const level = end < 0 ? name : name.slice(0, end);
      const made = this.filesystem.makeDirectory(this.parent(level), nameOf(level), 0o755);
      if (made < 0 && made !== -EEXIST) throw new SyscallError(made, `make ${this.place(level)}`);
      if (end < 0) return;
    }
  }

  /**
   * Returns the directory above a path.
   *
   * @throws SyscallError if it does not exist
   */
  parent(name: string): Directory {
    this.#directories.trim();
    const parent = this.#directories.findExact(parentPath(name));
    if (!parent) throw new SyscallError(-ENOENT, `write ${this.place(name)}`);
    return parent;
  }

  /** Returns a printable path, for messages. */
  place(name: string): string {
    return `${this.#shown}/${displayPath(name)}`;
  }
}

/** A new file that is being written. Disposing removes it, unless it was closed. */
class NewFile implements Disposable {
  readonly #name: string;
  readonly #files: RepositoryFiles;
  readonly #finalName: string;
  readonly #file: number;
  #position = 0;
  #isOpen = true;

  /**
   * @param finalName the name that closing gives it
   * @throws GitError if it exists
   */
  constructor(files: RepositoryFiles, name: string, finalName: string) {
    this.#name = name;
    this.#files = files;
    this.#finalName = finalName;
    this.#file = files.filesystem.createFile(files.parent(name), nameOf(name), 0o644);
    if (this.#file === -EEXIST) {
      throw new GitError(`cannot write ${files.place(name)}: it exists`, {
        code: 'GIT_LOCKED',
        hint: 'see who else writes there, and pull it again',
      });
    }
    granted(this.#file, `write ${files.place(finalName)}`);
  }

  /** Appends bytes. */
  write(bytes: Uint8Array): void {
    const { filesystem } = this.#files;
    granted(
      filesystem.write(this.#file, bytes, this.#position),
      `write ${this.#files.place(this.#finalName)}`,
    );
    this.#position += bytes.length;
  }

  /**
   * Closes it and renames it to its final name.
   *
   * @throws SyscallError after removing it
   */
  close(): void {
    const { filesystem } = this.#files;
    this.#isOpen = false;
    let result = filesystem.closeFile(this.#file);
    if (result === 0) {
      const parent = this.#files.parent(this.#name);
      result = filesystem.rename(parent, nameOf(this.#name), parent, nameOf(this.#finalName));
    }
    if (result < 0) this.#remove();
    granted(result, `write ${this.#files.place(this.#finalName)}`);
  }

  #remove(): void {
    this.#files.filesystem.remove(this.#files.parent(this.#name), nameOf(this.#name));
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#files.filesystem.closeFile(this.#file);
    try {
      this.#remove();
    } catch {
      // The earlier error is the one to report.
    }
  }
}

/** A file of the repository that is being written. */
export type WritableFile = Pick<NewFile, 'write'>;
