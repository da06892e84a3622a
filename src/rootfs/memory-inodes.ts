import { accessList, keyOfList, modeWithList } from '../tar/access-list.ts';
import type { BytePath, EntryType } from '../tar/entry.ts';
import type { FileStat } from './filesystem.ts';
import { ByteStrings, Column, DoubleColumn, Records, type Spool } from './memory-tables.ts';

/**
 * In bytes. If the extended attributes of a file take more, hard links cannot add others: each would rewrite all of them. All attributes
 * of one entry are kept. ext4 takes 4 KiB, xfs names of 64 KiB.
 */
const MOST_XATTR_BYTES = 64 * 1024;

/** After twelve bits of mode. */
const TYPE_SHIFT = 12;
const SPARSE = 0x1_0000;
const SPOOLED = 0x2_0000;
const types: readonly InodeType[] = ['file', 'directory', 'symlink', 'character', 'block', 'fifo'];

export type InodeType = Exclude<EntryType, 'hardlink'>;

/** The source of the next new file: the data of one entry of one layer. */
export interface FileSource {
  /** From 0. */
  readonly layer: number;
  readonly ordinal: number;
  /** Bytes of the file, and those that the layer stores of it. */
  readonly size: number;
  readonly stored: number;
  readonly sparse: boolean;
  /** Mode of a symlink, from its entry. On disk a symlink has no mode. */
  readonly linkMode: number;
}

/** Where the bytes of a file are. */
export type FileContent =
  | ({ readonly spooled: false } & Omit<FileSource, 'linkMode'>)
  | { readonly spooled: true; readonly position: number; readonly stored: number; readonly sparse: boolean };

type InodeStatus = Omit<FileStat, 'type' | 'ctimeSeconds' | 'ctimeNanoseconds' | 'identity'> & {
  readonly type: InodeType;
};

/** All that stat(2), readlink(2) and getxattr(2) return for an inode. */
export interface InodeMetadata extends InodeStatus {
  /** Target of a symlink, else empty. */
  readonly linkPath: BytePath;
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** The inodes of a file system in memory, numbered from 1. */
export class MemoryInodes {
  readonly #records = new Records();
  /** How many names it has. */
  readonly links = this.#records.column(new Column());
  /** In bytes. */
  readonly size = this.#records.column(new DoubleColumn());
  readonly uid = this.#records.column(new Column());
  readonly gid = this.#records.column(new Column());
  readonly mtimeSeconds = this.#records.column(new DoubleColumn());
  readonly mtimeNanoseconds = this.#records.column(new Column());
  /** Twelve bits of mode, then four of type, then the flags. */
  readonly #mode = this.#records.column(new Column());
  /** Of a file: how many bytes the layers store of it. */
  readonly #stored = this.#records.column(new DoubleColumn());
  /** Of a file whose content is in the spool. */
  readonly #position = this.#records.column(new DoubleColumn());
  /** Of any other file: where the layers have its content. */
  readonly #layer = this.#records.column(new Column());
  readonly #ordinal = this.#records.column(new Column());
  /** Of a device or a symlink: they share columns with files. */
  readonly major = this.#layer;
  readonly minor = this.#ordinal;
  readonly #target = this.#layer;
  readonly #xattrs = this.#records.column(new Column());
  readonly #strings = new ByteStrings();
  /** The inode whose attributes were changed last; 0: none. Its record does not have these changes yet. */
  #opened = 0;
  #openXattrs = new Map<string, Uint8Array>();

  /** From now on long targets and attributes go into it. */
  set spool(spool: Spool) {
    this.#strings.spool = spool;
  }

  /** Adds an inode with one name. */
  add(type: InodeType, mode: number): number {
    const inode = this.#records.allocate();
    this.#mode.set(inode, mode | (types.indexOf(type) << TYPE_SHIFT));
    this.links.set(inode, 1);
    return inode;
  }

  remove(inode: number): void {
    if (inode === this.#opened) this.#opened = 0;
    this.#records.free(inode);
  }

  type(inode: number): InodeType {
    return types[(this.#mode.get(inode) >>> TYPE_SHIFT) & 0xf]!;
  }

  setMode(inode: number, mode: number): void {
    this.#mode.set(inode, (this.#mode.get(inode) & ~0o7777) | (mode & 0o7777));
  }

  target(inode: number): BytePath {
    return this.#strings.get(this.#target.get(inode)).toString('latin1') as BytePath;
  }

  setTarget(inode: number, target: BytePath): void {
    this.#target.set(inode, this.#strings.add(Buffer.from(target, 'latin1')));
  }

  setSource(inode: number, { layer, ordinal, size, stored, sparse }: FileSource): void {
    this.#layer.set(inode, layer);
    this.#ordinal.set(inode, ordinal);
    this.size.set(inode, size);
    this.#stored.set(inode, stored);
    if (sparse) this.#mode.set(inode, this.#mode.get(inode) | SPARSE);
  }

  /** Where the bytes of a file are; undefined for anything else. */
  content(inode: number): FileContent | undefined {
    if (this.type(inode) !== 'file') return undefined;
    const stored = this.#stored.get(inode);
    const flags = this.#mode.get(inode);
    const sparse = (flags & SPARSE) !== 0;
    if ((flags & SPOOLED) !== 0)
      return { spooled: true, position: this.#position.get(inode), stored, sparse };
    const [layer, ordinal] = [this.#layer.get(inode), this.#ordinal.get(inode)];
    return { spooled: false, layer, ordinal, size: this.size.get(inode), stored, sparse };
  }

  /** The bytes of a file have been copied to the spool. */
  moveToSpool(inode: number, position: number): void {
    this.#mode.set(inode, this.#mode.get(inode) | SPOOLED);
    this.#position.set(inode, position);
  }

  status(inode: number): InodeStatus {
    const type = this.type(inode);
    const isDevice = type === 'character' || type === 'block';
    return {
      type,
      mode: this.#mode.get(inode) & 0o7777,
      uid: this.uid.get(inode),
      gid: this.gid.get(inode),
      size: this.size.get(inode),
      mtimeSeconds: this.mtimeSeconds.get(inode),
      mtimeNanoseconds: this.mtimeNanoseconds.get(inode),
      links: this.links.get(inode),
      deviceMajor: isDevice ? this.major.get(inode) : 0,
      deviceMinor: isDevice ? this.minor.get(inode) : 0,
    };
  }

  metadata(inode: number): InodeMetadata {
    const status = this.status(inode);
    const linkPath = status.type === 'symlink' ? this.target(inode) : ('' as BytePath);
    return { ...status, linkPath, xattrs: this.xattrs(inode) };
  }

  /** Undefined: it has none. */
  xattrs(inode: number): ReadonlyMap<string, Uint8Array> | undefined {
    if (inode === this.#opened) return this.#openXattrs.size === 0 ? undefined : new Map(this.#openXattrs);
    const place = this.#xattrs.get(inode);
    if (place === 0) return undefined;
    const xattrs = unpackXattrs(this.#strings.get(place));
    return xattrs.size === 0 ? undefined : xattrs;
  }

  hasXattr(inode: number, name: string): boolean {
    if (inode === this.#opened) return this.#openXattrs.has(name);
    return this.xattrs(inode)?.has(name) === true;
  }

  /**
   * As setxattr(2); an access list changes the mode too. Any name is accepted, and the order is kept. An access list with names
   * (`textKeys`) stays under its record's key until a list in numbers replaces it. False where there are too many.
   */
  setXattr(inode: number, name: string, value: Uint8Array): boolean {
    if (this.#isFull(inode)) return false;
    this.#openXattrsOf(inode);
    const xattrs = this.#openXattrs;
    const text = keyOfList.get(name);
    if (text !== undefined && xattrs.has(text)) {
      const inNumbers = [...xattrs].map((pair) => (pair[0] === text ? ([name, value] as const) : pair));
      this.#openXattrs = new Map(inNumbers);
    } else {
      // A directory has the order of its last entry.
      if (this.type(inode) === 'directory') xattrs.delete(name);
      xattrs.set(name, value);
    }
    if (name === accessList) this.setMode(inode, modeWithList(this.#mode.get(inode) & 0o7777, value));
    return true;
  }

  /** False if it does not have the attribute. */
  removeXattr(inode: number, name: string): boolean {
    if (!this.hasXattr(inode, name)) return false;
    this.#openXattrsOf(inode);
    return this.#openXattrs.delete(name);
  }

  /** Opens the attributes of an inode for changes. They are stored when those of another inode are opened. */
  #openXattrsOf(inode: number): void {
    if (inode === this.#opened) return;
    this.#closeXattrs();
    this.#openXattrs = new Map(this.xattrs(inode));
    this.#opened = inode;
  }

  /** Whether the attributes of earlier entries are too long for a hard link to add more. */
  #isFull(inode: number): boolean {
    const place = this.#xattrs.get(inode);
    if (place === 0 || this.type(inode) === 'directory') return false;
    return this.#strings.size(place) > MOST_XATTR_BYTES;
  }

  #closeXattrs(): void {
    const inode = this.#opened;
    const before = inode === 0 ? 0 : this.#xattrs.get(inode);
    this.#opened = 0;
    if (inode === 0 || (before === 0 && this.#openXattrs.size === 0)) return;
    const bytes = packXattrs(this.#openXattrs);
    const place = before === 0 ? this.#strings.add(bytes) : this.#strings.replace(before, bytes);
    this.#xattrs.set(inode, place);
  }
}

/** Extended attributes as one string: for each the length of its name, the name, the length of its value, the value. */
function packXattrs(xattrs: ReadonlyMap<string, Uint8Array>): Buffer {
  const parts: Uint8Array[] = [];
  for (const [key, value] of xattrs)
    parts.push(lengthOf(key.length), Buffer.from(key, 'latin1'), lengthOf(value.length), value);
  return Buffer.concat(parts);
}

function unpackXattrs(bytes: Buffer): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>();
  for (let at = 0; at < bytes.length;) {
    const start = at + 4;
    const value = start + bytes.readUInt32LE(at) + 4;
    at = value + bytes.readUInt32LE(value - 4);
    xattrs.set(bytes.toString('latin1', start, value - 4), bytes.subarray(value, at));
  }
  return xattrs;
}

function lengthOf(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32LE(length);
  return bytes;
}
