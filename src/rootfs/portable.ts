import * as fs from 'node:fs';
import { platform, constants as osConstants } from 'node:os';
import { O_PATH } from '../sys/os-path.ts';
import type { BytePath } from '../tar/entry.ts';
import { childPath } from './directories.ts';
import {
  compressesFiles,
  type ByteName,
  type Directory,
  type FileStat,
  type DiskFilesystem,
  type InodeName,
  readRegularFile,
  typeOfMode,
} from './filesystem.ts';

const { EINVAL, ENODATA, ENOTDIR, ENOTSUP, EPERM } = osConstants.errno;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = fs.constants;
/** Linux's flag for a descriptor that only refers to a directory, which needs no permission to read. */
const PATH_ONLY = platform() === 'linux' ? O_PATH : 0;

const BILLION = 1_000_000_000n;
const OPEN_NEW = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW;
/** The earliest time in milliseconds that a Date can have. */
const EARLIEST_DATE = -8.64e15;
const OPEN_READ = O_RDONLY | O_NONBLOCK | O_NOFOLLOW;

/**
 * The file system by Node's calls, for macOS and where system calls cannot be made. It has no extended
 * attributes, devices and FIFOs.
 *
 * On Linux a directory is opened from its parent and named by its descriptor in /proc. So a symlink that
 * another process puts in its place is not followed. On other systems paths are used, after a check of each
 * directory: no entry can leave the root.
 */
export class PortableFilesystem implements DiskFilesystem {
  readonly root: Directory;
  /** Path of the root, through its descriptor if the system has links to descriptors. */
  readonly #rootPath: Buffer;
  /**
   * The directory of links to descriptors; undefined: directories are named by `#rootPath` and their path.
   */
  readonly #descriptors: string | undefined;

  private constructor(rootPath: Buffer, handle: number, descriptors: string | undefined) {
    this.#rootPath = rootPath;
    this.root = { path: '' as BytePath, handle };
    this.#descriptors = descriptors;
  }

  /**
   * Opens the directory at `path`, following symlinks to it. Returns an errno below zero where it cannot.
   *
   * @param links the system's directory of links to descriptors, if it has one
   */
  static open(path: Uint8Array, links = '/proc/self/fd'): PortableFilesystem | number {
    return valueOrErrno(() => {
      const handle = fs.openSync(Buffer.from(path), PATH_ONLY | O_RDONLY | O_DIRECTORY);
      const link = `${links}/${handle}`;
      if (fs.existsSync(link)) return new PortableFilesystem(Buffer.from(link), handle, links);
      const rootPath = fs.realpathSync.native(Buffer.from(path), { encoding: 'buffer' });
      return new PortableFilesystem(rootPath, handle, undefined);
    });
  }

  /** Always true: Node has no locks. */
  lock(): boolean {
    return true;
  }

  openDirectory(parent: Directory, name: ByteName): number {
    if (this.#descriptors !== undefined) {
      const flags = PATH_ONLY | O_DIRECTORY | O_NOFOLLOW;
      return valueOrErrno(() => fs.openSync(this.#path(parent, name), flags));
    }
    const stat = this.stat(parent, name);
    if (typeof stat === 'number') return stat;
    return stat.type === 'directory' ? 0 : -ENOTDIR;
  }

  closeDirectory(directory: Directory): void {
    if (this.#descriptors !== undefined) fs.closeSync(directory.handle);
  }

  readLink(parent: Directory, name: ByteName): BytePath | number {
    const target = valueOrErrno(() => fs.readlinkSync(this.#path(parent, name), { encoding: 'buffer' }));
    return typeof target === 'number' ? target : (target.toString('latin1') as BytePath);
  }

  stat(parent: Directory, name: ByteName): FileStat | number {
    return valueOrErrno(() => fileStat(fs.lstatSync(this.#path(parent, name), { bigint: true })));
  }

  readFile(parent: Directory, name: ByteName, most: number): Uint8Array | number {
    return readRegularFile(this, parent, name, most);
  }

  openFile(parent: Directory, name: ByteName): number {
    const stat = this.stat(parent, name);
    if (typeof stat === 'number') return stat;
    if (stat.type !== 'file') return -EINVAL;
    const file = valueOrErrno(() => fs.openSync(this.#path(parent, name), OPEN_READ));
    // Another process may have replaced the file since `stat`.
    if (file < 0 || valueOrErrno(() => Number(fs.fstatSync(file).isFile())) === 1) return file;
    fs.closeSync(file);
    return -EINVAL;
  }

  /** Returns `position`: Node has no SEEK_DATA. */
  nextData(_file: number, position: number): number {
    return position;
  }

  list(directory: Directory): ByteName[] | number {
    const names = valueOrErrno(() => fs.readdirSync(this.#path(directory, '.'), { encoding: 'buffer' }));
    return typeof names === 'number' ? names : names.map((name) => name.toString('latin1'));
  }

  makeDirectory(parent: Directory, name: ByteName, mode: number): number {
    return valueOrErrno(() => fs.mkdirSync(this.#path(parent, name), { mode }));
  }

  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number {
    return valueOrErrno(() => fs.symlinkSync(Buffer.from(target, 'latin1'), this.#path(parent, name)));
  }

  makeSpecial(parent: Directory, name: ByteName): number {
    // EEXIST comes before EPERM, as with mknod(2).
    const stat = this.stat(parent, name);
    return typeof stat === 'number' ? -EPERM : -osConstants.errno.EEXIST;
  }

  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number {
    if (platform() === 'darwin') {
      // link(2) of macOS follows a symlink: make a second symlink instead of a hard link.
      const target = this.readLink(targetParent, targetName);
      if (typeof target === 'string') return this.makeSymlink(parent, name, target);
    }
    return valueOrErrno(() => fs.linkSync(this.#path(targetParent, targetName), this.#path(parent, name)));
  }

  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number {
    return valueOrErrno(() => fs.renameSync(this.#path(parent, name), this.#path(newParent, newName)));
  }

  remove(parent: Directory, name: ByteName): number {
    return valueOrErrno(() => fs.unlinkSync(this.#path(parent, name)));
  }

  removeDirectory(parent: Directory, name: ByteName): number {
    return valueOrErrno(() => fs.rmdirSync(this.#path(parent, name)));
  }

  createFile(parent: Directory, name: ByteName, mode: number): number {
    return valueOrErrno(() => fs.openSync(this.#path(parent, name), OPEN_NEW, mode));
  }

  write(file: number, bytes: Uint8Array, position: number): number {
    return valueOrErrno(() => {
      for (let done = 0; done < bytes.length;) {
        done += fs.writeSync(file, bytes, done, bytes.length - done, position + done);
      }
    });
  }

  freeSpace(): number {
    try {
      const { type, bfree, bsize } = fs.statfsSync(this.#rootPath);
      return compressesFiles(type) ? Infinity : bfree * bsize;
    } catch {
      return Infinity;
    }
  }

  truncate(file: number, size: number): number {
    return valueOrErrno(() => fs.ftruncateSync(file, size));
  }

  closeFile(file: number): number {
    return valueOrErrno(() => fs.closeSync(file));
  }

  setOwner(node: InodeName, uid: number, gid: number): number {
    return valueOrErrno(() =>
      node.file >= 0
        ? fs.fchownSync(node.file, uid, gid)
        : fs.lchownSync(this.#path(node.parent, node.name), uid, gid),
    );
  }

  setMode(node: InodeName, mode: number): number {
    if (node.file >= 0) return valueOrErrno(() => fs.fchmodSync(node.file, mode));
    const path = this.#path(node.parent, node.name);
    return valueOrErrno(() => {
      // chmod(2) follows symlinks. Only directories come here: other files are open when they are made.
      if (!fs.lstatSync(path).isDirectory()) throw Object.assign(new Error(), { errno: -ENOTDIR });
      fs.chmodSync(path, mode);
    });
  }

  setTimes(node: InodeName, seconds: number, nanoseconds: number): number {
    // Node takes a negative number for "now", but not a negative Date.
    const time =
      seconds < 0
        ? new Date(Math.max(seconds * 1000 + nanoseconds / 1e6, EARLIEST_DATE))
        : seconds + (nanoseconds && nanoseconds + 0.5) / 1e9;
    const path = this.#path(node.parent, node.name);
    const set = valueOrErrno(() =>
      node.file >= 0 ? fs.futimesSync(node.file, time, time) : fs.lutimesSync(path, time, time),
    );
    if (set < 0 || nanoseconds === 0) return set;
    const stat = valueOrErrno(() =>
      node.file >= 0 ? fs.fstatSync(node.file, { bigint: true }) : fs.lstatSync(path, { bigint: true }),
    );
    return typeof stat !== 'number' && fileStat(stat).mtimeNanoseconds === nanoseconds ? 0 : 1;
  }

  setXattr(): number {
    return -ENOTSUP;
  }

  xattrSize(): number {
    return -ENOTSUP;
  }

  readXattrs(): number {
    return -ENOTSUP;
  }

  removeXattr(): number {
    return -ENODATA;
  }

  close(): void {
    fs.closeSync(this.root.handle);
  }

  #path(parent: Directory, name: ByteName): Buffer {
    if (this.#descriptors !== undefined) {
      return Buffer.from(`${this.#descriptors}/${parent.handle}/${name}`, 'latin1');
    }
    const below = name === '.' ? parent.path : childPath(parent.path, name);
    return Buffer.concat([this.#rootPath, Buffer.from(`/${below}`, 'latin1')]);
  }
}

/** Returns the result of `call`, 0 if it has none, or the negated errno if it throws. */
function valueOrErrno<T>(call: () => T): Exclude<T, void> | number {
  try {
    return (call() ?? 0) as Exclude<T, void> | number;
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (typeof errno !== 'number' || errno >= 0) throw error;
    return errno;
  }
}

/** Converts Node's stat to a FileStat. */
function fileStat(stat: fs.BigIntStats): FileStat {
  const [mtimeSeconds, mtimeNanoseconds] = timeOf(stat.mtimeNs);
  const [ctimeSeconds, ctimeNanoseconds] = timeOf(stat.ctimeNs);
  return {
    type: typeOfMode(Number(stat.mode)),
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    mtimeSeconds,
    mtimeNanoseconds,
    ctimeSeconds,
    ctimeNanoseconds,
    links: Number(stat.nlink),
    deviceMajor: Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & 0xffff_f000n)),
    deviceMinor: Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xffff_ff00n)),
    identity: `${stat.dev}:${stat.ino}`,
  };
}

/** Returns seconds and the nanoseconds after them, also before 1970. */
function timeOf(time: bigint): [seconds: number, nanoseconds: number] {
  const nanoseconds = ((time % BILLION) + BILLION) % BILLION;
  return [Number((time - nanoseconds) / BILLION), Number(nanoseconds)];
}
