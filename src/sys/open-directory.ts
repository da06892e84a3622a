import {
  type BigIntStats,
  closeSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  type Stats,
  statSync,
} from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { printable } from '../errors.ts';
import {
  enter,
  entryPath,
  FLAGS,
  isSameFile,
  type Level,
  makeUnlessThere,
  mayOthersRename,
  type OpenOptions,
  removeLevels,
  usesDescriptors,
  walk,
} from './directory-walk.ts';
import { SyscallError } from './os-error.ts';
import { osPath, pathBytes, pathText } from './os-path.ts';
import { systemText } from './privileges.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, systemCalls } from './system-calls.ts';

/** A name in an open directory. */
export interface EntryPlace {
  readonly directory: OpenDirectory;
  /** One name, which was no symlink when it was looked at; `.` for the root of the system. */
  readonly name: string;
}

/** How the place of a name is opened. */
export interface PlaceOptions extends OpenOptions {
  /** False: a symlink at the last name is the entry itself, and is not followed. */
  readonly followLast?: boolean;
}

/**
 * A directory that is open. Names in it are resolved from its descriptor, and never from its path again, so that no rename above it changes
 * where a call leads. Node's calls reach an entry by `at`, through the descriptor's link in /proc (proc_pid_fd(5)).
 *
 * Without /proc, names are resolved from the path. As root, a directory is then refused if another user may rename above it.
 */
export class OpenDirectory implements Disposable {
  readonly descriptor: number;
  /** Absolute and without symlinks, as it was at the time of opening: for messages, and to compare with mount points. */
  readonly path: string;
  /** A directory on the way in which another user may rename the next level; undefined if only this user and root may. */
  readonly exposedAt: string | undefined;
  readonly #made: readonly Level[];

  private constructor({ descriptor, path: shown, exposedAt }: Level, made: readonly Level[]) {
    this.descriptor = descriptor;
    this.path = shown;
    this.exposedAt = exposedAt;
    this.#made = made;
  }

  /**
   * Opens a directory, one level after the other. Symlinks are followed, except those that another user may have put there: see
   * `refuseForeignLink`.
   *
   * @throws DestinationError for a symlink of another user, and for more than 40 symlinks; the system's errors
   */
  static open(name: string, options: OpenOptions = {}): OpenDirectory {
    const { here, made } = walk(name, options, undefined);
    return new OpenDirectory(here, made);
  }

  /**
   * Opens the directory in which `name` is, or would be. Symlinks are followed as by `open`, also at `name` itself.
   *
   * @returns the directory itself, and the name `.`, for a directory that has no name in the one above: the root of the system, and a
   * working directory that was removed or is covered by a mount
   * @throws as `open` does
   */
  static openParent(name: string, { followLast = true, ...options }: PlaceOptions = {}): EntryPlace {
    const { here, made, last } = walk(name, options, followLast ? 'real' : 'last');
    if (last !== undefined) return { directory: new OpenDirectory(here, made), name: last };
    // It ends with `..` or a link to a root: its name is in the directory above.
    const own = path.basename(here.path);
    const descriptor = openSync(osPath(entryPath(here, '..')), FLAGS);
    const above = { ...here, descriptor, path: path.dirname(here.path) };
    const found =
      own === '' ? undefined : lstatSync(osPath(entryPath(above, own)), { throwIfNoEntry: false });
    const isOwn = found !== undefined && isSameFile(found, fstatSync(here.descriptor));
    closeSync(isOwn ? here.descriptor : descriptor);
    return isOwn
      ? { directory: new OpenDirectory(above, made), name: own }
      : { directory: new OpenDirectory(here, made), name: '.' };
  }

  /** Whether names are resolved from its descriptor: elsewhere from its path. */
  get isNamedByDescriptor(): boolean {
    return usesDescriptors();
  }

  /** The directory itself, as text (`pathText`), for calls that follow links: also where this process may not search it. */
  get self(): string {
    return usesDescriptors() ? `/proc/self/fd/${this.descriptor}` : this.path;
  }

  /** Device and inode, as `DEVICE:INODE`. */
  get identity(): string {
    return identityOf(fstatSync(this.descriptor, { bigint: true }));
  }

  /** Its path now, as the kernel knows it: other than `path` after a rename above it. */
  get currentPath(): string {
    return usesDescriptors() ? pathText(readlinkSync(this.self, { encoding: 'buffer' })) : this.path;
  }

  /** The mount that it is in (proc_pid_fdinfo(5)); undefined where the system does not tell. */
  get mountID(): string | undefined {
    return /^mnt_id:\s*(\d+)$/m.exec(systemText(`/proc/self/fdinfo/${this.descriptor}`))?.[1];
  }

  /** Owner, mode and times. */
  get status(): Stats {
    return fstatSync(this.descriptor);
  }

  /** The path of an entry for Node's calls, resolved from the descriptor. `name` is one name, or `.` for the directory itself. */
  at(name: string): string | Buffer {
    if (name === '' || name === '..' || name.includes('/'))
      throw new Error(`${printable(name)} is not one name`);
    return osPath(entryPath(this, name));
  }

  /** The path of an entry for messages. */
  shown(name: string): string {
    return path.join(this.path, name);
  }

  /** The status of an entry, symlinks not followed; undefined if it does not exist. */
  stat(name: string): Stats | undefined {
    return lstatSync(this.at(name), { throwIfNoEntry: false });
  }

  /** Device and inode of an entry, as `DEVICE:INODE`, symlinks not followed; undefined if it does not exist. */
  identityOf(name: string): string | undefined {
    const found = lstatSync(this.at(name), { throwIfNoEntry: false, bigint: true });
    return found && identityOf(found);
  }

  /** The same of what an entry leads to. */
  identityBehind(name: string): string | undefined {
    const found = statSync(this.at(name), { throwIfNoEntry: false, bigint: true });
    return found && identityOf(found);
  }

  /** Whether another user than root may rename this entry. */
  mayOthersRename(entry: Stats): boolean {
    return mayOthersRename(this.status, entry);
  }

  /** The names in it, as text (`pathText`). */
  names(): string[] {
    return readdirSync(osPath(this.self), { encoding: 'buffer' }).map((name) => pathText(name));
  }

  /**
   * Opens a directory in this one; a symlink is not followed.
   *
   * @param options.make its mode, less the umask: it is made if it is missing
   * @throws the system's error: ENOTDIR for anything but a directory
   */
  openChild(name: string, { make }: OpenOptions = {}): OpenDirectory {
    if (make !== undefined) makeUnlessThere(this.at(name), make);
    return new OpenDirectory(enter(this, name), []);
  }

  /**
   * Exchanges two entries in one step: renameat2(2). False where this system, or the file system, cannot.
   *
   * @throws SyscallError for any other reason: ENOENT where one of them is missing
   */
  exchange(name: string, other: string): boolean {
    return this.#rename(name, other, RENAME_EXCHANGE);
  }

  /**
   * Renames an entry to a name that must be free. False where this system, or the file system, cannot do both in one step.
   *
   * @throws SyscallError for any other reason: EEXIST where the name is taken
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
    // `names` is used until here: nothing may free it before.
    if (answer === 0 && names.length > 0) return true;
    if (UNSUPPORTED.has(-answer)) return false;
    throw new SyscallError(answer, `rename ${printable(this.shown(name))}`);
  }

  /** Removes the levels that were made to open it and that are still empty, itself too; to be called before it is closed. */
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

/** Errors of renameat2(2): no such call, or a file system without these flags. */
const UNSUPPORTED: ReadonlySet<number> = new Set([
  constants.errno.ENOSYS,
  constants.errno.EINVAL,
  constants.errno.EOPNOTSUPP,
]);

function identityOf({ dev, ino }: Pick<BigIntStats, 'dev' | 'ino'>): string {
  return `${dev}:${ino}`;
}
