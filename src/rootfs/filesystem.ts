import { fstatSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import type { BytePath, Entry, EntryType, InodeType } from '../tar/entry.ts';
import { ANOTHER_DIRECTORY, DestinationError, IntegrityError, printable } from '../errors.ts';
import { SyscallError, osError } from '../sys/os-error.ts';

const { EFBIG, EINVAL } = constants.errno;

/**
 * One name in a directory: any bytes but `/` and NUL, one character a byte, never `..`. For metadata only,
 * `.` is the directory itself.
 */
export type ByteName = string;

/** An open directory inside the root. */
export interface Directory {
  /** Path from the root, without symlinks; empty for the root itself. */
  readonly path: BytePath;
  /** Handle of the back end, 0 if it needs none. */
  readonly handle: number;
}

/**
 * The target of metadata: a name in a directory; a symlink is not followed. `file` is that name's open file,
 * which the back end may use instead, or -1.
 */
export interface InodeName {
  parent: Directory;
  name: ByteName;
  file: number;
}

/** A name in a directory that `Directories` found. */
export interface Place extends InodeName {
  /** Path from the root, without symlinks. */
  readonly path: BytePath;
}

/** The types that mknod(2) makes here. */
export type Special = Pick<Entry, 'deviceMajor' | 'deviceMinor'> & {
  readonly type: 'character' | 'block' | 'fifo';
};

/** Time of a file's last modification. */
export type Mtime = Pick<Entry, 'mtimeSeconds' | 'mtimeNanoseconds'>;

/** The status of an inode, as in stat(2). `deviceMajor` and `deviceMinor` are 0 for all but devices. */
export interface FileStat
  extends Mtime, Pick<Entry, 'mode' | 'uid' | 'gid' | 'size' | 'deviceMajor' | 'deviceMinor'> {
  readonly type: EntryType | 'other';
  /** Time of the inode's last change: of its content, owner, mode, attributes or names. */
  readonly ctimeSeconds: number;
  readonly ctimeNanoseconds: number;
  /** Number of names of the inode. */
  readonly links: number;
  /** `DEVICE:INODE`: equal for two names of one file. */
  readonly identity: string;
}

/** File types in st_mode: inode(7). */
export const FORMATS = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
} as const satisfies Record<InodeType, number>;
const TYPES_BY_FORMAT = new Map<number, FileStat['type']>(
  Object.entries(FORMATS).map(([type, format]) => [format, type as keyof typeof FORMATS]),
);

/** Returns the type in st_mode. */
export function typeOfMode(mode: number): FileStat['type'] {
  return TYPES_BY_FORMAT.get(mode & 0o170000) ?? 'other';
}

/**
 * A file system to which layers are applied. Every call takes a name in a directory that was opened from the
 * root downward. So no call reaches outside the root.
 *
 * Results below zero are errors, the negated errno; a call without a result returns 0.
 */
export interface Filesystem {
  readonly root: Directory;
  /**
   * Opens a directory in the parent, not a symlink to one. Returns its handle, -ENOENT if it does not exist,
   * or -ENOTDIR or -ELOOP for another type.
   */
  openDirectory(parent: Directory, name: ByteName): number;
  /** Closes a handle of `openDirectory`. */
  closeDirectory(directory: Directory): void;
  /** Returns the target of a symlink; -EINVAL for any other type. */
  readLink(parent: Directory, name: ByteName): BytePath | number;
  stat(parent: Directory, name: ByteName): FileStat | number;
  /**
   * Returns the content of a regular file of at most `most` bytes. -EFBIG if it has more, -EINVAL for any
   * other type.
   */
  readFile(parent: Directory, name: ByteName, most: number): Uint8Array | number;
  /** Returns the names in a directory, without `.` and `..`. */
  list(directory: Directory): ByteName[] | number;

  /**
   * Makes a directory. It and other new entries get their mode less the umask, a directory only the low ten
   * bits of it.
   */
  makeDirectory(parent: Directory, name: ByteName, mode: number): number;
  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number;
  makeSpecial(parent: Directory, name: ByteName, special: Special, mode: number): number;
  /** Makes a second name for the file at the target. A symlink there is not followed. */
  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number;
  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number;
  /** Removes anything but a directory; -EISDIR or -EPERM for a directory. */
  remove(parent: Directory, name: ByteName): number;
  removeDirectory(parent: Directory, name: ByteName): number;
  /**
   * Removes the attributes immutable and append-only from a file or directory. Returns true if it had one and
   * the system allowed the change.
   */
  unprotect?(parent: Directory, name: ByteName): boolean;

  /** Makes and opens a new file; -EEXIST if anything has the name. Returns the open file. */
  createFile(parent: Directory, name: ByteName, mode: number): number;
  /** Writes all of `bytes` at `position`. */
  write(file: number, bytes: Uint8Array, position: number): number;
  /**
   * Returns the most bytes that a new file can hold. Infinite if unknown, as on a file system that
   * compresses.
   */
  freeSpace(file: number): number;
  truncate(file: number, size: number): number;
  closeFile(file: number): number;

  setOwner(node: InodeName, uid: number, gid: number): number;
  setMode(node: InodeName, mode: number): number;
  /** Sets modification and access time; returns 1 if the stored time is not exact. */
  setTimes(node: InodeName, seconds: number, nanoseconds: number): number;
  setXattr(node: InodeName, name: string, value: Uint8Array): number;
  /** Returns the size of an extended attribute; -ENOTSUP if the file system has none of its kind. */
  xattrSize(node: InodeName, name: string): number;
  /** Returns all extended attributes that this process may see. */
  readXattrs(node: InodeName): Map<string, Uint8Array> | number;
  /**
   * Removes an attribute. -ENODATA if it does not exist; for access lists some file systems return 0 then.
   */
  removeXattr(node: InodeName, name: string): number;

  close(): void;
}

/** A file system of the kernel, in contrast to one in memory. */
export interface DiskFilesystem extends Filesystem {
  /** Opens a regular file to read; -EINVAL for any other type, which is not opened. `closeFile` closes it. */
  openFile(parent: Directory, name: ByteName): number;
  /**
   * Returns where data begins in an open file, at or after `position`: bytes before it are zeros. -ENXIO if
   * no data follows.
   */
  nextData(file: number, position: number): number;
}

/** Magic numbers of btrfs and ZFS: statfs(2). */
const compressing = new Set([0x9123_683e, 0x2fc1_2fc1]);

/** Returns true if files may take less space than their size on this type of file system. */
export function compressesFiles(type: number): boolean {
  return compressing.has(type);
}

/** Implements `Filesystem.readFile` for a file system of the kernel. It opens no device. */
export function readRegularFile(
  filesystem: DiskFilesystem,
  parent: Directory,
  name: ByteName,
  most: number,
): Uint8Array | number {
  const file = filesystem.openFile(parent, name);
  if (file < 0) return file;
  try {
    const { size } = fstatSync(file);
    if (size > most) return -EFBIG;
    const bytes = Buffer.alloc(size);
    return bytes.subarray(0, readSync(file, bytes, 0, size, 0));
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -EINVAL;
  } finally {
    filesystem.closeFile(file);
  }
}

/**
 * Returns `result` if it is no error.
 *
 * @throws SyscallError for `action` otherwise
 */
export function granted(result: number, action: string): number;
export function granted<T extends object | string>(result: T | number, action: string): T;
export function granted<T>(result: T | number, action: string): T | number {
  if (typeof result === 'number' && result < 0) throw new SyscallError(result, action);
  return result;
}

/** Returns the status of a name; undefined if it does not exist or this process may not see it. */
export function statusOf(
  filesystem: Pick<Filesystem, 'stat'>,
  { parent, name }: Omit<InodeName, 'file'>,
): FileStat | undefined {
  const stat = filesystem.stat(parent, name);
  return typeof stat === 'number' ? undefined : stat;
}

/** Returns the error for a request of a layer that no system can fulfil, with the system's words. */
export function impossible(errno: number, action: string): IntegrityError {
  const { code, text } = osError(errno);
  return new IntegrityError(`cannot ${action}: ${text}`, {
    code,
    hint: 'the layer is malformed: report it to the publisher of the image',
  });
}

/**
 * Returns the error that a user sees for a failed system call.
 *
 * @param where the layer and the path of an entry, fit for a terminal; undefined: unknown
 */
export function explain(
  failure: SyscallError,
  where: string | undefined,
  destination: string,
): DestinationError {
  const { code, text, disk, hint } = osError(failure.errno);
  const place = disk
    ? `the disk of ${printable(destination)} ${disk}`
    : where
      ? undefined
      : printable(destination);
  const parts = [place, where, `cannot ${failure.action}: ${text}`];
  return new DestinationError(parts.filter((part) => part !== undefined).join(': '), {
    code,
    hint: hint(ANOTHER_DIRECTORY),
    cause: failure,
  });
}

/** Runs `work`. @throws the error that `explain` makes of a SyscallError; any other error as it is */
export function explained<T>(where: string | undefined, destination: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof SyscallError ? explain(error, where, destination) : error;
  }
}
