import { STAT_SIZE, putStat } from './index-file.ts';
import { type ObjectID, ID_SIZE } from './trees.ts';
import type { FileStat } from '../rootfs/filesystem.ts';
import type { Written } from '../tar/mtree.ts';

/** Offsets in a record, in bytes; the result of stat(2) and the id are first, as in an entry of an index. */
const ID_AT = STAT_SIZE;
const TYPE_AT = 60;
const FLAGS_AT = 61;
const MODE_AT = 62;
const UID_AT = 64;
const GID_AT = 68;
const NANOSECONDS_AT = 72;
const SIZE_AT = 80;
const SECONDS_AT = 88;
const RECORD_SIZE = 96;
const RECORDS_AT_ONCE = 2048;

const OWN = 1;
const TIMELESS = 2;
const LINKED = 4;
const HAS_ID = 8;
const HAS_STAT = 16;
const HAS_RARE = 32;

const types = ['file', 'directory', 'symlink', 'character', 'block', 'fifo'] as const;

/** The properties of an inode in a layer, or in a user's commit. */
export type Described = Omit<Written, 'type' | 'path'> & {
  readonly type: Exclude<Written['type'], 'hardlink'>;
};

/** A directory that root owns, or, with another mode, a file. Nothing else is known of it. */
export const plain: Omit<Described, 'type'> = {
  linkPath: '',
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: undefined,
};

/** Properties that few inodes have. */
type Rare = Pick<Described, 'linkPath' | 'deviceMajor' | 'deviceMinor' | 'xattrs' | 'contents'>;

/** Inodes by their numbers, in records of one size: as objects they take four times as much memory. */
export class Inodes {
  readonly #blocks: RecordMemory[] = [];
  readonly #rare = new Map<number, Rare>();
  /** The contents of directories: names, and the numbers of their inodes. */
  readonly #children = new Map<number, Map<string, number>>();
  #count = 0;

  /** Adds an inode and returns its number; numbers start at 0. */
  add(described: Described): number {
    const number = this.#count;
    if (number % RECORDS_AT_ONCE === 0) this.#blocks.push(makeBlock());
    this.#count += 1;
    this.describe(number, described);
    return number;
  }

  /** Replaces the properties of an inode. Its blob or tree, and the contents of a directory, stay. */
  describe(number: number, described: Described): void {
    const { view } = this.blockOf(number);
    const at = offsetOf(number);
    view.setUint8(at + TYPE_AT, types.indexOf(described.type));
    const kept = view.getUint8(at + FLAGS_AT) & (HAS_ID | HAS_RARE);
    view.setUint8(at + FLAGS_AT, kept | (described.own === true ? OWN : 0));
    view.setUint16(at + MODE_AT, described.mode);
    view.setUint32(at + UID_AT, described.uid);
    view.setUint32(at + GID_AT, described.gid);
    view.setUint32(at + NANOSECONDS_AT, described.mtimeNanoseconds);
    view.setFloat64(at + SIZE_AT, described.size);
    view.setFloat64(at + SECONDS_AT, described.mtimeSeconds);
    this.setRare(number, described);
    if (described.type === 'directory' && !this.#children.has(number)) this.#children.set(number, new Map());
  }

  get(number: number): Inode {
    return new Inode(this, number);
  }

  childrenOf(number: number): Map<string, number> | undefined {
    return this.#children.get(number);
  }

  blockOf(number: number): RecordMemory {
    return this.#blocks[Math.floor(number / RECORDS_AT_ONCE)]!;
  }

  rareOf(number: number): Rare {
    return this.#rare.get(number) ?? plain;
  }

  setRare(number: number, { linkPath, deviceMajor, deviceMinor, xattrs, contents }: Rare): void {
    const { view } = this.blockOf(number);
    const at = offsetOf(number) + FLAGS_AT;
    const flags = view.getUint8(at);
    const isRare =
      linkPath !== '' || deviceMajor > 0 || deviceMinor > 0 || xattrs !== undefined || contents !== undefined;
    if (isRare)
      this.#rare.set(number, { linkPath: ownCopy(linkPath), deviceMajor, deviceMinor, xattrs, contents });
    // Few have any, and to look for them in the Map takes longer than all the rest.
    else if ((flags & HAS_RARE) !== 0) this.#rare.delete(number);
    view.setUint8(at, isRare ? flags | HAS_RARE : flags & ~HAS_RARE);
  }
}

/** Memory of some records, as bytes and as numbers of any size. */
interface RecordMemory {
  readonly bytes: Buffer;
  readonly view: DataView;
}

function makeBlock(): RecordMemory {
  const memory = new ArrayBuffer(RECORDS_AT_ONCE * RECORD_SIZE);
  return { bytes: Buffer.from(memory), view: new DataView(memory) };
}

/** Where a record begins in its block. */
function offsetOf(number: number): number {
  return (number % RECORDS_AT_ONCE) * RECORD_SIZE;
}

/** A copy of a text. V8 keeps the whole text in memory for each slice of it: thousands of lines for a name. */
export function ownCopy(text: string): string {
  return text === '' ? '' : ` ${text}`.slice(1);
}

/** A file, with one path or, for hard links, several: read from its record, and written to it. */
export class Inode {
  readonly number: number;
  readonly #block: RecordMemory;
  readonly #at: number;
  readonly #inodes: Inodes;

  constructor(inodes: Inodes, number: number) {
    this.#inodes = inodes;
    this.number = number;
    this.#block = inodes.blockOf(number);
    this.#at = offsetOf(number);
  }

  get type(): Described['type'] {
    return types[this.#block.view.getUint8(this.#at + TYPE_AT)]!;
  }

  get mode(): number {
    return this.#block.view.getUint16(this.#at + MODE_AT);
  }

  get uid(): number {
    return this.#block.view.getUint32(this.#at + UID_AT);
  }

  get gid(): number {
    return this.#block.view.getUint32(this.#at + GID_AT);
  }

  get size(): number {
    return this.#block.view.getFloat64(this.#at + SIZE_AT);
  }

  get mtimeSeconds(): number {
    return this.#block.view.getFloat64(this.#at + SECONDS_AT);
  }

  get mtimeNanoseconds(): number {
    return this.#block.view.getUint32(this.#at + NANOSECONDS_AT);
  }

  get linkPath(): string {
    return this.#inodes.rareOf(this.number).linkPath;
  }

  get deviceMajor(): number {
    return this.#inodes.rareOf(this.number).deviceMajor;
  }

  get deviceMinor(): number {
    return this.#inodes.rareOf(this.number).deviceMinor;
  }

  get xattrs(): ReadonlyMap<string, Uint8Array> | undefined {
    return this.#inodes.rareOf(this.number).xattrs;
  }

  /** Where a record keeps content that no commit can hold. */
  get contents(): string | undefined {
    return this.#inodes.rareOf(this.number).contents;
  }

  /** The contents of a directory: names, and the numbers of their inodes; undefined for other types. */
  get children(): ReadonlyMap<string, number> | undefined {
    return this.type === 'directory' ? this.#inodes.childrenOf(this.number) : undefined;
  }

  /** dlrootfs made it, not a layer. */
  get own(): boolean {
    return this.#has(OWN);
  }

  /** It is from a user's commit: its times are unknown and stay as git sets them. */
  get timeless(): boolean {
    return this.#has(TIMELESS);
  }

  /** It has had a further name: see `markLinked`. */
  get linked(): boolean {
    return this.#has(LINKED);
  }

  /** Name of the blob with the content, or of the tree, once it is known. */
  get id(): ObjectID | undefined {
    if (!this.#has(HAS_ID)) return undefined;
    const start = this.#at + ID_AT;
    return this.#block.bytes.toString('hex', start, start + ID_SIZE) as ObjectID;
  }

  set id(id: ObjectID | undefined) {
    if (id !== undefined) this.#block.bytes.write(id, this.#at + ID_AT, 'hex');
    this.#set(HAS_ID, id !== undefined);
  }

  /** Takes the id from its `ID_SIZE` bytes at `start`. */
  setId(bytes: Buffer, start: number): void {
    bytes.copy(this.#block.bytes, this.#at + ID_AT, start, start + ID_SIZE);
    this.#set(HAS_ID, true);
  }

  /** Copies the bytes of the id. */
  copyId(into: Buffer, at: number): void {
    this.#block.bytes.copy(into, at, this.#at + ID_AT, this.#at + ID_AT + ID_SIZE);
  }

  get hasId(): boolean {
    return this.#has(HAS_ID);
  }

  /** Whether `setStat` was called with its status on disk. */
  get hasStat(): boolean {
    return this.#has(HAS_STAT);
  }

  /** @param stat undefined if unknown */
  setStat(stat: FileStat | undefined): void {
    if (stat) putStat(this.#block.view, this.#at, stat);
    else this.#block.bytes.fill(0, this.#at, this.#at + STAT_SIZE);
    this.#set(HAS_STAT, stat !== undefined);
  }

  /** Copies the result of stat(2) (zeros if unknown) and the id into an index. */
  copyStatAndId(into: Buffer, at: number): void {
    this.#block.bytes.copy(into, at, this.#at, this.#at + ID_AT + ID_SIZE);
  }

  markLinked(): void {
    this.#set(LINKED, true);
  }

  markTimeless(): void {
    this.#set(TIMELESS, true);
  }

  #has(flag: number): boolean {
    return (this.#block.view.getUint8(this.#at + FLAGS_AT) & flag) !== 0;
  }

  #set(flag: number, on: boolean): void {
    const flags = this.#block.view.getUint8(this.#at + FLAGS_AT);
    this.#block.view.setUint8(this.#at + FLAGS_AT, on ? flags | flag : flags & ~flag);
  }
}
