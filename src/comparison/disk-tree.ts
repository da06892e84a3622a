import { existsSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import { geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { Directories, itself, childPath, nameOf, parentPath } from '../rootfs/directories.ts';
import { openFilesystem } from '../rootfs/confined-root.ts';
import type { Directory, DiskFilesystem, FileStat } from '../rootfs/filesystem.ts';
import { capabilityXattr, SET_ID_BITS, systemXattr } from '../rootfs/metadata.ts';
import type { OpenFile } from '../rootfs/image-contents.ts';
import { PortableFilesystem } from '../rootfs/portable.ts';
import { osError, SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { mayDo, ownersToGive } from '../sys/privileges.ts';
import { accessListXattr, defaultAccessListXattr, isPlainList, textKeys } from '../tar/access-list.ts';
import { type BytePath, displayPath, isDevice } from '../tar/entry.ts';
import { ExtentCursor } from '../tar/sparse.ts';
import { type Comparable, type ComparedXattrs, noXattrs, type Rules, type Xattrs } from './differences.ts';
import type { TreeWalk } from './trees.ts';

const { EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR, ENOTSUP, ENXIO } = constants.errno;

/** (uid_t) -1, which chown(2) takes for no change of owner. */
const NOBODY = 0xffff_ffff;
const BILLION = 1_000_000_000;
/** The largest device numbers of makedev(3). */
const MAX_DEVICE = { major: 0xfff, minor: 0xf_ffff } as const;
/**
 * The first and last seconds of file systems, which replace earlier and later times: ext4 with small and
 * large inodes, xfs.
 */
const EARLIEST: ReadonlySet<number> = new Set([-(2 ** 31), 0]);
const LATEST: ReadonlySet<number> = new Set([2 ** 31 - 1, 2 ** 32 - 1, 0x3_7fff_ffff, 16_299_260_424]);

/** The number of bytes that are read at once. */
const READ_BYTES = 256 * 1024;
const ZEROS = Buffer.alloc(READ_BYTES);
/** The bytes read last. All files share this buffer: they are compared before any other code runs. */
const piece = Buffer.allocUnsafeSlow(READ_BYTES);

/** One name in a directory on disk. */
export interface DiskEntry extends Comparable, FileStat {
  /**
   * The names in a directory, sorted by their bytes; undefined if this process may not read it, and for other
   * types.
   */
  readonly names: readonly string[] | undefined;
}

/**
 * Reads a directory tree on disk. It may belong to another user and change during the walk: no symlink is
 * followed, even if it appears during the walk, and only regular files are opened.
 */
export class DiskTree implements Disposable {
  readonly #directory: string;
  readonly #shown: string;
  readonly #filesystem: DiskFilesystem;
  readonly #directories: Directories;

  /**
   * Opens a directory; a symlink to it is followed.
   *
   * @throws DestinationError
   */
  constructor(directory: string) {
    this.#directory = directory;
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

  /**
   * True if it is read by Node's functions: then a pull could not make extended attributes, devices and FIFOs
   * either.
   */
  get isPortable(): boolean {
    return this.#filesystem instanceof PortableFilesystem;
  }

  /** True if the file system can store an extended attribute of this name. */
  keepsXattr(name: string): boolean {
    return this.#filesystem.xattrSize(itself(this.#filesystem.root), name) !== -ENOTSUP;
  }

  /**
   * A path to the directory that stays valid if another takes its name (proc_pid_fd(5)); without /proc its
   * usual path.
   */
  get self(): string {
    const link = `/proc/self/fd/${this.#filesystem.root.handle}`;
    return existsSync(link) ? link : this.#directory;
  }

  /** The status of the directory. */
  get root(): FileStat {
    const stat = this.#filesystem.stat(this.#filesystem.root, '.');
    if (typeof stat === 'number') throw this.#unreadable(stat, '');
    return stat;
  }

  /**
   * Yields all names in the order of an image's tree.
   *
   * @param withRoot the root comes first
   * @throws DestinationError if a part cannot be read, except for lack of permission
   */
  *walk(withRoot: boolean): TreeWalk<DiskEntry> {
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
      const entry = this.#entry(childPath(last.path, next.value));
      if (entry === undefined) continue;
      const descend = yield entry;
      if (descend !== false && entry.names !== undefined)
        way.push({ path: entry.path, names: entry.names.values() });
    }
  }

  /**
   * Returns the content of a regular file at the root; undefined if it is missing, may not be read, or has
   * more than `most` bytes.
   */
  readSmall(name: string, most: number): Uint8Array | undefined {
    const bytes = this.#filesystem.readFile(this.#filesystem.root, name, most);
    return typeof bytes === 'number' ? undefined : bytes;
  }

  /**
   * Opens a file for a comparison.
   *
   * @returns undefined if it was removed or replaced by another type; `denied` if this process may not read
   * it
   */
  open(path: BytePath): DiskFile | 'denied' | undefined {
    const parent = this.#parentOf(path);
    const file = parent ? this.#filesystem.openFile(parent, nameOf(path)) : -ENOENT;
    if (file === -EACCES) return 'denied';
    if (isGone(file) || file === -EINVAL) return undefined;
    if (file < 0) throw this.#unreadable(file, path);
    return new DiskFile(this.#filesystem, file);
  }

  /** Reads an entry; undefined if it no longer exists. */
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

  /** Lists a directory; undefined if this process may not read it, or not look up names in it. */
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
    // One character per byte: the order of the bytes.
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

/** An open regular file for a comparison with its expected content. */
export class DiskFile {
  readonly #filesystem: DiskFilesystem;
  readonly #file: number;

  /** @param file a descriptor, which `close` closes */
  constructor(filesystem: DiskFilesystem, file: number) {
    this.#filesystem = filesystem;
    this.#file = file;
  }

  /**
   * Returns true if the file has these bytes at a position.
   *
   * @throws the system's error
   */
  has(bytes: Uint8Array, position: number): boolean {
    for (let done = 0; done < bytes.length;) {
      const count = this.#read(Math.min(bytes.length - done, READ_BYTES), position + done);
      if (count === 0 || piece.compare(bytes, done, done + count, 0, count) !== 0) return false;
      done += count;
    }
    return true;
  }

  /** Returns true if the file has zeros from `start` to `end`. Holes take no time. */
  hasZeros(start: number, end: number): boolean {
    for (let at = start; at < end;) {
      const data = this.#filesystem.nextData(this.#file, at);
      if (data === -ENXIO || data >= end) return true;
      if (data < 0) throw new SyscallError(data, 'read');
      const count = this.#read(Math.min(end - data, READ_BYTES), data);
      if (count === 0 || piece.compare(ZEROS, 0, count, 0, count) !== 0) return false;
      at = data + count;
    }
    return true;
  }

  close(): void {
    this.#filesystem.closeFile(this.#file);
  }

  /** Returns the number of bytes read; 0 at the end of the file. */
  #read(most: number, position: number): number {
    return readSync(this.#file, piece, 0, most, position);
  }
}

/**
 * Reads the content of a file of an image once, and returns the `files` with the same content.
 *
 * @param size of the content, and of all files
 */
export async function filesWith(
  { extents, pieces }: OpenFile,
  size: number,
  files: readonly DiskFile[],
): Promise<ReadonlySet<DiskFile>> {
  const same = new Set(files);
  const keep = (test: (file: DiskFile) => boolean): void => {
    for (const file of same) if (!test(file)) same.delete(file);
  };
  const cursor = new ExtentCursor(extents);
  let end = 0;
  for await (const bytes of pieces) {
    for (const { position, part } of cursor.split(bytes)) {
      const hole = end;
      keep((file) => file.hasZeros(hole, position) && file.has(part, position));
      end = position + part.length;
    }
  }
  keep((file) => file.hasZeros(end, size));
  return same;
}

const noComparedXattrs: ComparedXattrs = { needed: noXattrs, allowed: noXattrs, found: noXattrs };

/**
 * Rules for a directory. They ignore what this process cannot give to files there, and what the file system
 * cannot store.
 */
export class DiskRules implements Rules {
  readonly #mayGiveTo = ownersToGive();
  readonly #mayMakeDevices = mayDo('mknod');
  readonly #mayAdminister = mayDo('sysAdmin');
  readonly #maySetCapabilities = mayDo('setfcap');
  readonly #isPortable: boolean;
  /** Prefixes of the attribute names that the file system can store. */
  readonly #kept: readonly string[];
  /** Possible owners of files that could not be given their own. */
  readonly #owners: ReadonlySet<number>;
  /** The precision of the file system's times in nanoseconds: the finest one seen. */
  #precision: number;

  constructor(disk: DiskTree) {
    const { root, isPortable } = disk;
    const namespaces = ['user.', 'trusted.', 'security.'].filter((each) =>
      disk.keepsXattr(`${each}dlrootfs`),
    );
    this.#kept = [
      ...namespaces,
      ...[accessListXattr, defaultAccessListXattr].filter((each) => disk.keepsXattr(each)),
    ];
    this.#owners = new Set([geteuid?.() ?? root.uid, root.uid]);
    this.#isPortable = isPortable;
    this.#precision = precisionOf(root.ctimeNanoseconds);
  }

  /** Returns true if a path may be missing. */
  readonly mayLack = ({ type, deviceMajor, deviceMinor }: Comparable): boolean => {
    if (type === 'fifo') return this.#isPortable;
    if (!isDevice(type)) return false;
    const isPossible = deviceMajor <= MAX_DEVICE.major && deviceMinor <= MAX_DEVICE.minor;
    return this.#isPortable || !isPossible || !this.#mayMakeDevices;
  };

  hasMode(expected: Comparable, found: Comparable): boolean {
    if (found.mode === expected.mode) return true;
    // Without its access list a file has the mode in its archive entry, which is not known here.
    if (expected.xattrs?.has(accessListXattr) === true && !this.#kept.includes(accessListXattr)) return true;
    const isOther = found.uid !== expected.uid || found.gid !== expected.gid;
    return isOther && this.hasOwner(expected, found) && found.mode === (expected.mode & ~SET_ID_BITS);
  }

  hasOwner(expected: Comparable, found: Comparable): boolean {
    if (isId(expected.uid, found.uid) && isId(expected.gid, found.gid)) return true;
    return !this.#mayGiveTo(expected.uid, expected.gid) && this.#owners.has(found.uid);
  }

  hasTime(expected: Comparable, found: Comparable): boolean {
    this.#precision = Math.min(this.#precision, precisionOf(found.mtimeNanoseconds));
    const [wanted, there] = [expected.mtimeSeconds, found.mtimeSeconds];
    if (wanted !== there) return (wanted < there ? EARLIEST : LATEST).has(there);
    const { mtimeNanoseconds } = expected;
    if (mtimeNanoseconds === found.mtimeNanoseconds) return true;
    // Node sets times in microseconds.
    const precision = this.#isPortable ? Math.max(this.#precision, 1000) : this.#precision;
    return found.mtimeNanoseconds === mtimeNanoseconds - (mtimeNanoseconds % precision);
  }

  xattrs(expected: Comparable, found: Comparable): ComparedXattrs {
    if (!expected.xattrs && !found.xattrs) return noComparedXattrs;
    const there = new Map([...(found.xattrs ?? noXattrs)].filter(([name]) => !systemXattr.test(name)));
    const allowed = [...(expected.xattrs ?? noXattrs)].filter(
      ([name, value]) => !systemXattr.test(name) && !textKeys.has(name) && !isNoList(name, value),
    );
    const needed: Xattrs = new Map(allowed.filter(([name]) => this.#mayGive(name, expected, found)));
    return { needed, allowed: new Map(allowed), found: there };
  }

  /** True if this process can give a file the attribute, and can see it: xattr(7). */
  #mayGive(name: string, { type }: Comparable, { mode }: Comparable): boolean {
    if (!this.#kept.some((start) => name.startsWith(start))) return false;
    const hasContent = type === 'file' || type === 'directory';
    if (name.startsWith('user.')) return hasContent && (this.#mayAdminister || (mode & 0o400) !== 0);
    if (name === capabilityXattr) return type === 'file' && this.#maySetCapabilities;
    if (name.startsWith('trusted.') || name.startsWith('security.')) return this.#mayAdminister;
    return name === accessListXattr
      ? type !== 'symlink'
      : name === defaultAccessListXattr && type === 'directory';
  }
}

function isId(wanted: number, found: number): boolean {
  return wanted === found || wanted === NOBODY;
}

/** True for a list that only repeats the mode, which the kernel does not store. */
function isNoList(name: string, value: Uint8Array): boolean {
  return name === accessListXattr && isPlainList(value);
}

/** Returns the coarsest precision of known file systems in which this time is possible. */
function precisionOf(nanoseconds: number): number {
  return [BILLION, 10_000_000, 1_000_000, 1000, 100].find((each) => nanoseconds % each === 0) ?? 1;
}
