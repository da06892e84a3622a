import { constants } from 'node:fs';
import { constants as osConstants } from 'node:os';
import type { BytePath } from '../tar/entry.ts';
import { CallMemory } from './call-memory.ts';
import type { OpenFiles } from './file-jobs.ts';
import {
  type ByteName,
  type Directory,
  type FileStat,
  type DiskFilesystem,
  type InodeName,
  FORMATS,
  readRegularFile,
  type Special,
} from './filesystem.ts';
import {
  type Address,
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  FS_IOC_GETFLAGS,
  FS_IOC_SETFLAGS,
  FS_PROTECTED,
  SEEK_DATA,
  STATX_BASIC_STATS,
  lockFile,
  type SystemCalls,
} from '../sys/system-calls.ts';
import { O_CLOEXEC, O_PATH } from '../sys/os-path.ts';

const { EAGAIN, EINTR, EINVAL, EIO, ENOSYS, EPERM } = osConstants.errno;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

/** Flags for a descriptor that only refers to a file. */
const OPEN_PATH = O_PATH | O_NOFOLLOW | O_CLOEXEC;
const OPEN_NEW = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
const OPEN_LIST = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

/** Most bytes of a value, and of all names together: xattr(7). */
const MAX_XATTR_BYTES = 64 * 1024;

/**
 * The file system by Linux's system calls. Each directory is opened from its parent's descriptor. The kernel
 * follows no symlink, and no path is longer than one name. So no name leads out of the root, and PATH_MAX is
 * no limit.
 */
export class LinuxFilesystem implements DiskFilesystem {
  readonly root: Directory;
  readonly #calls: SystemCalls;
  readonly #memory: CallMemory;
  #knowsFchmodat2 = true;
  /** listxattrat(2) is new in Linux 6.13; using /proc instead takes several times as long. */
  #knowsListxattrat = true;
  #attribute: Buffer | undefined;

  /** Takes ownership of `root`, an open descriptor of the root directory. */
  private constructor(calls: SystemCalls, memory: CallMemory, root: number) {
    this.#calls = calls;
    this.#memory = memory;
    this.root = { path: '' as BytePath, handle: root };
  }

  /** Opens the directory at `path`, following symlinks to it. Returns an errno below zero where it cannot. */
  static open(calls: SystemCalls, path: Uint8Array): LinuxFilesystem | number {
    const memory = new CallMemory((bytes) => calls.address(bytes));
    const name = memory.putName(Buffer.from(path).toString('latin1'));
    let root = calls.openat(AT_FDCWD, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    // An owner can give itself the right to read it.
    if (root < 0) root = calls.openat(AT_FDCWD, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    return root < 0 ? root : new LinuxFilesystem(calls, memory, root);
  }

  /** Returns the calls for files that are open already. */
  static ofOpenFiles(calls: SystemCalls): OpenFiles {
    return new LinuxFilesystem(calls, new CallMemory((bytes) => calls.address(bytes)), -1);
  }

  /**
   * Locks the root until this process ends, however it ends. Returns false if another process has the lock.
   * True also if the file system has no locks.
   */
  lock(): boolean {
    return lockFile(this.root.handle, 'exclusive') !== 'busy';
  }

  openDirectory(parent: Directory, name: ByteName): number {
    return this.#open(parent.handle, name, OPEN_PATH | O_DIRECTORY);
  }

  #open(directory: number, name: string, flags: number, mode = 0): number {
    return this.#calls.openat(directory, this.#memory.putName(name), flags, mode);
  }

  /** Writes the path of a node, for calls that take no directory, and returns its address. */
  #putPath({ parent, name }: Omit<InodeName, 'file'>): Address {
    return this.#memory.putName(`/proc/self/fd/${parent.handle}/${name}`);
  }

  closeDirectory(directory: Directory): void {
    this.#calls.close(directory.handle);
  }

  readLink(parent: Directory, name: ByteName): BytePath | number {
    const { second, longestName } = this.#memory;
    const path = this.#memory.putName(name);
    const length = this.#calls.readlinkat(parent.handle, path, second, longestName);
    return length < 0 ? length : (this.#memory.takeSecond(length) as BytePath);
  }

  stat(parent: Directory, name: ByteName): FileStat | number {
    const itself = name === '.';
    const path = this.#memory.putName(itself ? '' : name);
    const flags = itself ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
    const { structure } = this.#memory;
    const failure = this.#calls.statx(parent.handle, path, flags, STATX_BASIC_STATS, structure);
    return failure < 0 ? failure : this.#memory.takeStat();
  }

  readFile(parent: Directory, name: ByteName, most: number): Uint8Array | number {
    return readRegularFile(this, parent, name, most);
  }

  openFile(parent: Directory, name: ByteName): number {
    return this.#openToRead(parent, name, ['file']);
  }

  unprotect(parent: Directory, name: ByteName): boolean {
    const file = this.#openToRead(parent, name, ['file', 'directory']);
    if (file < 0) return false;
    const { structure } = this.#memory;
    this.#memory.putFlags(0);
    const got = this.#calls.ioctl(file, FS_IOC_GETFLAGS, structure);
    const flags = got < 0 ? 0 : this.#memory.takeFlags();
    this.#memory.putFlags(flags & ~FS_PROTECTED);
    const done = (flags & FS_PROTECTED) !== 0 && this.#calls.ioctl(file, FS_IOC_SETFLAGS, structure) >= 0;
    this.#calls.close(file);
    return done;
  }

  /** Opens a file of one of these types; -EINVAL for any other, without an open(2) of a device. */
  #openToRead(parent: Directory, name: ByteName, types: readonly FileStat['type'][]): number {
    const place = this.#open(parent.handle, name, OPEN_PATH);
    if (place < 0) return place;
    const stat = this.stat({ path: parent.path, handle: place }, '.');
    let file = typeof stat === 'number' ? stat : -EINVAL;
    if (typeof stat !== 'number' && types.includes(stat.type))
      file = this.#open(AT_FDCWD, `/proc/self/fd/${place}`, O_RDONLY | O_CLOEXEC);
    this.#calls.close(place);
    return file;
  }

  nextData(file: number, position: number): number {
    const found = this.#calls.lseek(file, position, SEEK_DATA);
    return found === -EINVAL ? position : found;
  }

  list(directory: Directory): ByteName[] | number {
    const file = this.#open(directory.handle, '.', OPEN_LIST);
    if (file < 0) return file;
    const names: ByteName[] = [];
    const { list, listSize } = this.#memory;
    for (;;) {
      const length = this.#calls.getdents64(file, list, listSize);
      if (length <= 0) {
        this.#calls.close(file);
        return length < 0 ? length : names;
      }
      this.#memory.takeNames(length, names);
    }
  }

  makeDirectory(parent: Directory, name: ByteName, mode: number): number {
    return this.#calls.mkdirat(parent.handle, this.#memory.putName(name), mode);
  }

  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number {
    return this.#calls.symlinkat(this.#memory.putSecond(target), parent.handle, this.#memory.putName(name));
  }

  makeSpecial(parent: Directory, name: ByteName, special: Special, mode: number): number {
    const { deviceMajor: major, deviceMinor: minor } = special;
    if (major > 0xfff || minor > 0xfffff) return -EPERM;
    const device = (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
    const format = FORMATS[special.type] | mode;
    return this.#calls.mknodat(parent.handle, this.#memory.putName(name), format, device >>> 0);
  }

  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number {
    const target = this.#memory.putSecond(targetName);
    return this.#calls.linkat(targetParent.handle, target, parent.handle, this.#memory.putName(name));
  }

  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number {
    const old = this.#memory.putSecond(name);
    return this.#calls.renameat(parent.handle, old, newParent.handle, this.#memory.putName(newName));
  }

  remove(parent: Directory, name: ByteName): number {
    return this.#calls.unlinkat(parent.handle, this.#memory.putName(name), 0);
  }

  removeDirectory(parent: Directory, name: ByteName): number {
    return this.#calls.unlinkat(parent.handle, this.#memory.putName(name), AT_REMOVEDIR);
  }

  createFile(parent: Directory, name: ByteName, mode: number): number {
    return this.#open(parent.handle, name, OPEN_NEW, mode);
  }

  write(file: number, bytes: Uint8Array, position: number): number {
    let rest = bytes;
    let at = position;
    for (;;) {
      const written = this.#calls.pwrite(file, rest, rest.length, at);
      if (written === rest.length) return 0;
      if (written === 0) return -EIO;
      if (written < 0) {
        if (written !== -EINTR && written !== -EAGAIN) return written;
      } else {
        rest = rest.subarray(written);
        at += written;
      }
    }
  }

  freeSpace(file: number): number {
    if (this.#calls.fstatfs(file, this.#memory.structure) < 0) return Infinity;
    return this.#memory.takeFreeSpace();
  }

  truncate(file: number, size: number): number {
    return this.#calls.ftruncate(file, size);
  }

  closeFile(file: number): number {
    return this.#calls.close(file);
  }

  setOwner(node: InodeName, uid: number, gid: number): number {
    if (node.file >= 0) return this.#calls.fchown(node.file, uid, gid);
    const name = this.#memory.putName(node.name);
    return this.#calls.fchownat(node.parent.handle, name, uid, gid, AT_SYMLINK_NOFOLLOW);
  }

  setMode(node: InodeName, mode: number): number {
    if (node.file >= 0) return this.#calls.fchmod(node.file, mode);
    if (node.name === '.') return this.#setModeByHandle(node.parent.handle, mode);
    if (this.#knowsFchmodat2) {
      const name = this.#memory.putName(node.name);
      const result = this.#calls.fchmodat2(node.parent.handle, name, mode, AT_SYMLINK_NOFOLLOW);
      // A seccomp filter that does not know the call returns EPERM.
      if (result !== -ENOSYS && result !== -EPERM) return result;
      if (result === -ENOSYS) this.#knowsFchmodat2 = false;
    }
    const file = this.#open(node.parent.handle, node.name, OPEN_PATH);
    if (file < 0) return file;
    const result = this.#setModeByHandle(file, mode);
    this.#calls.close(file);
    return result;
  }

  /** Sets the mode through a descriptor opened with O_PATH, which fchmod(2) refuses. */
  #setModeByHandle(handle: number, mode: number): number {
    return this.#calls.fchmodat(AT_FDCWD, this.#memory.putName(`/proc/self/fd/${handle}`), mode);
  }

  setTimes(node: InodeName, seconds: number, nanoseconds: number): number {
    this.#memory.putTimes(seconds, nanoseconds);
    const { structure } = this.#memory;
    if (node.file >= 0) return this.#calls.utimensat(node.file, 0, structure, 0);
    const name = this.#memory.putName(node.name);
    return this.#calls.utimensat(node.parent.handle, name, structure, AT_SYMLINK_NOFOLLOW);
  }

  setXattr(node: InodeName, name: string, value: Uint8Array): number {
    const attribute = this.#memory.putSecond(name);
    if (node.file >= 0) return this.#calls.fsetxattr(node.file, attribute, value, value.length);
    return this.#calls.lsetxattr(this.#putPath(node), attribute, value, value.length);
  }

  xattrSize(node: InodeName, name: string): number {
    return this.#getXattr(node, name, 0, 0);
  }

  #getXattr(node: Omit<InodeName, 'file'>, name: string, buffer: Address, size: number): number {
    return this.#calls.lgetxattr(this.#putPath(node), this.#memory.putSecond(name), buffer, size);
  }

  readXattrs(node: InodeName): Map<string, Uint8Array> | number {
    const buffer = (this.#attribute ??= Buffer.alloc(MAX_XATTR_BYTES));
    const address = this.#calls.address(buffer);
    const length = this.#listXattrs(node, address, buffer.length);
    if (length <= 0) return length < 0 ? length : new Map();
    const names = buffer.toString('latin1', 0, length).split('\0').slice(0, -1);
    const values = new Map<string, Uint8Array>();
    for (const name of names) {
      const size = this.#getXattr(node, name, address, buffer.length);
      // Skips an attribute that is gone by now, or that only the kernel may read.
      if (size >= 0) values.set(name, Uint8Array.prototype.slice.call(buffer, 0, size));
    }
    return values;
  }

  #listXattrs(node: InodeName, buffer: number, size: number): number {
    if (this.#knowsListxattrat) {
      const { handle } = node.parent;
      const name = this.#memory.putName(node.name);
      const length = this.#calls.listxattrat(handle, name, AT_SYMLINK_NOFOLLOW, buffer, size);
      // A seccomp filter that does not know the call returns EPERM.
      if (length !== -ENOSYS && length !== -EPERM) return length;
      this.#knowsListxattrat = false;
    }
    return this.#calls.llistxattr(this.#putPath(node), buffer, size);
  }

  removeXattr(node: InodeName, name: string): number {
    const attribute = this.#memory.putSecond(name);
    if (node.file >= 0) return this.#calls.fremovexattr(node.file, attribute);
    return this.#calls.lremovexattr(this.#putPath(node), attribute);
  }

  close(): void {
    this.#calls.close(this.root.handle);
  }
}
