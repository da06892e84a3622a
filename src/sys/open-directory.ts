import {
  type BigIntStats,
  closeSync,
  fstatSync,
  lstatSync,
  readdirSync,
  readlinkSync,
  type Stats,
  statSync,
} from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { printable } from '../errors.ts';
import { type OpenOptions, walk } from './directory-walk.ts';
import {
  enter,
  entryPath,
  type Level,
  makeUnlessThere,
  mayOthersRename,
  removeLevels,
  usesDescriptors,
} from './level.ts';
import { SyscallError } from './os-error.ts';
import { osPath, pathBytes, pathText } from './os-path.ts';
import { systemText } from './privileges.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, systemCalls } from './system-calls.ts';

/** A name in an open directory. */
export interface EntryPlace {
  readonly directory: OpenDirectory;
  /** One name, which was no symlink when it was checked; `.` for the root of the system. */
  readonly name: string;
}

/** Options for opening the parent directory of a name. */
export interface PlaceOptions extends OpenOptions {
  /** False: a symlink at the last name is not followed. */
  readonly followLast?: boolean;
}

/**
 * An open directory. Names in it are resolved from its descriptor, never again from its path, so that a
 * rename above it does not change where a call leads. Node's functions reach an entry by `at`, through the
 * descriptor's link in /proc (proc_pid_fd(5)).
 *
 * Without /proc, names are resolved from the path. As root, a directory is then refused if another user may
 * rename above it.
 */
export class OpenDirectory implements Disposable {
  readonly descriptor: number;
  /**
   * Its absolute path without symlinks when it was opened: for messages, and to compare with mount points.
   */
  readonly path: string;
  /**
   * A directory of the path in which another user may rename the next level; undefined if only this user and
   * root may.
   */
  readonly exposedAt: string | undefined;
  readonly #made: readonly Level[];

  private constructor({ descriptor, path: shown, exposedAt }: Level, made: readonly Level[]) {
    this.descriptor = descriptor;
    this.path = shown;
    this.exposedAt = exposedAt;
    this.#made = made;
  }

  /**
   * Opens a directory, level by level. Symlinks are followed, except those that another user may have put
   * there: see `refuseForeignLink`.
   *
   * @throws DestinationError for a symlink of another user, and for more than 40 symlinks; the system's
   * errors
   */
  static open(name: string, options: OpenOptions = {}): OpenDirectory {
    const { here, made } = walk(name, options, undefined);
    return new OpenDirectory(here, made);
  }

  /**
   * Opens the directory in which `name` is, or would be. Symlinks are followed as by `open`, also at `name`
   * itself.
   *
   * @returns for a directory without a name in its parent, itself and the name `.`: the root of the system,
   * and a working directory that was removed or is covered by a mount
   * @throws as `open` does
   */
  static openParent(name: string, { followLast = true, ...options }: PlaceOptions = {}): EntryPlace {
    const { here, made, last } = walk(name, options, followLast ? 'real' : 'last');
    return { directory: new OpenDirectory(here, made), name: last! };
  }

  /** True if names are resolved from its descriptor, not its path. */
  get isNamedByDescriptor(): boolean {
    return usesDescriptors();
  }

  /**
   * A path to the directory itself, as text (`pathText`), for functions that follow links, even if this
   * process may not search it.
   */
  get self(): string {
    return usesDescriptors() ? `/proc/self/fd/${this.descriptor}` : this.path;
  }

  /** Device and inode, as `DEVICE:INODE`. */
  get identity(): string {
    return identityOf(fstatSync(this.descriptor, { bigint: true }));
  }

  /** Its current path, from the kernel: it differs from `path` after a rename above it. */
  get currentPath(): string {
    return usesDescriptors() ? pathText(readlinkSync(this.self, { encoding: 'buffer' })) : this.path;
  }

  /** The id of its mount (proc_pid_fdinfo(5)); undefined if the system does not tell. */
  get mountID(): string | undefined {
    return /^mnt_id:\s*(\d+)$/m.exec(systemText(`/proc/self/fdinfo/${this.descriptor}`))?.[1];
  }

  /** Owner, mode and times. */
  get status(): Stats {
    return fstatSync(this.descriptor);
  }

  /**
   * Returns the path of an entry for Node's functions, resolved from the descriptor.
   *
   * @param name a single name, or `.` for the directory itself
   */
  at(name: string): string | Buffer {
    if (name === '' || name === '..' || name.includes('/'))
      throw new Error(`${printable(name)} is not one name`);
    return osPath(entryPath(this, name));
  }

  /** Returns the path of an entry for messages. */
  shown(name: string): string {
    return path.join(this.path, name);
  }

  /** Returns the status of an entry, without following a symlink; undefined if it does not exist. */
  stat(name: string): Stats | undefined {
    return lstatSync(this.at(name), { throwIfNoEntry: false });
  }

  /** Returns `DEVICE:INODE` of an entry, without following a symlink; undefined if it does not exist. */
  identityOf(name: string): string | undefined {
    const found = lstatSync(this.at(name), { throwIfNoEntry: false, bigint: true });
    return found && identityOf(found);
  }

  /** Returns `DEVICE:INODE` of an entry, following symlinks; undefined if it does not exist. */
  identityBehind(name: string): string | undefined {
    const found = statSync(this.at(name), { throwIfNoEntry: false, bigint: true });
    return found && identityOf(found);
  }

  /** True if another user than root may rename this entry. */
  mayOthersRename(entry: Stats): boolean {
    return mayOthersRename(this.status, entry);
  }

  /** Returns the names in it, as text (`pathText`). */
  names(): string[] {
    return readdirSync(osPath(this.self), { encoding: 'buffer' }).map((name) => pathText(name));
  }

  /**
   * Opens a directory in this one; a symlink is not followed.
   *
   * @param options.make makes a missing directory with this mode, less the umask
   * @throws the system's error: ENOTDIR for anything but a directory
   */
  openChild(name: string, { make }: OpenOptions = {}): OpenDirectory {
    if (make !== undefined) makeUnlessThere(this.at(name), make);
    return new OpenDirectory(enter(this, name), []);
  }

  /**
   * Exchanges two entries atomically: renameat2(2). Returns false if the system or the file system cannot.
   *
   * @throws SyscallError for any other reason, such as ENOENT
   */
  exchange(name: string, other: string): boolean {
    return this.#rename(name, other, RENAME_EXCHANGE);
  }

  /**
   * Renames an entry to a free name, atomically. Returns false if the system or the file system cannot.
   *
   * @throws SyscallError for any other reason: EEXIST if the name is taken
   */
  renameToFree(name: string, other: string): boolean {
    return this.#rename(name, other, RENAME_NOREPLACE);
  }

  #rename(name: string, other: string, flags: number): boolean {
    const calls = systemCalls();
    if (!calls) return false;
    const first = pathBytes(name);
    const names = Buffer.concat([first, Buffer.of(0), pathBytes(other), Buffer.of(0)]);
    const address = calls.address(names);
    const second = address + first.length + 1;
    const answer = calls.renameat2(this.descriptor, address, this.descriptor, second, flags);
    // This use of `names` keeps its memory alive until here.
    if (answer === 0 && names.length > 0) return true;
    if (UNSUPPORTED.has(-answer)) return false;
    throw new SyscallError(answer, `rename ${printable(this.shown(name))}`);
  }

  /** Removes the levels that were made to open it and are still empty, itself too. Call it before `close`. */
  removeMade(): void {
    removeLevels(this.#made);
  }

  close(): void {
    closeSync(this.descriptor);
    for (const { descriptor } of this.#made) closeSync(descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Errors of renameat2(2) without this call, or on a file system without these flags. */
const UNSUPPORTED: ReadonlySet<number> = new Set([
  constants.errno.ENOSYS,
  constants.errno.EINVAL,
  constants.errno.EOPNOTSUPP,
]);

/** Returns `DEVICE:INODE` of a file or directory. */
export function identityOf({ dev, ino }: Pick<BigIntStats, 'dev' | 'ino'>): string {
  return `${dev}:${ino}`;
}
