import { createHash } from 'node:crypto';
import type { Mtime } from '../rootfs/filesystem.ts';
import type { TreeEntry } from '../rootfs/image-tree.ts';
import { nothingLost, type NotRestored } from '../rootfs/not-restored.ts';
import type { BytePath } from '../tar/entry.ts';

/** File systems that a disk image can have, by the ending of its file's name. */
export const diskFormats = ['ext4', 'squashfs', 'erofs'] as const;
export type DiskFormat = (typeof diskFormats)[number];

/** The format that the name of a file asks for; undefined for any other ending. */
export function diskFormatOf(fileName: string): DiskFormat | undefined {
  return diskFormats.find((format) => fileName.toLowerCase().endsWith(`.${format}`));
}

/** These are equal for all disk images of one image. */
export interface DiskIdentity {
  /** Of the file system. */
  readonly uuid: string;
  /** When it was made, in seconds since 1970: the image's own time. */
  readonly madeAt: number;
}

/**
 * @param imageID 64 hex digits
 * @param created RFC 3339, as the image's config has it; without it the file system is of 1970
 */
export function identityOf(format: DiskFormat, imageID: string, created: string | undefined): DiskIdentity {
  const bytes = createHash('sha256').update(`dlrootfs ${format} ${imageID}`).digest();
  // RFC 9562: version 8, a vendor-specific UUID.
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const uuid = bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, '$1-$2-$3-$4-$5');
  const seconds = Math.floor(Date.parse(created ?? '') / 1000);
  return { uuid, madeAt: seconds > 0 && seconds <= squashfsTimes.last ? seconds : 0 };
}

/** Seconds since 1970 that a tool and its file system take. */
interface TimeRange {
  readonly first: number;
  readonly last: number;
}

const squashfsTimes: TimeRange = { first: 0, last: 2 ** 32 - 1 };
/** What mke2fs takes of a tar's times; debugfs sets others, up to the last that the file system has. */
const mke2fsTimes: TimeRange = { first: -(2 ** 31), last: 2 ** 31 - 1 };
const ext4Times: TimeRange = { first: -(2 ** 31), last: 2 ** 34 - 2 ** 31 - 1 };
const erofsTimes: TimeRange = { first: -Number.MAX_SAFE_INTEGER, last: Number.MAX_SAFE_INTEGER };

/** An entry for the tar that a tool reads, and what else has to be set when the tool has ended. */
export interface FittedEntry {
  readonly entry: TreeEntry;
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[];
  /** Undefined: the tar's time is right. */
  readonly time: Mtime | undefined;
}

const capability = 'security.capability';
const KEPT_ATTRIBUTES = /^(?:user|trusted|security)\.[^]/;
const ACCESS_LISTS: ReadonlySet<string> = new Set(['system.posix_acl_access', 'system.posix_acl_default']);

/**
 * Makes entries fit for a format and its tool, and counts what of them is lost. The tools misread some valid parts of a tar
 * (e2fsprogs 1.47.2, squashfs-tools 4.6.1, erofs-utils 1.8.6), so they get a tar without them.
 */
export class Fitting {
  readonly lost: NotRestored;
  readonly #format: DiskFormat;

  constructor(format: DiskFormat, alreadyLost: Readonly<NotRestored> = nothingLost()) {
    this.#format = format;
    this.lost = { ...alreadyLost };
  }

  fit(entry: TreeEntry): FittedEntry {
    const isFirstName = entry.linkTo === undefined;
    const kept = [...(entry.xattrs ?? [])].filter(([name]) => this.#keeps(name, entry));
    if (isFirstName) this.lost.xattrs += (entry.xattrs?.size ?? 0) - kept.length;
    const time = this.#time(entry, isFirstName);
    if (this.#format !== 'ext4')
      return { entry: { ...entry, ...time, xattrs: new Map(kept) }, xattrs: [], time: undefined };
    const xattrs = new Map(kept.filter(([name]) => name === capability));
    const later = kept.filter(([name]) => name !== capability);
    const mtimeSeconds = clamped(time.mtimeSeconds, mke2fsTimes);
    const isExact = mtimeSeconds === time.mtimeSeconds && time.mtimeNanoseconds === 0;
    return {
      entry: { ...entry, xattrs, mtimeSeconds, mtimeNanoseconds: 0 },
      xattrs: isFirstName ? later : [],
      time: isExact || !isFirstName ? undefined : time,
    };
  }

  #time(entry: TreeEntry, counted: boolean): Mtime {
    const { mtimeSeconds, mtimeNanoseconds } = entry;
    const range = { ext4: ext4Times, squashfs: squashfsTimes, erofs: erofsTimes }[this.#format];
    const seconds = clamped(mtimeSeconds, range);
    // mkfs.erofs reads the fraction of a time before 1970 the wrong way.
    const isWhole = this.#format === 'squashfs' || (this.#format === 'erofs' && seconds < 0);
    const nanoseconds = isWhole || seconds !== mtimeSeconds ? 0 : mtimeNanoseconds;
    if (counted && (seconds !== mtimeSeconds || nanoseconds !== mtimeNanoseconds)) this.lost.times += 1;
    return { mtimeSeconds: seconds, mtimeNanoseconds: nanoseconds };
  }

  /** An equals sign would end the name in a tar's record. Linux has attributes of users on files and directories only. */
  #keeps(name: string, { type }: TreeEntry): boolean {
    if (ACCESS_LISTS.has(name)) return this.#format !== 'squashfs';
    if (!KEPT_ATTRIBUTES.test(name) || name.includes('=')) return false;
    return type === 'file' || type === 'directory' || !name.startsWith('user.');
  }
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
export function additionEntry({ path, mode, content }: Addition, { madeAt }: DiskIdentity): TreeEntry {
  return {
    path,
    linkTo: undefined,
    inode: 0,
    links: 1,
    type: content === undefined ? 'directory' : 'file',
    mode,
    uid: 0,
    gid: 0,
    size: Buffer.byteLength(content ?? ''),
    mtimeSeconds: madeAt,
    mtimeNanoseconds: 0,
    linkPath: '' as BytePath,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
  };
}
