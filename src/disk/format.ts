import { createHash } from 'node:crypto';
import type { TarDialect } from '../archive/flatten.ts';
import type { Mtime } from '../rootfs/filesystem.ts';
import type { ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { accessList, defaultAccessList } from '../tar/access-list.ts';
import type { BytePath } from '../tar/entry.ts';
import { type Ext4Layout, Ext4Usage, mke2fsArguments, mke2fsEnvironment } from './ext4.ts';
import { capability } from '../rootfs/metadata.ts';

/** File systems that a disk image can have, by the ending of its file's name. */
export type DiskFormat = 'ext4' | 'squashfs' | 'erofs';

/** What mkfs.erofs compresses with, if it is built with it. */
export type ErofsCompression = 'lz4' | 'lz4hc' | 'deflate' | 'lzma' | 'zstd';

/** The program that makes a file system from a tar. */
interface ToolDescription {
  readonly program: string;
  readonly versionFlag: string;
  readonly oldest: readonly [major: number, minor: number, patch: number];
  /** Of Debian, first the one with the program. */
  readonly packages: readonly [string, ...string[]];
}

/** A tool's arguments are made of these. */
interface ToolRequest {
  /** The file that it writes. */
  readonly file: string;
  readonly identity: DiskIdentity;
  /** The root, as the format has it. */
  readonly root: ImageTreeEntry;
  /** For formats with `usage`. */
  readonly layout: Ext4Layout | undefined;
  /** Of an erofs: only a compressed one is made by a tool. */
  readonly compression: ErofsCompression | undefined;
}

/** How to find out whether a tool reads tars. */
interface TarTrial {
  /** For an empty tar. */
  readonly arguments: (file: string) => readonly string[];
  /** Is in its messages where it reads none. */
  readonly library: string;
  readonly hint: string;
}

/** Seconds since 1970 that a tool and its file system take. */
interface TimeRange {
  readonly first: number;
  readonly last: number;
}

/** A file system, and how its tool makes it. */
interface FormatDescription {
  readonly tool: ToolDescription;
  readonly arguments: (request: ToolRequest) => readonly string[];
  readonly environment: (madeAt: number) => Readonly<Record<string, string>>;
  /** Of a tool that may be built without a reader of tars, or not find it. */
  readonly trial: TarTrial | undefined;
  /** The tar that the tool reads. */
  readonly tar: TarDialect;
  /** False: the tool gets the root's metadata as arguments. */
  readonly rootInTar: boolean;
  /** The tool copies all files before it writes them, and its message for a full disk is unclear. */
  readonly copiesFiles: boolean;
  /** Without free room it has the size of its content, and no other. */
  readonly isReadOnly: boolean;
  /** Adds up a size that the tool has to be told. */
  readonly usage: (() => Ext4Usage) | undefined;
  readonly hasAccessLists: boolean;
  readonly times: TimeRange;
  /** Whether a time of these seconds has nanoseconds. */
  readonly hasNanoseconds: (seconds: number) => boolean;
  /** The tool takes only these times and capabilities from a tar; debugfs sets other times and attributes. Undefined: it takes all. */
  readonly takesOnly: { readonly times: TimeRange } | undefined;
}

const UNSIGNED_32_BITS: TimeRange = { first: 0, last: 2 ** 32 - 1 };

/** All that is known of each format. The tools misread some valid tars: e2fsprogs 1.47.2, squashfs-tools 4.6.1, erofs-utils 1.8.6. */
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
    times: UNSIGNED_32_BITS,
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
    // mkfs.erofs reads the fraction of a time before 1970 the wrong way.
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

/** What is compressed together, at most: Linux 5.13 reads more than a block. */
const CLUSTER_BYTES = 65_536;

function mkfsErofsArguments({ file, identity: { uuid, madeAt }, compression }: ToolRequest): string[] {
  const times = [`-T${madeAt}`, '--mkfs-time', '--preserve-mtime'];
  const compress = [`-z${compression}`, `-C${CLUSTER_BYTES}`];
  return ['--quiet', '--tar=f', '-b4096', ...compress, ...times, `-U${uuid}`, file];
}

/** The format that the name of a file asks for; undefined for any other ending. */
export function diskFormatOf(fileName: string): DiskFormat | undefined {
  const formats = Object.keys(diskFormats) as DiskFormat[];
  return formats.find((format) => fileName.toLowerCase().endsWith(`.${format}`));
}

/** These are equal for all disk images of one image. */
export interface DiskIdentity {
  /** Of the file system. */
  readonly uuid: string;
  /** When it was made, in seconds since 1970: the image's own time. */
  readonly madeAt: number;
}

/**
 * The identity of a disk, derived from what is in it.
 *
 * @param content a text that differs where the files of two disks may differ
 * @param created RFC 3339, as the image's config has it; without it the file system is of 1970
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
  return { uuid, madeAt: seconds > 0 && seconds <= UNSIGNED_32_BITS.last ? seconds : 0 };
}

/** An entry for the tar that a tool reads, and what else has to be set when the tool has ended. */
export interface FittedEntry {
  readonly entry: ImageTreeEntry;
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[];
  /** Undefined: the tar's time is right. */
  readonly time: Mtime | undefined;
}

const KEPT_ATTRIBUTES = /^(?:user|trusted|security)\.[^]/;

/**
 * Makes an entry fit for a format and a tar that its tool reads right.
 *
 * @param lost what of it is lost is added here
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
  const xattrs = new Map(kept.filter(([name]) => name === capability));
  const later = kept.filter(([name]) => name !== capability);
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

/** An equals sign would end the name in a tar's record. */
function keeps(format: DiskFormat, name: string, { type }: ImageTreeEntry): boolean {
  if (name === accessList || name === defaultAccessList) return diskFormats[format].hasAccessLists;
  return isLinuxAttribute(name, type) && !name.includes('=');
}

/** Whether Linux has such an attribute, apart from access lists: those of users are on files and directories only. */
export function isLinuxAttribute(name: string, type: ImageTreeEntry['type']): boolean {
  if (!KEPT_ATTRIBUTES.test(name)) return false;
  return type === 'file' || type === 'directory' || !name.startsWith('user.');
}

function clamped(seconds: number, { first, last }: TimeRange): number {
  return Math.min(Math.max(seconds, first), last);
}

/** A directory, or a file with a content, that a disk has besides those of the image; root owns it. */
export interface Addition {
  readonly path: BytePath;
  readonly mode: number;
  readonly content: string | undefined;
}

/** As an entry of a tree. */
export function additionEntry({ path, mode, content }: Addition, { madeAt }: DiskIdentity): ImageTreeEntry {
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
