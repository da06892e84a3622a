import { deserialize, serialize } from 'node:v8';
import { accessListXattr, keyOfList, modeWithList } from '../tar/access-list.ts';
import { type BytePath, type InodeType, isDevice } from '../tar/entry.ts';
import { type FileStat, FORMATS } from './filesystem.ts';
import type { Spool } from './spool.ts';

/**
 * Most bytes of a file's extended attributes to which a hard link can add others: each rewrites all of them.
 * All attributes of one entry are kept. ext4 takes 4 KiB, xfs names of 64 KiB.
 */
const MAX_XATTR_BYTES = 64 * 1024;

/** Longer targets and attributes go to the spool, if there is one. */
export const MAX_IN_MEMORY = 1024;
const CHUNK_BITS = 14;
const CHUNK_NUMBERS = 1 << CHUNK_BITS;
const INODE_TYPES = Object.keys(FORMATS) as InodeType[];

/** The source of the next new file: the data of one entry of one layer. */
export interface FileSource {
  /** Index of the layer, from 0. */
  readonly layer: number;
  readonly ordinal: number;
  /** Bytes of the file, and the bytes of it that the layer stores. */
  readonly size: number;
  readonly stored: number;
  readonly sparse: boolean;
  /** Mode of a symlink, from its entry. On disk a symlink has no mode. */
  readonly linkMode: number;
}

/** The place where the bytes of a file are. */
export interface FileContent extends Omit<FileSource, 'linkMode'> {
  /** Position in the spool; undefined: the bytes are read from the layer. */
  readonly position: number | undefined;
}

type InodeStatus = Omit<FileStat, 'type' | 'ctimeSeconds' | 'ctimeNanoseconds' | 'identity'> & {
  readonly type: InodeType;
};

/** All metadata that stat(2), readlink(2) and getxattr(2) return for an inode. */
export interface InodeMetadata extends InodeStatus {
  /** Number of a file's bytes that the layers store. */
  readonly stored: number;
  /** Target of a symlink, else empty. */
  readonly linkPath: BytePath;
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
}

/** A byte string, or its place in the spool: at `position`, where it may grow to `room` bytes. */
type Text = string | { readonly position: number; readonly length: number; readonly room: number };

/** Numbers by index, 0 by default. They are in chunks outside JavaScript's heap, which are never copied. */
class Column {
  readonly #chunks: (Uint32Array | Float64Array)[] = [];
  readonly #kind: Uint32ArrayConstructor | Float64ArrayConstructor;

  constructor(kind: Uint32ArrayConstructor | Float64ArrayConstructor = Uint32Array) {
    this.#kind = kind;
  }

  get(index: number): number {
    return this.#chunks[index >>> CHUNK_BITS]?.[index & (CHUNK_NUMBERS - 1)] ?? 0;
  }

  set(index: number, value: number): void {
    const chunk = (this.#chunks[index >>> CHUNK_BITS] ??= new this.#kind(CHUNK_NUMBERS));
    chunk[index & (CHUNK_NUMBERS - 1)] = value;
  }
}

/** The inodes of a file system in memory, numbered from 1. */
export class MemoryInodes {
  /** Once it is set, long targets and attributes go into it. */
  spool: Spool | undefined;
  /** Number of names of an inode. */
  readonly links = new Column();
  /** Size of a file in bytes. */
  readonly size = new Column(Float64Array);
  readonly uid = new Column();
  readonly gid = new Column();
  readonly mtimeSeconds = new Column(Float64Array);
  readonly mtimeNanoseconds = new Column();
  readonly #type = new Column();
  readonly #mode = new Column();
  /** Place of a file's content in the layers: bytes stored, whether it is sparse, its layer and entry. */
  readonly #stored = new Column(Float64Array);
  readonly #sparse = new Column();
  readonly #layer = new Column();
  readonly #ordinal = new Column();
  /** Device numbers, which share columns with the content of files. */
  readonly major = this.#layer;
  readonly minor = this.#ordinal;
  /** Positions of the contents that are in the spool. */
  readonly #positions = new Map<number, number>();
  readonly #targets = new Map<number, Text>();
  /** Extended attributes by inode, each a Map that `serialize` wrote. */
  readonly #xattrs = new Map<number, Text>();
  /** The inode whose attributes were changed last; 0: none. `#xattrs` does not have these changes yet. */
  #opened = 0;
  #openXattrs = new Map<string, Uint8Array>();
  readonly #removed: number[] = [];
  #last = 0;

  /** Adds an inode with one name, and returns its number. */
  add(type: InodeType, mode: number): number {
    const inode = this.#removed.pop() ?? (this.#last += 1);
    const { size, uid, gid, mtimeSeconds, mtimeNanoseconds } = this;
    const all = [
      size,
      uid,
      gid,
      mtimeSeconds,
      mtimeNanoseconds,
      this.#stored,
      this.#sparse,
      this.#layer,
      this.#ordinal,
    ];
    for (const column of all) column.set(inode, 0);
    this.#type.set(inode, INODE_TYPES.indexOf(type));
    this.#mode.set(inode, mode);
    this.links.set(inode, 1);
    return inode;
  }

  remove(inode: number): void {
    if (inode === this.#opened) this.#opened = 0;
    this.#targets.delete(inode);
    this.#xattrs.delete(inode);
    this.#removed.push(inode);
  }

  type(inode: number): InodeType {
    return INODE_TYPES[this.#type.get(inode)]!;
  }

  setMode(inode: number, mode: number): void {
    this.#mode.set(inode, mode & 0o7777);
  }

  target(inode: number): BytePath {
    return this.#load(this.#targets.get(inode) ?? '') as BytePath;
  }

  setTarget(inode: number, target: BytePath): void {
    this.#targets.set(inode, this.#store(target));
  }

  setSource(inode: number, { layer, ordinal, size, stored, sparse }: FileSource): void {
    this.#layer.set(inode, layer);
    this.#ordinal.set(inode, ordinal);
    this.size.set(inode, size);
    this.#stored.set(inode, stored);
    this.#sparse.set(inode, Number(sparse));
  }

  /** Returns the place of a file's bytes; undefined for any other type. */
  content(inode: number): FileContent | undefined {
    if (this.type(inode) !== 'file') return undefined;
    return {
      layer: this.#layer.get(inode),
      ordinal: this.#ordinal.get(inode),
      size: this.size.get(inode),
      stored: this.#stored.get(inode),
      sparse: this.#sparse.get(inode) !== 0,
      position: this.#positions.get(inode),
    };
  }

  /** Records that the bytes of a file were copied to the spool. */
  moveToSpool(inode: number, position: number): void {
    this.#positions.set(inode, position);
  }

  status(inode: number): InodeStatus {
    const type = this.type(inode);
    const hasNumbers = isDevice(type);
    return {
      type,
      mode: this.#mode.get(inode),
      uid: this.uid.get(inode),
      gid: this.gid.get(inode),
      size: this.size.get(inode),
      mtimeSeconds: this.mtimeSeconds.get(inode),
      mtimeNanoseconds: this.mtimeNanoseconds.get(inode),
      links: this.links.get(inode),
      deviceMajor: hasNumbers ? this.major.get(inode) : 0,
      deviceMinor: hasNumbers ? this.minor.get(inode) : 0,
    };
  }

  metadata(inode: number): InodeMetadata {
    const xattrs = this.xattrs(inode);
    return {
      ...this.status(inode),
      stored: this.#stored.get(inode),
      linkPath: this.target(inode),
      xattrs: xattrs.size === 0 ? undefined : xattrs,
    };
  }

  /** Returns a copy of the extended attributes. */
  xattrs(inode: number): Map<string, Uint8Array> {
    if (inode === this.#opened) return new Map(this.#openXattrs);
    const text = this.#xattrs.get(inode);
    if (text === undefined) return new Map();
    return deserialize(Buffer.from(this.#load(text), 'latin1')) as Map<string, Uint8Array>;
  }

  hasXattr(inode: number, name: string): boolean {
    if (inode === this.#opened) return this.#openXattrs.has(name);
    return this.xattrs(inode).has(name);
  }

  /**
   * Sets an attribute as setxattr(2) does; an access list changes the mode too. Any name is accepted, and the
   * order is kept. An access list with names (`textKeys`) stays under its record's key until a list in
   * numbers replaces it. Returns false if the file's attributes are too long.
   */
  setXattr(inode: number, name: string, value: Uint8Array): boolean {
    const isDirectory = this.type(inode) === 'directory';
    // A hard link may not add to attributes that are too long.
    if (!isDirectory && (this.#xattrs.get(inode)?.length ?? 0) > MAX_XATTR_BYTES) return false;
    const xattrs = this.#openXattrsOf(inode);
    const text = keyOfList.get(name);
    if (text !== undefined && xattrs.has(text)) {
      const inNumbers = [...xattrs].map((pair) => (pair[0] === text ? ([name, value] as const) : pair));
      this.#openXattrs = new Map(inNumbers);
    } else {
      // A directory's attributes are in the order of its last entry.
      if (isDirectory) xattrs.delete(name);
      xattrs.set(name, value);
    }
    if (name === accessListXattr) this.setMode(inode, modeWithList(this.#mode.get(inode), value));
    return true;
  }

  /** Removes an attribute; false if the inode does not have it. */
  removeXattr(inode: number, name: string): boolean {
    return this.hasXattr(inode, name) && this.#openXattrsOf(inode).delete(name);
  }

  /** Opens the attributes of an inode for changes. They are stored when those of another inode are opened. */
  #openXattrsOf(inode: number): Map<string, Uint8Array> {
    if (inode === this.#opened) return this.#openXattrs;
    const before = this.#xattrs.get(this.#opened);
    if (this.#opened !== 0 && (before !== undefined || this.#openXattrs.size > 0))
      this.#xattrs.set(this.#opened, this.#store(serialize(this.#openXattrs).toString('latin1'), before));
    this.#openXattrs = this.xattrs(inode);
    this.#opened = inode;
    return this.#openXattrs;
  }

  /**
   * Stores a text, in the spool if it is long. It replaces the text before if it fits, else gets room to
   * grow.
   */
  #store(text: string, before: Text = ''): Text {
    if (!this.spool || text.length <= MAX_IN_MEMORY) return text;
    const bytes = Buffer.from(text, 'latin1');
    const isNew = typeof before === 'string';
    const hasRoom = !isNew && bytes.length <= before.room;
    const room = hasRoom ? before.room : bytes.length * (isNew ? 1 : 2);
    const position = hasRoom ? before.position : this.spool.reserve(room);
    this.spool.write(position, bytes);
    return { position, length: bytes.length, room };
  }

  #load(text: Text): string {
    if (typeof text === 'string') return text;
    const bytes = Buffer.allocUnsafe(text.length);
    this.spool!.read(text.position, bytes);
    return bytes.toString('latin1');
  }
}
