import { constants } from 'node:os';
import { DestinationError, printable } from '../errors.ts';
import { Directories, join, nameOf, parentPath } from '../rootfs/directories.ts';
import { openFilesystem } from '../rootfs/confined-root.ts';
import type { Directory, DiskFilesystem, FileStat } from '../rootfs/filesystem.ts';
import { PortableFilesystem } from '../rootfs/portable.ts';
import { osError, SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { DiskFile } from './disk-file.ts';
import type { Comparable } from './differences.ts';
import type { Walk } from './trees.ts';

const { EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR } = constants.errno;

/** One name in a directory on disk. */
export interface DiskEntry extends Comparable, FileStat {
  /** What a directory holds, by the bytes of the names; undefined where this process may not read it, and for anything else. */
  readonly names: readonly string[] | undefined;
}

/**
 * A directory tree on disk, only read. It may belong to another user and change during the walk: no link is followed, not even
 * one that another process has just made, and only regular files are opened.
 */
export class DiskTree implements Disposable {
  readonly #shown: string;
  readonly #filesystem: DiskFilesystem;
  readonly #directories: Directories;

  /**
   * Opens a directory; a symlink to it is followed.
   *
   * @throws DestinationError
   */
  constructor(directory: string) {
    this.#shown = printable(directory);
    const filesystem = openFilesystem(pathBytes(directory));
    if (typeof filesystem === 'number') throw this.#unreadable(filesystem, '');
    this.#filesystem = filesystem;
    this.#directories = new Directories(filesystem);
  }

  [Symbol.dispose](): void {
    this.#directories.close();
    this.#filesystem.close();
  }

  /** It is read by Node's calls: there are no extended attributes, devices and FIFOs that a pull could have made. */
  get isPortable(): boolean {
    return this.#filesystem instanceof PortableFilesystem;
  }

  /** See `DiskFilesystem.keepsXattr`. */
  keepsXattr(name: string): boolean {
    return this.#filesystem.keepsXattr(name);
  }

  /** The directory itself. */
  get root(): FileStat {
    const stat = this.#filesystem.stat(this.#filesystem.root, '.');
    if (typeof stat === 'number') throw this.#unreadable(stat, '');
    return stat;
  }

  /**
   * All names in the order of an image's tree.
   *
   * @param withRoot the root comes first
   * @throws DestinationError where it cannot be read for another reason than that this process may not
   */
  *walk(withRoot: boolean): Walk<DiskEntry> {
    const top = this.#entry('' as BytePath);
    if (top?.names === undefined) throw this.#unreadable(-EACCES, '');
    if (withRoot) yield top;
    const way: { readonly path: BytePath; readonly names: Iterator<string> }[] = [
      { path: top.path, names: top.names.values() },
    ];
    for (let last = way.at(-1); last !== undefined; last = way.at(-1)) {
      const next = last.names.next();
      if (next.done === true) {
        way.pop();
        continue;
      }
      const entry = this.#entry(join(last.path, next.value));
      if (entry === undefined) continue;
      const descend = yield entry;
      if (descend !== false && entry.names !== undefined)
        way.push({ path: entry.path, names: entry.names.values() });
    }
  }

  /** The content of a regular file at the root of at most so many bytes; undefined where there is none, or it may not be read. */
  readSmall(name: string, most: number): Uint8Array | undefined {
    const bytes = this.#filesystem.readFile(this.#filesystem.root, name, most);
    return typeof bytes === 'number' ? undefined : bytes;
  }

  /**
   * Opens a file to be compared.
   *
   * @returns undefined where the file was removed or replaced by another type, `denied` where this process may not read it
   */
  open(path: BytePath): DiskFile | 'denied' | undefined {
    const parent = this.#parentOf(path);
    const file = parent ? this.#filesystem.openFile(parent, nameOf(path)) : -ENOENT;
    if (file === -EACCES) return 'denied';
    if (isGone(file) || file === -EINVAL) return undefined;
    if (file < 0) throw this.#unreadable(file, path);
    return new DiskFile(this.#filesystem, file);
  }

  /** Undefined where nothing is there any more. */
  #entry(path: BytePath): DiskEntry | undefined {
    const parent = this.#parentOf(path);
    if (!parent) return undefined;
    const name = path === '' ? '.' : nameOf(path);
    const stat = this.#filesystem.stat(parent, name);
    if (typeof stat === 'number') {
      if (isGone(stat)) return undefined;
      throw this.#unreadable(stat, path);
    }
    const target = stat.type === 'symlink' ? this.#filesystem.readLink(parent, name) : '';
    if (typeof target === 'number' && isGone(target)) return undefined;
    const read = this.#filesystem.readXattrs({ parent, name, file: -1 });
    return {
      ...stat,
      path,
      inode: stat.identity,
      linkPath: (typeof target === 'number' ? '' : target) as BytePath,
      xattrs: typeof read === 'number' || read.size === 0 ? undefined : read,
      names: stat.type === 'directory' ? this.#list(path) : undefined,
    };
  }

  /** Undefined where this process may not read the directory, or not look up what is in it. */
  #list(path: BytePath): string[] | undefined {
    const directory = this.#directoryAt(path);
    if (!directory) return [];
    const names = this.#filesystem.list(directory);
    if (typeof names === 'number') {
      if (names === -EACCES) return undefined;
      if (isGone(names)) return [];
      throw this.#unreadable(names, path);
    }
    if (names.length > 0 && this.#filesystem.stat(directory, names[0]!) === -EACCES) return undefined;
    // One character a byte: the order of the bytes.
    return names.toSorted();
  }

  #parentOf(path: BytePath): Directory | undefined {
    return this.#directoryAt(parentPath(path));
  }

  #directoryAt(path: BytePath): Directory | undefined {
    this.#directories.trim();
    try {
      return path === '' ? this.#filesystem.root : this.#directories.findExact(path);
    } catch (error) {
      throw error instanceof SyscallError ? this.#unreadable(error.errno, path) : error;
    }
  }

  #unreadable(errno: number, path: BytePath | ''): DestinationError {
    const { code, text, hint } = osError(errno);
    const place = path === '' ? this.#shown : `${this.#shown}/${displayPath(path)}`;
    return new DestinationError(`cannot read ${place}: ${text}`, {
      code,
      hint: hint('name another directory with -d') ?? 'name the directory of a rootfs with -d',
    });
  }
}

function isGone(errno: number): boolean {
  return errno === -ENOENT || errno === -ENOTDIR || errno === -ELOOP;
}
