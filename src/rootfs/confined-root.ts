import { constants } from 'node:os';
import { IntegrityError } from '../errors.ts';
import { pathBytes } from '../sys/os-path.ts';
import { hasErrno } from '../sys/os-error.ts';
import { systemCalls } from '../sys/system-calls.ts';
import { MAX_ACCOUNT_FILE_BYTES } from '../sys/passwd.ts';
import { bytePath } from '../tar/entry.ts';
import { Directories } from './directories.ts';
import {
  type ByteName,
  type Directory,
  type FileStat,
  type DiskFilesystem,
  granted,
  statusOf,
} from './filesystem.ts';
import { LinuxFilesystem } from './linux.ts';
import { PortableFilesystem } from './portable.ts';

/** The back end that makes the calls: libc's or Node's. */
export type Backend = 'libc' | 'node';

const { EACCES, EEXIST, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR } = constants.errno;

/**
 * Opens a directory as the root of a file system, following symlinks to it.
 *
 * @param backend the one to use; left out: libc's if available, else Node's
 * @returns an errno below zero if it cannot be opened; -ENOSYS if the back end is not available
 */
export function openFilesystem(
  path: Uint8Array,
  backend?: Backend,
): LinuxFilesystem | PortableFilesystem | number {
  const calls = backend === 'node' ? undefined : systemCalls();
  if (calls) return LinuxFilesystem.open(calls, path);
  return backend === 'libc' ? -constants.errno.ENOSYS : PortableFilesystem.open(path);
}

/**
 * The files of a rootfs as a process would see them after chroot(2) into it. Absolute and climbing symlinks
 * stay inside, also for the last name of a path. Each directory is opened from its parent without following
 * symlinks. So no change by another process leads outside the root. Paths are text; a leading slash means the
 * root.
 */
export class ConfinedRoot implements Disposable {
  readonly #filesystem: DiskFilesystem;
  readonly #directories: Directories;

  /** @throws SyscallError */
  constructor(directory: string) {
    this.#filesystem = granted(openFilesystem(pathBytes(directory)), `open ${directory}`);
    this.#directories = new Directories(this.#filesystem);
  }

  [Symbol.dispose](): void {
    this.#directories.close();
    this.#filesystem.close();
  }

  /** Returns the status of a path, following symlinks; undefined if it does not exist. */
  stat(path: string): FileStat | undefined {
    return this.#at(path, (parent, name) => statusOf(this.#filesystem, { parent, name }));
  }

  /**
   * Returns the text of a regular file, in UTF-8. Undefined if it does not exist, may not be read, or has
   * more than 4 MiB (as in an ImageTree).
   */
  readText(path: string): string | undefined {
    return this.#at(path, (parent, name) => {
      const bytes = this.#filesystem.readFile(parent, name, MAX_ACCOUNT_FILE_BYTES);
      return typeof bytes === 'number' ? undefined : Buffer.from(bytes).toString();
    });
  }

  /**
   * Makes a directory with exactly this mode. Returns false if its parent is missing.
   *
   * @throws SyscallError, also when it exists
   */
  makeDirectory(path: string, mode: number): boolean {
    const made = this.#at(path, (parent, name) => {
      const action = `make the directory ${path}`;
      granted(this.#filesystem.makeDirectory(parent, name, mode), action);
      granted(this.#filesystem.setMode({ parent, name, file: -1 }, mode), action);
      return true;
    });
    return made === true;
  }

  /**
   * Makes a file of mode 0644, or fills an empty regular file. Returns false if its parent is missing or
   * something else exists.
   *
   * @throws SyscallError
   */
  fillFile(path: string, content: string): boolean {
    const filled = this.#at(path, (parent, name) => {
      const filesystem = this.#filesystem;
      const stat = filesystem.stat(parent, name);
      const isEmpty = typeof stat !== 'number' && stat.type === 'file' && stat.size === 0;
      if (stat !== -ENOENT && !isEmpty) return false;
      const action = `write ${path}`;
      if (isEmpty) granted(filesystem.remove(parent, name), action);
      const made = filesystem.createFile(parent, name, 0o644);
      if (made === -EEXIST) return false;
      const file = granted(made, action);
      try {
        granted(filesystem.write(file, Buffer.from(content), 0), action);
        granted(filesystem.setMode({ parent, name, file }, 0o644), action);
        return true;
      } finally {
        filesystem.closeFile(file);
      }
    });
    return filled === true;
  }

  /**
   * Follows the symlinks of a path, and calls `use` with the directory and name that it leads to. Undefined
   * if a directory is missing, is not a directory, or may not be entered.
   */
  #at<T>(path: string, use: (parent: Directory, name: ByteName) => T): T | undefined {
    try {
      const found = this.#directories.follow(bytePath(path));
      return found && use(found.parent, found.name);
    } catch (error) {
      // The path has a loop of symlinks, or is too long.
      if (error instanceof IntegrityError) return undefined;
      if (hasErrno(error, ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG)) return undefined;
      throw error;
    } finally {
      this.#directories.trim();
    }
  }
}
