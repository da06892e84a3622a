import type { InodeMetadata } from '../rootfs/memory-inodes.ts';
import { type InodeType, isDevice } from '../tar/entry.ts';
import { xattrCount } from './erofs-attributes.ts';
import type { DiskIdentity } from './format.ts';

/*
 * The structures of an EROFS without compression, as defined by linux/fs/erofs/erofs_fs.h and the kernel's
 * Documentation/filesystems/erofs.rst. All numbers are little-endian.
 */

export const EROFS_BLOCK_BYTES = 4096;
const BLOCK_BITS = 12;
/** The number of an inode (nid) counts slots from the first block of metadata. */
export const SLOT_BYTES = 32;
/** `EROFS_NULL_ADDR`: the address of a hole, and of a file without blocks. */
export const NO_BLOCK = 0xffff_ffff;
const UNSIGNED_16_BITS = 0xffff;
const UNSIGNED_32_BITS = 0xffff_ffff;

const MAGIC = 0xe0f5_e1e2;
const SUPERBLOCK_OFFSET = 1024;
/** `EROFS_FEATURE_COMPAT_SB_CHKSUM` and `_MTIME`. */
const COMPATIBLE_FEATURES = 0x1 | 0x2;
/** `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`: Linux 5.15. */
const CHUNKED_FILES = 0x4;

export interface Superblock {
  readonly identity: DiskIdentity;
  readonly rootNumber: number;
  readonly inodes: number;
  /** The number of blocks of the whole file system. */
  readonly blocks: number;
  readonly metadataBlock: number;
  readonly sharedAttributesBlock: number;
  readonly hasChunkedFiles: boolean;
}

/** Returns the first block, with the superblock. */
export function superblockBytes(superblock: Superblock): Buffer {
  const block = Buffer.alloc(EROFS_BLOCK_BYTES);
  const bytes = block.subarray(SUPERBLOCK_OFFSET);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(COMPATIBLE_FEATURES, 8);
  bytes.writeUInt8(BLOCK_BITS, 12);
  bytes.writeUInt16LE(superblock.rootNumber, 14);
  write64(bytes, superblock.inodes, 16);
  write64(bytes, superblock.identity.madeAt, 24);
  bytes.writeUInt32LE(superblock.blocks, 36);
  bytes.writeUInt32LE(superblock.metadataBlock, 40);
  bytes.writeUInt32LE(superblock.sharedAttributesBlock, 44);
  bytes.write(superblock.identity.uuid.replaceAll('-', ''), 48, 'hex');
  bytes.writeUInt32LE(superblock.hasChunkedFiles ? CHUNKED_FILES : 0, 80);
  bytes.writeUInt32LE(crc32c(bytes), 4);
  return block;
}

/** Computes the kernel's `crc32c(~0, …)`, whose result is not inverted. */
function crc32c(bytes: Uint8Array): number {
  let crc = UNSIGNED_32_BITS;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
  }
  return crc >>> 0;
}

/** Writes 64 bits; a negative value, such as a time before 1970, in two's complement. */
function write64(bytes: Buffer, value: number, offset: number): void {
  const high = Math.floor(value / 2 ** 32);
  bytes.writeUInt32LE(value - high * 2 ** 32, offset);
  bytes.writeInt32LE(high, offset + 4);
}

/** The layouts of an inode's content: `EROFS_INODE_FLAT_PLAIN`, `_FLAT_INLINE` and `_CHUNK_BASED`. */
export const layouts = { blocks: 0, blocksAndTail: 2, chunks: 4 } as const;
export type InodeLayout = (typeof layouts)[keyof typeof layouts];

/** `st_mode` and the type in a directory (linux/fs_types.h). */
const TYPE_CODES: Readonly<Record<InodeType, readonly [format: number, inDirectory: number]>> = {
  file: [0o100000, 1],
  directory: [0o040000, 2],
  character: [0o020000, 3],
  block: [0o060000, 4],
  fifo: [0o010000, 5],
  symlink: [0o120000, 7],
};

export type InodeFields = Pick<
  InodeMetadata,
  | 'type'
  | 'mode'
  | 'uid'
  | 'gid'
  | 'size'
  | 'links'
  | 'mtimeSeconds'
  | 'mtimeNanoseconds'
  | 'deviceMajor'
  | 'deviceMinor'
>;

const COMPACT_BYTES = 32;
const EXTENDED_BYTES = 64;

/** True if 32 bytes suffice for the inode, whose mtime is then that of the file system. */
function isCompact(inode: InodeFields, { madeAt }: DiskIdentity): boolean {
  return (
    inode.mtimeSeconds === madeAt &&
    inode.mtimeNanoseconds === 0 &&
    inode.size <= UNSIGNED_32_BITS &&
    Math.max(inode.uid, inode.gid, inode.links) <= UNSIGNED_16_BITS
  );
}

/** Returns the size of the inode in bytes, without attributes. */
export function inodeSize(inode: InodeFields, identity: DiskIdentity): number {
  return isCompact(inode, identity) ? COMPACT_BYTES : EXTENDED_BYTES;
}

/** The place and layout of an inode. */
export interface InodeStorage {
  /** The result of `attributesBytes`. */
  readonly attributes: Uint8Array;
  readonly layout: InodeLayout;
  /** `i_ino`, which stat(2) reports to programs of 32 bits. */
  readonly number: number;
  /** The first block of the content, or the result of `chunkFormat`; unused for a device. */
  readonly content: number;
}

/** Encodes an inode and its attributes. */
export function inodeBytes(
  inode: InodeFields,
  { attributes, layout, number, content }: InodeStorage,
  identity: DiskIdentity,
): Buffer {
  const compact = isCompact(inode, identity);
  const size = compact ? COMPACT_BYTES : EXTENDED_BYTES;
  const bytes = Buffer.alloc(size + attributes.length);
  bytes.set(attributes, size);
  bytes.writeUInt16LE((layout << 1) | (compact ? 0 : 1), 0);
  bytes.writeUInt16LE(xattrCount(attributes.length), 2);
  const mode = inode.type === 'symlink' ? 0o777 : inode.mode;
  bytes.writeUInt16LE(TYPE_CODES[inode.type][0] | mode, 4);
  bytes.writeUInt32LE(isDevice(inode.type) ? deviceOf(inode) : content, 16);
  bytes.writeUInt32LE(number % 2 ** 32, 20);
  if (compact) {
    bytes.writeUInt16LE(inode.links, 6);
    bytes.writeUInt32LE(inode.size, 8);
    bytes.writeUInt16LE(inode.uid, 24);
    bytes.writeUInt16LE(inode.gid, 26);
    return bytes;
  }
  write64(bytes, inode.size, 8);
  bytes.writeUInt32LE(inode.uid, 24);
  bytes.writeUInt32LE(inode.gid, 28);
  write64(bytes, inode.mtimeSeconds, 32);
  bytes.writeUInt32LE(inode.mtimeNanoseconds, 40);
  bytes.writeUInt32LE(inode.links, 44);
  return bytes;
}

/**
 * True if Linux can have such a device: `new_encode_dev` has 12 bits for the major and 20 for the minor
 * number.
 */
export function isDeviceNumber({
  deviceMajor,
  deviceMinor,
}: Pick<InodeFields, 'deviceMajor' | 'deviceMinor'>): boolean {
  return deviceMajor <= 0xfff && deviceMinor <= 0xf_ffff;
}

function deviceOf({ deviceMajor, deviceMinor }: InodeFields): number {
  return ((deviceMinor & 0xff) | (deviceMajor << 8) | ((deviceMinor & 0xf_ff00) << 12)) >>> 0;
}

/**
 * Returns the size of the chunks of a file with holes, as the exponent of 2. A file has about as many chunks
 * as a chunk has bytes.
 */
export function chunkBitsOf(size: number): number {
  return Math.max(BLOCK_BITS, Math.ceil(Math.log2(size) / 2));
}

/** Returns the `content` of an inode with chunks, whose addresses of four bytes follow the inode. */
export function chunkFormat(chunkBits: number): number {
  return chunkBits - BLOCK_BITS;
}

/** A name in a directory, and its inode. */
export interface DirectoryName {
  readonly name: string;
  readonly type: InodeType;
  readonly inode: number;
}

const DIRECTORY_ENTRY_BYTES = 12;

/** Returns the size of a directory with these names, in bytes. */
export function directorySize(names: readonly DirectoryName[]): number {
  const blocks = blocksOf(names);
  return (blocks.length - 1) * EROFS_BLOCK_BYTES + blocks.at(-1)!.length;
}

/**
 * Encodes a directory. Each block has first the entries, then their names; the kernel searches by bisection.
 *
 * @param names with `.` and `..`, sorted by their bytes
 * @param numberOf returns the number of an inode
 */
export function directoryBytes(names: readonly DirectoryName[], numberOf: (inode: number) => number): Buffer {
  const bytes = Buffer.alloc(directorySize(names));
  for (const [block, { from, to }] of blocksOf(names).entries()) {
    let entry = block * EROFS_BLOCK_BYTES;
    let offset = (to - from) * DIRECTORY_ENTRY_BYTES;
    for (const { name, type, inode } of names.slice(from, to)) {
      write64(bytes, numberOf(inode), entry);
      bytes.writeUInt16LE(offset, entry + 8);
      bytes.writeUInt8(TYPE_CODES[type][1], entry + 10);
      bytes.write(name, block * EROFS_BLOCK_BYTES + offset, 'latin1');
      entry += DIRECTORY_ENTRY_BYTES;
      offset += name.length;
    }
  }
  return bytes;
}

interface DirectoryBlock {
  readonly from: number;
  readonly to: number;
  readonly length: number;
}

/** Distributes the names over blocks, as many as fit into each. */
function blocksOf(names: readonly DirectoryName[]): DirectoryBlock[] {
  const blocks: DirectoryBlock[] = [];
  let from = 0;
  let length = 0;
  for (const [index, { name }] of names.entries()) {
    const more = DIRECTORY_ENTRY_BYTES + name.length;
    if (length + more > EROFS_BLOCK_BYTES) {
      blocks.push({ from, to: index, length });
      from = index;
      length = 0;
    }
    length += more;
  }
  blocks.push({ from, to: names.length, length });
  return blocks;
}
