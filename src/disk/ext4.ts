import { DestinationError } from '../errors.ts';
import { nameOf, parentPath } from '../rootfs/directories.ts';
import type { Mtime } from '../rootfs/filesystem.ts';
import type { ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { displayPath } from '../tar/entry.ts';

const EXT4_BLOCK_BYTES = 4096;
const INODES_PER_BLOCK = 16;
const MIB_BLOCKS = 2 ** 20 / EXT4_BLOCK_BYTES;
/** The number of blocks in a block group, which one block of bitmap describes. */
const GROUP_BLOCKS = 8 * EXT4_BLOCK_BYTES;
/** The inodes of the file system itself: below 11 the reserved ones, 11 is lost+found, with four blocks. */
const OWN_INODES = 11;
const OWN_BLOCKS = 16;
/** EXT4_LINK_MAX, which mke2fs does not check. */
const MAX_INODE_NAMES = 65_000;
/** Limit in bytes: a longer target of a symlink takes a block. */
const MAX_TARGET_IN_INODE = 59;
/** Limit in bytes: attributes that take more, names included, take a block. */
const XATTR_BYTES_IN_INODE = 90;
const XATTR_HEAD_BYTES = 24;
/** Bytes lost per block of a directory: the checksum, and the most that stays unused at its end. */
const DIRECTORY_LOSS = 12 + 264;
/** The bytes of `.` and `..`. */
const DIRECTORY_HEAD = 24;
/** Groups that have a copy of the superblock: 1 and the powers of these (sparse_super). */
const BACKUP_BASES = [3, 5, 7];

export interface Ext4Layout {
  readonly bytes: number;
  readonly inodes: number;
  readonly journalMiB: number;
}

/** An entry, and the attributes and the time that debugfs sets. */
interface Ext4Entry {
  readonly entry: ImageTreeEntry;
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[];
  readonly time: Mtime | undefined;
}

/** Adds up the blocks and inodes that a tree takes on ext4. */
export class Ext4Usage {
  #inodes = 0;
  #blocks = OWN_BLOCKS;
  /** Bytes of the names in each directory. */
  readonly #directories = new Map<string, number>([['', DIRECTORY_HEAD]]);
  /** The number of names of each file that has several, by inode. */
  readonly #links = new Map<number, number>();

  /**
   * Adds the next entry, in the order of the tree.
   *
   * @throws DestinationError for an entry that ext4 cannot have
   */
  add(entry: ImageTreeEntry): void {
    const { path, linkTo, inode, type } = entry;
    if (path !== '') {
      const directory = parentPath(path);
      const bytes = 8 + 4 * Math.ceil(nameOf(path).length / 4);
      this.#directories.set(directory, this.#directories.get(directory)! + bytes);
    }
    if (path === 'lost+found' && type !== 'directory')
      throw unfit('the image has a file lost+found, which is a directory on ext4');
    if (linkTo !== undefined) {
      const links = (this.#links.get(inode) ?? 1) + 1;
      if (links > MAX_INODE_NAMES)
        throw unfit(`${displayPath(linkTo)} has more than ${MAX_INODE_NAMES} names, the most on ext4`);
      this.#links.set(inode, links);
      return;
    }
    this.#inodes += 1;
    if (type === 'directory') this.#directories.set(path, DIRECTORY_HEAD);
    if (type === 'file') this.#blocks += fileBlocks(entry.size, entry.stored);
    if (type === 'symlink' && entry.linkPath.length > MAX_TARGET_IN_INODE) this.#blocks += 1;
    let xattrBytes = 0;
    for (const [name, value] of entry.xattrs ?? [])
      xattrBytes += XATTR_HEAD_BYTES + name.length + value.length;
    if (xattrBytes > XATTR_BYTES_IN_INODE) this.#blocks += 1;
  }

  /**
   * Returns the size of a file system that the tree fits into.
   *
   * @param bytes the given size; without it a tenth stays free, at least 16 MiB
   */
  layout(bytes: number | undefined): Ext4Layout {
    for (const size of this.#directories.values()) {
      const room = EXT4_BLOCK_BYTES - 12;
      this.#blocks += Math.ceil(size / (size < room ? room : EXT4_BLOCK_BYTES - DIRECTORY_LOSS));
    }
    const least = OWN_INODES + Math.ceil(this.#inodes * 1.1) + 1024;
    if (bytes !== undefined) {
      const blocks = Math.floor(bytes / EXT4_BLOCK_BYTES);
      // One inode per 16 KiB, as mke2fs chooses.
      const inodes = Math.max(least, Math.floor(blocks / 4));
      return { bytes: blocks * EXT4_BLOCK_BYTES, inodes, journalMiB: journalMiB(blocks) };
    }
    const content = this.#blocks + Math.ceil(least / INODES_PER_BLOCK);
    const withRoom = Math.ceil(content + Math.max(16 * MIB_BLOCKS, content / 10));
    const journal = journalMiB(withRoom);
    const groups = Math.ceil((withRoom + journal * MIB_BLOCKS) / GROUP_BLOCKS) + 1;
    // 64 descriptors per block, and the blocks reserved for more of them; bitmaps and the rest of an inode
    // table.
    const descriptors = (1 + backups(groups)) * (1 + Math.ceil(groups / 64) + Math.min(1024, 16 * groups));
    const blocks = withRoom + journal * MIB_BLOCKS + descriptors + 3 * groups;
    const mebibytes = Math.ceil(blocks / MIB_BLOCKS);
    return { bytes: mebibytes * 2 ** 20, inodes: least, journalMiB: journal };
  }
}

/** Returns the blocks for the data, and for the extents that do not fit into the inode. */
function fileBlocks(size: number, storedBytes: number): number {
  const whole = Math.ceil(size / EXT4_BLOCK_BYTES);
  // Data between holes begins and ends within blocks.
  const data =
    storedBytes < size ? Math.min(whole, 2 * Math.ceil(storedBytes / EXT4_BLOCK_BYTES) + 64) : whole;
  return data > MIB_BLOCKS ? data + Math.ceil(data / 2048) : data;
}

/** Returns the size that mke2fs chooses for a file system of so many blocks, but at least 4 MiB. */
function journalMiB(blocks: number): number {
  const gibibytes = blocks / (1024 * MIB_BLOCKS);
  if (gibibytes < 1 / 8) return 4;
  if (gibibytes < 1) return 16;
  if (gibibytes < 2) return 32;
  return gibibytes < 16 ? 64 : 128;
}

function backups(groups: number): number {
  let count = 1;
  for (const base of BACKUP_BASES) for (let group = base; group < groups; group *= base) count += 1;
  return count;
}

function unfit(message: string): DestinationError {
  const hint = 'use -o FILE.squashfs, -o FILE.erofs or -o FILE.tar';
  return new DestinationError(message, { code: 'UNFIT', hint });
}

/** Features that all kernels since 3.18 have. They replace those in mke2fs.conf, which is not read. */
const FEATURES =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,' +
  'large_file,huge_file,dir_nlink,extra_isize,metadata_csum';

/** Returns the arguments of mke2fs(8), which reads the tar on its standard input. */
export function mke2fsArguments(file: string, uuid: string, layout: Ext4Layout): string[] {
  const extended = `hash_seed=${uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0`;
  const features = ['-O', FEATURES, '-J', `size=${layout.journalMiB}`];
  const numbers = ['-b', String(EXT4_BLOCK_BYTES), '-I', '256', '-N', String(layout.inodes), '-m', '0'];
  const names = ['-U', uuid, '-E', extended];
  return ['-q', '-F', ...features, ...numbers, ...names, '-d', '-', file, `${layout.bytes / 1024}k`];
}

/** Returns variables by which no defaults of the host are read, and all times are the image's. */
export function mke2fsEnvironment(madeAt: number): Record<string, string> {
  // 0 would mean the current time.
  const time = String(Math.max(1, madeAt));
  return {
    MKE2FS_CONFIG: '/dev/null',
    E2FSCK_CONFIG: '/dev/null',
    E2FSPROGS_FAKE_TIME: time,
    E2FSCK_TIME: time,
  };
}

/** debugfs reads lines of up to 8,191 bytes, and takes the rest of a longer one for another command. */
const MAX_COMMAND_BYTES = 8000;

/**
 * Returns commands of debugfs(8), one per line, for metadata that mke2fs does not take from a tar: attributes
 * except capabilities, and times with a fraction or after 2038.
 *
 * @param lost counts the attributes and times that no command can express
 */
export function debugfsCommands({ entry, xattrs, time }: Ext4Entry, lost: NotRestored): string[] {
  const file = debugfsQuoted(`/${entry.path}`);
  const attributes = xattrs.map(([name, value]) =>
    debugfsLine('ea_set', file, debugfsQuoted(name), `"${escaped(value)}"`),
  );
  const commands = attributes.filter((command) => command !== undefined);
  lost.xattrs += attributes.length - commands.length;
  if (time === undefined) return commands;
  const { mtimeSeconds, mtimeNanoseconds } = time;
  const low = ((mtimeSeconds % 2 ** 32) + 2 ** 32) % 2 ** 32;
  const epoch = Math.floor((mtimeSeconds + 2 ** 31) / 2 ** 32);
  const seconds = debugfsLine('sif', file, 'mtime', `@${low}`);
  const rest = debugfsLine('sif', file, 'mtime_extra', String(mtimeNanoseconds * 4 + epoch));
  if (seconds === undefined || rest === undefined) lost.times += 1;
  else commands.push(seconds, rest);
  return commands;
}

/** Returns a command with its words; undefined if a word is undefined or the line too long. */
export function debugfsLine(command: string, ...words: readonly (string | undefined)[]): string | undefined {
  if (words.includes(undefined)) return undefined;
  const text = [command, ...words].join(' ');
  return text.length > MAX_COMMAND_BYTES ? undefined : `${text}\n`;
}

/**
 * Quotes a word for libss, which reads two quotes as one; undefined with a line break, which it cannot read.
 */
export function debugfsQuoted(word: string): string | undefined {
  return /[\r\n]/.test(word) ? undefined : `"${word.replaceAll('"', '""')}"`;
}

/** Escapes a value for debugfs, as in C. */
function escaped(value: Uint8Array): string {
  return Buffer.from(value)
    .toString('latin1')
    .replaceAll(/[^A-Za-z0-9 ._:/,=-]/g, (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`);
}
