import { constants } from 'node:fs';
import { constants as osConstants } from 'node:os';
import type { BytePath, EntryType } from '../tar/entry.ts';
import { readAll } from './node-stat.ts';
import { CallMemory } from './call-memory.ts';
import type { ByteName, Directory, FileStat, Filesystem } from './filesystem.ts';
import type { Libc } from './libc.ts';
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  LOCK_EX_NB,
  O_CLOEXEC,
  O_PATH,
  STATX_BASIC_STATS,
  calls,
  openPath,
} from './linux-numbers.ts';
import { LinuxMetadata } from './linux-metadata.ts';

const { EAGAIN, EINTR, EINVAL, ENAMETOOLONG, EPERM, EWOULDBLOCK } = osConstants.errno;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

const openNew = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
const openToRead = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;

const formats: Readonly<Partial<Record<EntryType, number>>> = {
  fifo: 0o010000,
  character: 0o020000,
  block: 0o060000,
};

/**
 * The file system by libc's calls. Each directory is opened from its parent's descriptor, no symlink is ever followed by the kernel,
 * and no path is longer than one name: so there is nothing a name could climb out with, and no limit of PATH_MAX.
 */
export class LinuxFilesystem extends LinuxMetadata implements Filesystem {
  readonly root: Directory;

  /** `root` is an open descriptor of the root directory, from then on this object's to close. */
  private constructor(libc: Libc, memory: CallMemory, root: number) {
    super(libc, memory);
    this.root = { path: '' as BytePath, handle: root };
  }

  /** Opens the directory at `path`, following symlinks to it. Answers an errno below zero where it cannot. */
  static open(libc: Libc, path: Uint8Array): LinuxFilesystem | number {
    const memory = new CallMemory((bytes) => libc.address(bytes));
    if (!memory.putName(Buffer.from(path).toString('latin1'))) return -ENAMETOOLONG;
    let root = libc.open(memory.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // An owner can give itself the right to read it.
    if (root < 0) root = libc.open(memory.name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return -libc.errno();
    return new LinuxFilesystem(libc, memory, root);
  }

  /** Takes the root for this process until it ends, however it ends: false when another has it. True where the file system knows no locks. */
  lock(): boolean {
    return this.libc.flock(this.root.handle, LOCK_EX_NB) === 0 || this.libc.errno() !== EWOULDBLOCK;
  }

  openDirectory(parent: Directory, name: ByteName): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    return this.result(this.libc.openat(parent.handle, this.memory.name, openPath | O_DIRECTORY, 0));
  }

  closeDirectory(directory: Directory): void {
    this.libc.close(directory.handle);
  }

  readLink(parent: Directory, name: ByteName): BytePath | number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    const length = this.libc.readlinkat(
      parent.handle,
      this.memory.name,
      this.memory.second,
      this.memory.longestName,
    );
    if (length < 0) return -this.libc.errno();
    return this.memory.takeSecond(length) as BytePath;
  }

  stat(parent: Directory, name: ByteName): FileStat | number {
    const itself = name === '.';
    if (!this.memory.putName(itself ? '' : name)) return -ENAMETOOLONG;
    const flags = itself ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
    const { handle } = parent;
    if (this.libc.statx(handle, this.memory.name, flags, STATX_BASIC_STATS, this.memory.structure) !== 0) {
      return -this.libc.errno();
    }
    return this.memory.takeStat();
  }

  readFile(parent: Directory, name: ByteName, most: number): Uint8Array | number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    const file = this.result(this.libc.openat(parent.handle, this.memory.name, openToRead, 0));
    if (file < 0) return file;
    const bytes = readAll(file, most);
    // Not by Node: it warns of a descriptor that it has not opened.
    this.libc.close(file);
    return bytes;
  }

  openFile(parent: Directory, name: ByteName): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    const place = this.result(this.libc.openat(parent.handle, this.memory.name, openPath, 0));
    if (place < 0) return place;
    const stat = this.stat({ path: parent.path, handle: place }, '.');
    let file = typeof stat === 'number' ? stat : -EINVAL;
    if (typeof stat !== 'number' && stat.type === 'file') {
      this.memory.putName(`/proc/self/fd/${place}`);
      file = this.result(this.libc.open(this.memory.name, O_RDONLY | O_CLOEXEC));
    }
    this.libc.close(place);
    return file;
  }

  list(directory: Directory): ByteName[] | number {
    this.memory.putName('.');
    const file = this.libc.openat(
      directory.handle,
      this.memory.name,
      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
      0,
    );
    if (file < 0) return -this.libc.errno();
    const names: ByteName[] = [];
    const { list, listSize } = this.memory;
    for (;;) {
      const length = this.libc.syscall(calls.getdents64, file, list, listSize, 0);
      if (length <= 0) {
        const failure = length < 0 ? -this.libc.errno() : 0;
        this.libc.close(file);
        return failure < 0 ? failure : names;
      }
      this.memory.takeNames(length, names);
    }
  }

  makeDirectory(parent: Directory, name: ByteName, mode: number): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    return this.result(this.libc.mkdirat(parent.handle, this.memory.name, mode));
  }

  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number {
    if (!this.memory.putName(name) || !this.memory.putSecond(target)) return -ENAMETOOLONG;
    return this.result(this.libc.symlinkat(this.memory.second, parent.handle, this.memory.name));
  }

  makeSpecial(
    parent: Directory,
    name: ByteName,
    type: 'character' | 'block' | 'fifo',
    mode: number,
    major: number,
    minor: number,
  ): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    if (major > 0xfff || minor > 0xfffff) return -EPERM;
    const device = (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
    const format = formats[type]! | mode;
    return this.result(
      this.libc.syscall(calls.mknodat, parent.handle, this.memory.name, format, device >>> 0),
    );
  }

  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number {
    if (!this.memory.putName(name) || !this.memory.putSecond(targetName)) return -ENAMETOOLONG;
    return this.result(
      this.libc.linkat(targetParent.handle, this.memory.second, parent.handle, this.memory.name, 0),
    );
  }

  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number {
    if (!this.memory.putName(newName) || !this.memory.putSecond(name)) return -ENAMETOOLONG;
    return this.result(
      this.libc.renameat(parent.handle, this.memory.second, newParent.handle, this.memory.name),
    );
  }

  remove(parent: Directory, name: ByteName): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    return this.result(this.libc.unlinkat(parent.handle, this.memory.name, 0));
  }

  removeDirectory(parent: Directory, name: ByteName): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    return this.result(this.libc.unlinkat(parent.handle, this.memory.name, AT_REMOVEDIR));
  }

  createFile(parent: Directory, name: ByteName, mode: number): number {
    if (!this.memory.putName(name)) return -ENAMETOOLONG;
    return this.result(this.libc.openat(parent.handle, this.memory.name, openNew, mode));
  }

  write(file: number, bytes: Uint8Array, position: number): number {
    let rest = bytes;
    let at = position;
    for (;;) {
      const written = this.libc.pwrite(file, rest, rest.length, at);
      if (written === rest.length) return 0;
      if (written < 0) {
        const failure = this.libc.errno();
        if (failure !== EINTR && failure !== EAGAIN) return -failure;
      } else {
        rest = rest.subarray(written);
        at += written;
      }
    }
  }

  freeSpace(file: number): number {
    if (this.libc.fstatfs(file, this.memory.structure) !== 0) return Infinity;
    return this.memory.takeFreeSpace();
  }

  truncate(file: number, size: number): number {
    return this.result(this.libc.ftruncate(file, size));
  }

  closeFile(file: number): number {
    return this.result(this.libc.close(file));
  }

  close(): void {
    this.libc.close(this.root.handle);
  }
}
