import { constants } from 'node:fs';
import { arch, constants as osConstants } from 'node:os';
import type { BytePath, EntryType } from '../tar/entry.ts';
import type { ByteName, Directory, FileStat, Filesystem, Node } from './filesystem.ts';
import type { Libc } from './libc.ts';

const { EAGAIN, EINTR, ENAMETOOLONG, ENOSYS, EPERM, EWOULDBLOCK } = osConstants.errno;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

const O_CLOEXEC = 0o2_000_000;
const O_PATH = 0o10_000_000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const AT_REMOVEDIR = 0x200;
const STATX_BASIC_STATS = 0x7ff;
const LOCK_EX_NB = 2 | 4;

/** Numbers of the calls that not every libc has a function for. */
const calls =
  arch() === 'arm64'
    ? { mknodat: 33, getdents64: 61, fchmodat2: 452 }
    : { mknodat: 259, getdents64: 217, fchmodat2: 452 };

const openNew = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
const openPath = O_PATH | O_NOFOLLOW | O_CLOEXEC;

const types: Readonly<Record<number, FileStat['type']>> = {
  0o010000: 'fifo',
  0o020000: 'character',
  0o040000: 'directory',
  0o060000: 'block',
  0o100000: 'file',
  0o120000: 'symlink',
};
const formats: Readonly<Partial<Record<EntryType, number>>> = {
  fifo: 0o010000,
  character: 0o020000,
  block: 0o060000,
};

/** Where names and structures lie that a call is given by address. */
const layout = { name: 0, second: 8192, structure: 16_384, list: 24_576, size: 57_344 } as const;
const longestName = 8191;

/**
 * The file system by libc's calls. Each directory is opened from its parent's descriptor, no symlink is ever followed by the kernel,
 * and no path is longer than one name: so there is nothing a name could climb out with, and no limit of PATH_MAX.
 */
export class LinuxFilesystem implements Filesystem {
  readonly root: Directory;
  readonly #libc: Libc;
  readonly #memory: Buffer;
  readonly #view: DataView;
  readonly #name: number;
  readonly #second: number;
  readonly #structure: number;
  #knowsFchmodat2 = true;

  /** `root` is an open descriptor of the root directory, from then on this object's to close. */
  private constructor(libc: Libc, memory: Buffer, root: number) {
    this.#libc = libc;
    this.#memory = memory;
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.length);
    const address = libc.address(memory);
    this.#name = address + layout.name;
    this.#second = address + layout.second;
    this.#structure = address + layout.structure;
    this.root = { path: '' as BytePath, handle: root };
  }

  /** Opens the directory at `path`, following symlinks to it. Answers an errno below zero where it cannot. */
  static open(libc: Libc, path: Uint8Array): LinuxFilesystem | number {
    const memory = Buffer.alloc(layout.size);
    if (path.length > longestName) return -ENAMETOOLONG;
    memory.set(path);
    const root = libc.open(libc.address(memory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return -libc.errno();
    return new LinuxFilesystem(libc, memory, root);
  }

  /** Takes the root for this process until it ends, however it ends: false when another has it. True where the file system knows no locks. */
  lock(): boolean {
    return this.#libc.flock(this.root.handle, LOCK_EX_NB) === 0 || this.#libc.errno() !== EWOULDBLOCK;
  }

  openDirectory(parent: Directory, name: ByteName): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.openat(parent.handle, this.#name, openPath | O_DIRECTORY, 0));
  }

  closeDirectory(directory: Directory): void {
    this.#libc.close(directory.handle);
  }

  readLink(parent: Directory, name: ByteName): BytePath | number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    const length = this.#libc.readlinkat(parent.handle, this.#name, this.#second, longestName);
    if (length < 0) return -this.#libc.errno();
    return this.#memory.toString('latin1', layout.second, layout.second + length) as BytePath;
  }

  stat(parent: Directory, name: ByteName): FileStat | number {
    const itself = name === '.';
    if (!this.#putName(itself ? '' : name)) return -ENAMETOOLONG;
    const flags = itself ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
    const { handle } = parent;
    if (this.#libc.statx(handle, this.#name, flags, STATX_BASIC_STATS, this.#structure) !== 0) {
      return -this.#libc.errno();
    }
    // struct statx is the same everywhere: statx(2).
    const at = layout.structure;
    const view = this.#view;
    const mode = view.getUint16(at + 28, true);
    return {
      type: types[mode & 0o170000] ?? 'other',
      mode: mode & 0o7777,
      uid: view.getUint32(at + 20, true),
      gid: view.getUint32(at + 24, true),
      size: Number(view.getBigInt64(at + 40, true)),
      mtimeSeconds: Number(view.getBigInt64(at + 112, true)),
      mtimeNanoseconds: view.getUint32(at + 120, true),
      identity: `${deviceNumber(view.getUint32(at + 136, true), view.getUint32(at + 140, true))}:${view.getBigUint64(at + 32, true)}`,
    };
  }

  list(directory: Directory): ByteName[] | number {
    this.#putName('.');
    const file = this.#libc.openat(
      directory.handle,
      this.#name,
      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
      0,
    );
    if (file < 0) return -this.#libc.errno();
    const names: ByteName[] = [];
    const address = this.#name + layout.list;
    for (;;) {
      const length = this.#libc.syscall(calls.getdents64, file, address, layout.size - layout.list, 0);
      if (length <= 0) {
        const failure = length < 0 ? -this.#libc.errno() : 0;
        this.#libc.close(file);
        return failure < 0 ? failure : names;
      }
      this.#readNames(length, names);
    }
  }

  makeDirectory(parent: Directory, name: ByteName, mode: number): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.mkdirat(parent.handle, this.#name, mode));
  }

  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number {
    if (!this.#putName(name) || !this.#putSecond(target)) return -ENAMETOOLONG;
    return this.#result(this.#libc.symlinkat(this.#second, parent.handle, this.#name));
  }

  makeSpecial(
    parent: Directory,
    name: ByteName,
    type: 'character' | 'block' | 'fifo',
    mode: number,
    major: number,
    minor: number,
  ): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    if (major > 0xfff || minor > 0xfffff) return -EPERM;
    const device = (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
    const format = formats[type]! | mode;
    return this.#result(this.#libc.syscall(calls.mknodat, parent.handle, this.#name, format, device >>> 0));
  }

  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number {
    if (!this.#putName(name) || !this.#putSecond(targetName)) return -ENAMETOOLONG;
    return this.#result(this.#libc.linkat(targetParent.handle, this.#second, parent.handle, this.#name, 0));
  }

  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number {
    if (!this.#putName(newName) || !this.#putSecond(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.renameat(parent.handle, this.#second, newParent.handle, this.#name));
  }

  remove(parent: Directory, name: ByteName): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.unlinkat(parent.handle, this.#name, 0));
  }

  removeDirectory(parent: Directory, name: ByteName): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.unlinkat(parent.handle, this.#name, AT_REMOVEDIR));
  }

  createFile(parent: Directory, name: ByteName, mode: number): number {
    if (!this.#putName(name)) return -ENAMETOOLONG;
    return this.#result(this.#libc.openat(parent.handle, this.#name, openNew, mode));
  }

  write(file: number, bytes: Uint8Array, position: number): number {
    let rest = bytes;
    let at = position;
    for (;;) {
      const written = this.#libc.pwrite(file, rest, rest.length, at);
      if (written === rest.length) return 0;
      if (written < 0) {
        const failure = this.#libc.errno();
        if (failure !== EINTR && failure !== EAGAIN) return -failure;
      } else {
        rest = rest.subarray(written);
        at += written;
      }
    }
  }

  reserve(file: number, size: number): number {
    return this.#result(this.#libc.fallocate(file, 0, 0, size));
  }

  freeSpace(file: number): number {
    if (this.#libc.fstatfs(file, this.#structure) !== 0) return Infinity;
    const view = this.#view;
    const blockSize = Number(view.getBigInt64(layout.structure + 8, true));
    return Number(view.getBigUint64(layout.structure + 32, true)) * blockSize;
  }

  truncate(file: number, size: number): number {
    return this.#result(this.#libc.ftruncate(file, size));
  }

  closeFile(file: number): number {
    return this.#result(this.#libc.close(file));
  }

  setOwner(node: Node, uid: number, gid: number): number {
    if (node.file >= 0) return this.#result(this.#libc.fchown(node.file, uid, gid));
    this.#putName(node.name);
    return this.#result(this.#libc.fchownat(node.parent.handle, this.#name, uid, gid, AT_SYMLINK_NOFOLLOW));
  }

  setMode(node: Node, mode: number): number {
    if (node.file >= 0) return this.#result(this.#libc.fchmod(node.file, mode));
    if (node.name === '.') return this.#setModeByHandle(node.parent.handle, mode);
    if (this.#knowsFchmodat2) {
      this.#putName(node.name);
      const { handle } = node.parent;
      const result = this.#result(
        this.#libc.syscall(calls.fchmodat2, handle, this.#name, mode, AT_SYMLINK_NOFOLLOW),
      );
      // A seccomp filter that does not know the call answers EPERM.
      if (result !== -ENOSYS && result !== -EPERM) return result;
      if (result === -ENOSYS) this.#knowsFchmodat2 = false;
    }
    this.#putName(node.name);
    const file = this.#libc.openat(node.parent.handle, this.#name, openPath, 0);
    if (file < 0) return -this.#libc.errno();
    const result = this.#setModeByHandle(file, mode);
    this.#libc.close(file);
    return result;
  }

  /** The way for a descriptor that was opened with O_PATH, which fchmod(2) does not take. */
  #setModeByHandle(handle: number, mode: number): number {
    this.#putName(`/proc/self/fd/${handle}`);
    return this.#result(this.#libc.chmod(this.#name, mode));
  }

  setTimes(node: Node, seconds: number, nanoseconds: number): number {
    const view = this.#view;
    for (let at: number = layout.structure; at < layout.structure + 32; at += 16) {
      view.setUint32(at, seconds >>> 0, true);
      view.setInt32(at + 4, Math.floor(seconds / 0x1_0000_0000), true);
      view.setUint32(at + 8, nanoseconds, true);
      view.setUint32(at + 12, 0, true);
    }
    if (node.file >= 0) return this.#result(this.#libc.futimens(node.file, this.#structure));
    this.#putName(node.name);
    return this.#result(
      this.#libc.utimensat(node.parent.handle, this.#name, this.#structure, AT_SYMLINK_NOFOLLOW),
    );
  }

  setXattr(node: Node, name: string, value: Uint8Array): number {
    if (!this.#putSecond(name)) return -ENAMETOOLONG;
    if (node.file >= 0) {
      return this.#result(this.#libc.fsetxattr(node.file, this.#second, value, value.length, 0));
    }
    this.#putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    return this.#result(this.#libc.lsetxattr(this.#name, this.#second, value, value.length, 0));
  }

  removeXattr(node: Node, name: string): number {
    if (!this.#putSecond(name)) return -ENAMETOOLONG;
    if (node.file >= 0) return this.#result(this.#libc.fremovexattr(node.file, this.#second));
    this.#putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    return this.#result(this.#libc.lremovexattr(this.#name, this.#second));
  }

  close(): void {
    this.#libc.close(this.root.handle);
  }

  /** struct linux_dirent64: inode, offset, length of the record at 16, type at 18, name from 19. */
  #readNames(length: number, names: ByteName[]): void {
    const end = layout.list + length;
    for (let at: number = layout.list; at < end; at += this.#view.getUint16(at + 16, true)) {
      const start = at + 19;
      const name = this.#memory.toString('latin1', start, this.#memory.indexOf(0, start));
      if (name !== '.' && name !== '..') names.push(name);
    }
  }

  #putName(name: string): boolean {
    if (name.length > longestName) return false;
    this.#memory[this.#memory.write(name, layout.name, 'latin1')] = 0;
    return true;
  }

  #putSecond(name: string): boolean {
    if (name.length > longestName) return false;
    this.#memory[layout.second + this.#memory.write(name, layout.second, 'latin1')] = 0;
    return true;
  }

  #result(answer: number): number {
    return answer < 0 ? -this.#libc.errno() : answer;
  }
}

/** The number that stat(2) has for a device: makedev(3). */
function deviceNumber(major: number, minor: number): bigint {
  const low = (minor & 0xff) | ((major & 0xfff) << 8);
  return BigInt(low) | (BigInt(minor & 0xffff_ff00) << 12n) | (BigInt(major & 0xffff_f000) << 32n);
}
