import { modeWithList, accessList, textKeys } from '../tar/access-list.ts';
import type { BytePath, EntryType } from '../tar/entry.ts';
import { ByteStrings, Records, packXattrs, unpackXattrs, type Spool } from './memory-tables.ts';

/**
 * In bytes: to extended attributes of a file that take more, hard links cannot add others, which would cost time for all of them. What
 * one entry says is kept whole; ext4 takes 4 KiB, xfs names of 64 KiB.
 */
const MOST_XATTR_BYTES = 64 * 1024;

/** Words of an inode's record; the names in capitals are doubles and take two. */
const INODE_WORDS = 14;
const MTIME = 0;
const SIZE = 1;
const STORED = 2;
const POSITION = 3;
const word = {
  /** Of a file, until its content is in the spool (`POSITION`): where the layers have it. */
  layer: 6,
  ordinal: 7,
  /** Of a symlink. */
  target: 6,
  /** Of a device. */
  major: 6,
  minor: 7,
  /** Of a directory. */
  firstName: 6,
  mtimeNanoseconds: 8,
  uid: 9,
  gid: 10,
  /** Twelve bits of mode, then four of type, then the flags. */
  mode: 11,
  links: 12,
  xattrs: 13,
} as const;
const SPARSE = 0x1_0000;
const SPOOLED = 0x2_0000;
const types: readonly InodeType[] = ['file', 'directory', 'symlink', 'character', 'block', 'fifo'];

export type InodeType = Exclude<EntryType, 'hardlink'>;

/** What the next new file holds: the data of one entry of one layer. */
export interface FileSource {
  /** From 0. */
  readonly layer: number;
  readonly ordinal: number;
  /** Bytes of the file, and those that the layer stores of it. */
  readonly size: number;
  readonly stored: number;
  readonly sparse: boolean;
  /** Of a symlink: what its entry says. On disk it has none, and no call sets it. */
  readonly linkMode: number;
}

/** Where the bytes of a file are. */
export type FileContent =
  | ({ readonly spooled: false } & Omit<FileSource, 'linkMode'>)
  | { readonly spooled: true; readonly position: number; readonly stored: number; readonly sparse: boolean };

export interface InodeStatus {
  readonly type: InodeType;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  /** How many names it has. */
  readonly links: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** All that stat(2), readlink(2) and getxattr(2) return for an inode. */
export interface InodeMetadata extends InodeStatus {
  /** Target of a symlink, else empty. */
  readonly linkPath: BytePath;
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** The inodes of a file system in memory, numbered from 1. */
export class Inodes {
  readonly #records = new Records(INODE_WORDS);
  readonly #strings = new ByteStrings();
  /** The inode whose attributes were changed last, 0: none. They are its and not those in its record. */
  #opened = 0;
  #openXattrs = new Map<string, Uint8Array>();

  /** From now on long targets and attributes go there. */
  set spool(spool: Spool) {
    this.#strings.spool = spool;
  }

  /** A new one with one name. */
  add(type: InodeType, mode: number): number {
    const inode = this.#records.allocate();
    this.#records.set(inode, word.mode, mode | (types.indexOf(type) << 12));
    this.#records.set(inode, word.links, 1);
    return inode;
  }

  remove(inode: number): void {
    if (inode === this.#opened) this.#opened = 0;
    this.#records.free(inode);
  }

  /** How many names it has. */
  links(inode: number): number {
    return this.#records.get(inode, word.links);
  }

  setLinks(inode: number, links: number): void {
    this.#records.set(inode, word.links, links);
  }

  /** Where a directory's list of names begins. */
  firstName(directory: number): number {
    return this.#records.get(directory, word.firstName);
  }

  setFirstName(directory: number, first: number): void {
    this.#records.set(directory, word.firstName, first);
  }

  type(inode: number): InodeType {
    return types[(this.#records.get(inode, word.mode) >>> 12) & 0xf]!;
  }

  mode(inode: number): number {
    return this.#records.get(inode, word.mode) & 0o7777;
  }

  setMode(inode: number, mode: number): void {
    this.#records.set(inode, word.mode, (this.#records.get(inode, word.mode) & ~0o7777) | (mode & 0o7777));
  }

  setOwner(inode: number, uid: number, gid: number): void {
    this.#records.set(inode, word.uid, uid);
    this.#records.set(inode, word.gid, gid);
  }

  setTimes(inode: number, seconds: number, nanoseconds: number): void {
    this.#records.setDouble(inode, MTIME, seconds);
    this.#records.set(inode, word.mtimeNanoseconds, nanoseconds);
  }

  target(inode: number): BytePath {
    return this.#strings.get(this.#records.get(inode, word.target)).toString('latin1') as BytePath;
  }

  setTarget(inode: number, target: BytePath): void {
    this.#records.set(inode, word.target, this.#strings.add(Buffer.from(target, 'latin1')));
  }

  setDevice(inode: number, major: number, minor: number): void {
    this.#records.set(inode, word.major, major);
    this.#records.set(inode, word.minor, minor);
  }

  size(inode: number): number {
    return this.#records.getDouble(inode, SIZE);
  }

  setSize(inode: number, size: number): void {
    this.#records.setDouble(inode, SIZE, size);
  }

  setSource(inode: number, { layer, ordinal, size, stored, sparse }: FileSource): void {
    const records = this.#records;
    records.set(inode, word.layer, layer);
    records.set(inode, word.ordinal, ordinal);
    records.setDouble(inode, SIZE, size);
    records.setDouble(inode, STORED, stored);
    if (sparse) records.set(inode, word.mode, records.get(inode, word.mode) | SPARSE);
  }

  /** Where the bytes of a file are; undefined for anything else. */
  content(inode: number): FileContent | undefined {
    if (this.type(inode) !== 'file') return undefined;
    const records = this.#records;
    const stored = records.getDouble(inode, STORED);
    const flags = records.get(inode, word.mode);
    const sparse = (flags & SPARSE) !== 0;
    if ((flags & SPOOLED) !== 0)
      return { spooled: true, position: records.getDouble(inode, POSITION), stored, sparse };
    const [layer, ordinal] = [records.get(inode, word.layer), records.get(inode, word.ordinal)];
    return { spooled: false, layer, ordinal, size: this.size(inode), stored, sparse };
  }

  /** The bytes of a file have been copied to the spool. */
  moveToSpool(inode: number, position: number): void {
    this.#records.set(inode, word.mode, this.#records.get(inode, word.mode) | SPOOLED);
    this.#records.setDouble(inode, POSITION, position);
  }

  status(inode: number): InodeStatus {
    const records = this.#records;
    const type = this.type(inode);
    const isDevice = type === 'character' || type === 'block';
    return {
      type,
      mode: this.mode(inode),
      uid: records.get(inode, word.uid),
      gid: records.get(inode, word.gid),
      size: records.getDouble(inode, SIZE),
      mtimeSeconds: records.getDouble(inode, MTIME),
      mtimeNanoseconds: records.get(inode, word.mtimeNanoseconds),
      links: records.get(inode, word.links),
      deviceMajor: isDevice ? records.get(inode, word.major) : 0,
      deviceMinor: isDevice ? records.get(inode, word.minor) : 0,
    };
  }

  metadata(inode: number): InodeMetadata {
    const status = this.status(inode);
    return {
      ...status,
      linkPath: status.type === 'symlink' ? this.target(inode) : ('' as BytePath),
      xattrs: this.xattrs(inode),
    };
  }

  /** Undefined: it has none. */
  xattrs(inode: number): ReadonlyMap<string, Uint8Array> | undefined {
    if (inode === this.#opened) return this.#openXattrs.size === 0 ? undefined : new Map(this.#openXattrs);
    const place = this.#records.get(inode, word.xattrs);
    if (place === 0) return undefined;
    const xattrs = unpackXattrs(this.#strings.get(place));
    return xattrs.size === 0 ? undefined : xattrs;
  }

  hasXattr(inode: number, name: string): boolean {
    if (inode === this.#opened) return this.#openXattrs.has(name);
    return this.xattrs(inode)?.has(name) === true;
  }

  /**
   * As setxattr(2), also in that an access list changes the mode. Any name is taken, and the order is kept: an access list with names
   * (`textKeys`) stays under its record's key until it comes in numbers, which then take its place. False where there are too many.
   */
  setXattr(inode: number, name: string, value: Uint8Array): boolean {
    if (this.#isFull(inode)) return false;
    this.#openXattrsOf(inode);
    const xattrs = this.#openXattrs;
    const [text] = [...textKeys].find(([key, attribute]) => attribute === name && xattrs.has(key)) ?? [];
    if (text !== undefined) {
      const inNumbers = [...xattrs].map((pair) => (pair[0] === text ? ([name, value] as const) : pair));
      this.#openXattrs = new Map(inNumbers);
    } else {
      // A directory has the order of the entry that came last.
      if (this.type(inode) === 'directory') xattrs.delete(name);
      xattrs.set(name, value);
    }
    if (name === accessList) this.setMode(inode, modeWithList(this.mode(inode), value));
    return true;
  }

  /** False where it has none such. */
  removeXattr(inode: number, name: string): boolean {
    if (!this.hasXattr(inode, name)) return false;
    this.#openXattrsOf(inode);
    return this.#openXattrs.delete(name);
  }

  /** Takes the attributes of an inode to be changed; they are put back when those of another one are taken. */
  #openXattrsOf(inode: number): void {
    if (inode === this.#opened) return;
    this.#closeXattrs();
    this.#openXattrs = new Map(this.xattrs(inode));
    this.#opened = inode;
  }

  /** Whether attributes that an earlier entry gave are too many for a hard link to add to. */
  #isFull(inode: number): boolean {
    const place = this.#records.get(inode, word.xattrs);
    if (place === 0 || this.type(inode) === 'directory') return false;
    return this.#strings.size(place) > MOST_XATTR_BYTES;
  }

  #closeXattrs(): void {
    const inode = this.#opened;
    const before = inode === 0 ? 0 : this.#records.get(inode, word.xattrs);
    this.#opened = 0;
    if (inode === 0 || (before === 0 && this.#openXattrs.size === 0)) return;
    const bytes = packXattrs(this.#openXattrs);
    const place = before === 0 ? this.#strings.add(bytes) : this.#strings.replace(before, bytes);
    this.#records.set(inode, word.xattrs, place);
  }
}
