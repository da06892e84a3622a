import { constants } from 'node:os';
import type { BytePath, InodeType } from '../tar/entry.ts';
import type { ByteName, Directory, FileStat, Filesystem, InodeName, Special } from './filesystem.ts';
import { MemoryInodes, type FileSource } from './memory-inodes.ts';
import { MAX_NAME_BYTES, MAX_TARGET_BYTES } from '../sys/os-path.ts';

const { EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM } =
  constants.errno;

const ROOT_INODE = 1;

/**
 * A file system in memory, about 150 bytes for each file. It keeps all metadata that an image can have. For a
 * content it keeps only the source (`FileSource`). It keeps the bytes only of files that are written to:
 * etc/passwd and etc/group.
 */
export class MemoryFilesystem implements Filesystem {
  readonly root: Directory = { path: '' as BytePath, handle: ROOT_INODE };
  /** Source of the next file and mode of the next symlink: set it before they are made. */
  source: FileSource = { layer: 0, ordinal: 0, size: 0, stored: 0, sparse: false, linkMode: 0o777 };
  readonly inodes = new MemoryInodes();
  /** Names in a directory with their inodes, by the directory's inode. */
  readonly #names = new Map<number, Map<ByteName, number>>();
  /** Contents of files that were written to. */
  readonly #written = new Map<number, Buffer>();

  constructor() {
    this.#names.set(this.inodes.add('directory', 0o755), new Map());
  }

  openDirectory(parent: Directory, name: ByteName): number {
    const inode = this.inodeAt(parent, name);
    if (inode < 0) return inode;
    return this.inodes.type(inode) === 'directory' ? inode : -ENOTDIR;
  }

  closeDirectory(): void {}

  readLink(parent: Directory, name: ByteName): BytePath | number {
    const inode = this.inodeAt(parent, name);
    if (inode < 0) return inode;
    return this.inodes.type(inode) === 'symlink' ? this.inodes.target(inode) : -EINVAL;
  }

  stat(parent: Directory, name: ByteName): FileStat | number {
    const inode = this.inodeAt(parent, name);
    if (inode < 0) return inode;
    return { ...this.inodes.status(inode), ctimeSeconds: 0, ctimeNanoseconds: 0, identity: `0:${inode}` };
  }

  readFile(parent: Directory, name: ByteName): Uint8Array | number {
    const inode = this.inodeAt(parent, name);
    return inode < 0 ? inode : (this.#written.get(inode) ?? -EINVAL);
  }

  /** Returns the content of a file that was written to. */
  written(file: number): Uint8Array | undefined {
    return this.#written.get(file);
  }

  list(directory: Directory): ByteName[] {
    return [...this.#namesIn(directory.handle).keys()];
  }

  makeDirectory(parent: Directory, name: ByteName, mode: number): number {
    return Math.min(this.#make(parent, name, 'directory', mode & 0o1777), 0);
  }

  makeSymlink(parent: Directory, name: ByteName, target: BytePath): number {
    if (target.length > MAX_TARGET_BYTES) return -ENAMETOOLONG;
    const inode = this.#make(parent, name, 'symlink', this.source.linkMode);
    if (inode > 0) this.inodes.setTarget(inode, target);
    return Math.min(inode, 0);
  }

  makeSpecial(parent: Directory, name: ByteName, special: Special, mode: number): number {
    const inode = this.#make(parent, name, special.type, mode);
    if (inode < 0) return inode;
    this.inodes.major.set(inode, special.deviceMajor);
    this.inodes.minor.set(inode, special.deviceMinor);
    return 0;
  }

  makeLink(targetParent: Directory, targetName: ByteName, parent: Directory, name: ByteName): number {
    const inode = this.inodeAt(targetParent, targetName);
    if (inode < 0) return inode;
    const taken = this.#refuse(parent, name);
    if (taken < 0) return taken;
    if (this.inodes.type(inode) === 'directory') return -EPERM;
    this.#name(parent, name, inode);
    this.inodes.links.set(inode, this.inodes.links.get(inode) + 1);
    return 0;
  }

  rename(parent: Directory, name: ByteName, newParent: Directory, newName: ByteName): number {
    const names = this.#namesIn(parent.handle);
    const inode = names.get(name);
    if (inode === undefined) return -ENOENT;
    const taken = this.#refuse(newParent, newName);
    if (taken < 0) return taken;
    this.#name(newParent, newName, inode);
    names.delete(name);
    return 0;
  }

  remove(parent: Directory, name: ByteName): number {
    const inode = this.#namesIn(parent.handle).get(name);
    if (inode === undefined) return -ENOENT;
    if (this.inodes.type(inode) === 'directory') return -EISDIR;
    this.#unlink(parent, name, inode);
    return 0;
  }

  removeDirectory(parent: Directory, name: ByteName): number {
    const inode = this.#namesIn(parent.handle).get(name);
    if (inode === undefined) return -ENOENT;
    if (this.inodes.type(inode) !== 'directory') return -ENOTDIR;
    if (this.#namesIn(inode).size > 0) return -ENOTEMPTY;
    this.#unlink(parent, name, inode);
    this.#names.delete(inode);
    return 0;
  }

  /** Makes a file with the content that `source` names. */
  createFile(parent: Directory, name: ByteName, mode: number): number {
    const inode = this.#make(parent, name, 'file', mode);
    if (inode > 0) this.inodes.setSource(inode, this.source);
    return inode;
  }

  write(file: number, bytes: Uint8Array, position: number): number {
    let content = this.#written.get(file);
    if (content === undefined) {
      content = Buffer.alloc(this.inodes.size.get(file));
      this.#written.set(file, content);
    }
    content.set(bytes, position);
    return 0;
  }

  freeSpace(): number {
    return Infinity;
  }

  truncate(file: number, size: number): number {
    this.inodes.size.set(file, size);
    return 0;
  }

  closeFile(): number {
    return 0;
  }

  setOwner(node: InodeName, uid: number, gid: number): number {
    const inode = this.#inodeOf(node);
    if (inode < 0) return inode;
    this.inodes.uid.set(inode, uid);
    this.inodes.gid.set(inode, gid);
    return 0;
  }

  setMode(node: InodeName, mode: number): number {
    const inode = this.#inodeOf(node);
    if (inode > 0) this.inodes.setMode(inode, mode);
    return Math.min(inode, 0);
  }

  setTimes(node: InodeName, seconds: number, nanoseconds: number): number {
    const inode = this.#inodeOf(node);
    if (inode < 0) return inode;
    this.inodes.mtimeSeconds.set(inode, seconds);
    this.inodes.mtimeNanoseconds.set(inode, nanoseconds);
    return 0;
  }

  /** Sets an attribute: see `MemoryInodes.setXattr`. */
  setXattr(node: InodeName, name: string, value: Uint8Array): number {
    const inode = this.#inodeOf(node);
    if (inode < 0) return inode;
    return this.inodes.setXattr(inode, name, value) ? 0 : -ENOSPC;
  }

  /** Returns 0 for an attribute that exists. */
  xattrSize(node: InodeName, name: string): number {
    const inode = this.#inodeOf(node);
    return inode > 0 && this.inodes.hasXattr(inode, name) ? 0 : -ENODATA;
  }

  readXattrs(node: InodeName): Map<string, Uint8Array> | number {
    const inode = this.#inodeOf(node);
    return inode < 0 ? inode : this.inodes.xattrs(inode);
  }

  removeXattr(node: InodeName, name: string): number {
    const inode = this.#inodeOf(node);
    if (inode < 0) return inode;
    return this.inodes.removeXattr(inode, name) ? 0 : -ENODATA;
  }

  close(): void {}

  /** Returns name and inode of all entries of a directory, sorted by the bytes of the names. */
  inOrder(directory: number): IterableIterator<[name: ByteName, inode: number]> {
    return [...this.#namesIn(directory)].toSorted(([one], [other]) => (one < other ? -1 : 1)).values();
  }

  /** Returns the inode of a name; an errno below zero if it does not exist. */
  inodeAt(parent: Directory, name: ByteName): number {
    if (name === '.') return parent.handle;
    const found = this.#namesIn(parent.handle).get(name);
    if (found !== undefined) return found;
    return name.length > MAX_NAME_BYTES ? -ENAMETOOLONG : -ENOENT;
  }

  #namesIn(directory: number): Map<ByteName, number> {
    return this.#names.get(directory)!;
  }

  #inodeOf({ parent, name, file }: InodeName): number {
    return file >= 0 ? file : this.inodeAt(parent, name);
  }

  /** Returns the errno, below zero, for a name that a new file cannot have; 0 if it can. */
  #refuse(parent: Directory, name: ByteName): number {
    if (name.length > MAX_NAME_BYTES) return -ENAMETOOLONG;
    return this.#namesIn(parent.handle).has(name) ? -EEXIST : 0;
  }

  /** Makes an inode with a name. Returns its number, or an errno below zero if that is not possible. */
  #make(parent: Directory, name: ByteName, type: InodeType, mode: number): number {
    const error = this.#refuse(parent, name);
    if (error < 0) return error;
    const inode = this.inodes.add(type, mode);
    if (type === 'directory') this.#names.set(inode, new Map());
    this.#name(parent, name, inode);
    return inode;
  }

  #name(parent: Directory, name: ByteName, inode: number): void {
    // A part of a string keeps the whole string in memory, so the name is copied.
    this.#namesIn(parent.handle).set(Buffer.from(name, 'latin1').toString('latin1'), inode);
  }

  #unlink(parent: Directory, name: ByteName, inode: number): void {
    this.#namesIn(parent.handle).delete(name);
    const links = this.inodes.links.get(inode) - 1;
    this.inodes.links.set(inode, links);
    if (links > 0) return;
    this.#written.delete(inode);
    this.inodes.remove(inode);
  }
}
