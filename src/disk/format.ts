import { createHash } from 'node:crypto';
import type { TarDialect } from '../archive/flatten.ts';
import type { Mtime } from '../rootfs/filesystem.ts';
import type { ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { accessListXattr, defaultAccessListXattr } from '../tar/access-list.ts';
import type { BytePath } from '../tar/entry.ts';
import { type Ext4Layout, Ext4Usage, mke2fsArguments, mke2fsEnvironment } from './ext4.ts';
import { capabilityXattr } from '../rootfs/metadata.ts';

/** File systems that a disk image can have, by the ending of its file's name. */
export type DiskFormat = 'ext4' | 'squashfs' | 'erofs';

/** Compressions of mkfs.erofs, if it is built with them. */
export type ErofsCompression = 'lz4' | 'lz4hc' | 'deflate' | 'lzma' | 'zstd';

/** The program that makes a file system from a tar. */
interface ToolDescription {
  readonly program: string;
  readonly versionFlag: string;
  readonly oldest: readonly [major: number, minor: number, patch: number];
  /** Debian packages, first the one with the program. */
  readonly packages: readonly [string, ...string[]];
}

/** The values that a tool's arguments are made of. */
interface ToolRequest {
  /** The file that it writes. */
  readonly file: string;
  readonly identity: DiskIdentity;
  /** The root directory, made fit for the format. */
  readonly root: ImageTreeEntry;
  /** For formats with `usage`. */
  readonly layout: Ext4Layout | undefined;
  /** The compression of an EROFS; an uncompressed one needs no tool. */
  readonly compression: ErofsCompression | undefined;
}

/** A trial run that shows whether a tool can read tars. */
interface TarTrial {
  /** The arguments of the tool, whose input is an empty tar. */
  readonly arguments: (file: string) => readonly string[];
  /** A word in the tool's messages if it cannot read tars. */
  readonly library: string;
  readonly hint: string;
}

/** The range of times that a tool or file system can take, in seconds since 1970. */
interface TimeRange {
  readonly first: number;
  readonly last: number;
}

/** A file system and the tool that makes it. */
interface FormatDescription {
  readonly tool: ToolDescription;
  readonly arguments: (request: ToolRequest) => readonly string[];
  readonly environment: (madeAt: number) => Readonly<Record<string, string>>;
  /** For a tool that may lack a reader of tars. */
  readonly trial: TarTrial | undefined;
  /** The tar that the tool reads. */
  readonly tar: TarDialect;
  /** False: the tool gets the root's metadata as arguments. */
  readonly rootInTar: boolean;
  /** True: the tool copies all files before it writes them, and its message for a full disk is unclear. */
  readonly copiesFiles: boolean;
  /** True: the file system has no free room, so its size cannot be chosen. */
  readonly isReadOnly: boolean;
  /** Adds up the size that the tool needs as an argument. */
  readonly usage: (() => Ext4Usage) | undefined;
  readonly hasAccessLists: boolean;
  readonly times: TimeRange;
  /** True if a time of these seconds keeps its nanoseconds. */
  readonly hasNanoseconds: (seconds: number) => boolean;
  /**
   * The times that the tool takes from a tar, which has no attributes but capabilities then; debugfs sets the
   * others. Undefined: it takes everything.
   */
  readonly takesOnly: { readonly times: TimeRange } | undefined;
}

const UNSIGNED_32_BIT_TIMES: TimeRange = { first: 0, last: 2 ** 32 - 1 };

/**
 * The formats. The transformations of tars avoid errors of e2fsprogs 1.47.2, squashfs-tools 4.6.1 and
 * erofs-utils 1.8.6.
 */
export const diskFormats: Readonly<Record<DiskFormat, FormatDescription>> = {
  ext4: {
    tool: {
      program: 'mke2fs',
      versionFlag: '-V',
      oldest: [1, 47, 1],
      packages: ['e2fsprogs', 'libarchive13t64'],
    },
    arguments: ({ file, identity, layout }) => mke2fsArguments(file, identity.uuid, layout!),
    environment: mke2fsEnvironment,
    trial: {
      arguments: (file) => ['-q', '-F', '-O', 'none', '-b', '1024', '-d', '-', file, '256k'],
      library: 'libarchive',
      hint: 'install libarchive (apt-get install libarchive13t64, or libarchive13 before Debian 13)',
    },
    tar: { holes: 'kept', names: 'binary' },
    rootInTar: true,
    copiesFiles: false,
    isReadOnly: false,
    usage: () => new Ext4Usage(),
    hasAccessLists: true,
    times: { first: -(2 ** 31), last: 2 ** 34 - 2 ** 31 - 1 },
    hasNanoseconds: () => true,
    takesOnly: { times: { first: -(2 ** 31), last: 2 ** 31 - 1 } },
  },
  squashfs: {
    tool: { program: 'sqfstar', versionFlag: '-version', oldest: [4, 6, 0], packages: ['squashfs-tools'] },
    arguments: sqfstarArguments,
    environment: () => ({}),
    trial: undefined,
    tar: { holes: 'kept', names: 'utf-8' },
    rootInTar: false,
    copiesFiles: false,
    isReadOnly: true,
    usage: undefined,
    hasAccessLists: false,
    times: UNSIGNED_32_BIT_TIMES,
    hasNanoseconds: () => false,
    takesOnly: undefined,
  },
  erofs: {
    tool: { program: 'mkfs.erofs', versionFlag: '-V', oldest: [1, 8, 0], packages: ['erofs-utils'] },
    arguments: mkfsErofsArguments,
    environment: () => ({}),
    trial: undefined,
    tar: { holes: 'filled', names: 'utf-8' },
    rootInTar: true,
    copiesFiles: true,
    isReadOnly: true,
    usage: undefined,
    hasAccessLists: true,
    times: { first: -Number.MAX_SAFE_INTEGER, last: Number.MAX_SAFE_INTEGER },
    // mkfs.erofs misreads the fraction of a time before 1970.
    hasNanoseconds: (seconds) => seconds >= 0,
    takesOnly: undefined,
  },
};

function sqfstarArguments({ file, identity: { madeAt }, root }: ToolRequest): string[] {
  const owner = ['-root-uid', String(root.uid), '-root-gid', String(root.gid)];
  const metadata = ['-root-mode', root.mode.toString(8), ...owner, '-root-time', String(root.mtimeSeconds)];
  const plain = ['-quiet', '-no-progress', '-force', '-exit-on-error', '-comp', 'gzip', '-b', '131072'];
  return [...plain, '-mkfs-time', String(madeAt), ...metadata, file];
}

/** Limit on the bytes that are compressed together: larger than a block needs Linux 5.13. */
const CLUSTER_BYTES = 65_536;

function mkfsErofsArguments({ file, identity: { uuid, madeAt }, compression }: ToolRequest): string[] {
  const times = [`-T${madeAt}`, '--mkfs-time', '--preserve-mtime'];
  const compress = [`-z${compression}`, `-C${CLUSTER_BYTES}`];
  return ['--quiet', '--tar=f', '-b4096', ...compress, ...times, `-U${uuid}`, file];
}

/** Returns the format by the ending of a file name; undefined for any other ending. */
export function diskFormatOf(fileName: string): DiskFormat | undefined {
  const formats = Object.keys(diskFormats) as DiskFormat[];
  return formats.find((format) => fileName.toLowerCase().endsWith(`.${format}`));
}

/** The UUID and the time of a file system: equal for all disk images of one image. */
export interface DiskIdentity {
  /** The UUID of the file system. */
  readonly uuid: string;
  /** Its creation time in seconds since 1970: that of the image. */
  readonly madeAt: number;
}

/**
 * Derives the identity of a disk from its content.
 *
 * @param content a text that differs if the files of two disks may differ
 * @param created RFC 3339, as in the image's config; without it the time is 0
 */
export function diskIdentityOf(
  format: DiskFormat,
  content: string,
  created: string | undefined,
): DiskIdentity {
  const bytes = createHash('sha256').update(`dlrootfs ${format} ${content}`).digest();
  // RFC 9562: version 8, a vendor-specific UUID.
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const uuid = bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
  const seconds = Math.floor(Date.parse(created ?? '') / 1000);
  return { uuid, madeAt: seconds > 0 && seconds <= UNSIGNED_32_BIT_TIMES.last ? seconds : 0 };
}

/** An entry for the tool's tar, and the metadata to set after the tool ended. */
export interface FittedEntry {
  readonly entry: ImageTreeEntry;
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[];
  /** Undefined if the time in the tar is right. */
  readonly time: Mtime | undefined;
}

const KEPT_ATTRIBUTES = /^(?:user|trusted|security)\.[^]/;

/**
 * Adapts an entry to a format, and to a tar that its tool reads correctly.
 *
 * @param lost counts the metadata that is lost
 */
export function fit(format: DiskFormat, entry: ImageTreeEntry, lost?: NotRestored): FittedEntry {
  const { takesOnly } = diskFormats[format];
  const isFirstName = entry.linkTo === undefined;
  const kept = [...(entry.xattrs ?? [])].filter(([name]) => keeps(format, name, entry));
  const time = fittedTime(format, entry);
  if (lost && isFirstName) {
    lost.xattrs += (entry.xattrs?.size ?? 0) - kept.length;
    if (time.mtimeSeconds !== entry.mtimeSeconds || time.mtimeNanoseconds !== entry.mtimeNanoseconds)
      lost.times += 1;
  }
  if (!takesOnly) return { entry: { ...entry, ...time, xattrs: new Map(kept) }, xattrs: [], time: undefined };
  const xattrs = new Map(kept.filter(([name]) => name === capabilityXattr));
  const later = kept.filter(([name]) => name !== capabilityXattr);
  const mtimeSeconds = clamped(time.mtimeSeconds, takesOnly.times);
  const isExact = mtimeSeconds === time.mtimeSeconds && time.mtimeNanoseconds === 0;
  return {
    entry: { ...entry, xattrs, mtimeSeconds, mtimeNanoseconds: 0 },
    xattrs: isFirstName ? later : [],
    time: isExact || !isFirstName ? undefined : time,
  };
}

function fittedTime(format: DiskFormat, { mtimeSeconds, mtimeNanoseconds }: Mtime): Mtime {
  const { times, hasNanoseconds } = diskFormats[format];
  const seconds = clamped(mtimeSeconds, times);
  const isKept = seconds === mtimeSeconds && hasNanoseconds(seconds);
  return { mtimeSeconds: seconds, mtimeNanoseconds: isKept ? mtimeNanoseconds : 0 };
}

/** True if the format keeps the attribute. In a tar, an equals sign would end the name. */
function keeps(format: DiskFormat, name: string, { type }: ImageTreeEntry): boolean {
  if (name === accessListXattr || name === defaultAccessListXattr) return diskFormats[format].hasAccessLists;
  return isLinuxXattr(name, type) && !name.includes('=');
}

/**
 * True if Linux knows such an attribute, access lists excepted. `user.` exists on files and directories only.
 */
export function isLinuxXattr(name: string, type: ImageTreeEntry['type']): boolean {
  if (!KEPT_ATTRIBUTES.test(name)) return false;
  return type === 'file' || type === 'directory' || !name.startsWith('user.');
}

function clamped(seconds: number, { first, last }: TimeRange): number {
  return Math.min(Math.max(seconds, first), last);
}

/** A directory, or a file if it has content, that a disk has besides the image's files; root owns it. */
export interface GuestFile {
  readonly path: BytePath;
  readonly mode: number;
  readonly content: string | undefined;
}

/** Returns a file of the guest as an entry of a tree. */
export function guestEntry({ path, mode, content }: GuestFile, { madeAt }: DiskIdentity): ImageTreeEntry {
  const size = Buffer.byteLength(content ?? '');
  return {
    path,
    linkTo: undefined,
    inode: 0,
    links: 1,
    type: content === undefined ? 'directory' : 'file',
    mode,
    uid: 0,
    gid: 0,
    size,
    stored: size,
    mtimeSeconds: madeAt,
    mtimeNanoseconds: 0,
    linkPath: '' as BytePath,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
  };
}
