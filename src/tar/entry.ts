import { IntegrityError, printable } from '../errors.ts';

/** A path as the archive has it: one character per byte (latin1), any byte but NUL. Decode as UTF-8 only for people. */
export type BytePath = string & { readonly bytePath: unique symbol };

export type EntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo';

/** What an inode is: a hard link is a further name of one. */
export type InodeType = Exclude<EntryType, 'hardlink'>;

/** Whether it has a device number. */
export function isDevice(type: string): type is 'character' | 'block' {
  return type === 'character' || type === 'block';
}

/** A stretch of data in a sparse file; between stretches the file reads as zeros. */
export interface SparseExtent {
  readonly offset: number;
  readonly length: number;
}

/** One entry of a tar archive, all headers before it (pax, GNU) already applied. */
export interface Entry {
  readonly type: EntryType;
  /** Not normalised: may be absolute, climb, end in a slash, or name a whiteout. */
  readonly path: BytePath;
  /** Target of a symlink or hard link, else empty. */
  readonly linkPath: BytePath;
  /** The low twelve bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size of the file once written (with its holes), in bytes; 0 for everything but files. */
  readonly size: number;
  /** Seconds since 1970, may be negative; `mtimeNanoseconds` (0 to 999,999,999) is added to it. */
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /**
   * Full name (`security.capability`, a byte string too) to value, in archive order; undefined when there is none. An access list with
   * names instead of numbers is kept unchanged under its record's key (`textKeys`).
   */
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Undefined for a file without holes. */
  readonly sparse: readonly SparseExtent[] | undefined;
}

/** Tar bytes, pulled synchronously. */
export interface ByteSource {
  /** The next bytes, at most `max`, at least one; undefined at the end. The view is valid until the next call. */
  read(max: number): Uint8Array | undefined;
}

/** Entries of one archive, pulled synchronously, in archive order. */
export interface EntryReader {
  /** The next entry, or undefined after the end mark; skips what was not read of the one before. */
  next(): Entry | undefined;
  /** More of the current file's stored data (extents back to back when sparse); undefined at its end. The view is valid until the next call. */
  data(): Uint8Array | undefined;
}

/** Buffer's own decoder of one encoding: half the time of `toString('latin1', start, end)`. */
interface Latin1Slice {
  latin1Slice(start: number, end: number): BytePath;
}

/** The bytes from `start` to `end` as they are, one character each. */
export function sliceBytes(bytes: Buffer, start: number, end: number): BytePath {
  return (bytes as unknown as Latin1Slice).latin1Slice(start, end);
}

/** Bytes up to the first NUL, at most `length` of them. */
export function sliceUntilNul(bytes: Buffer, start: number, length: number): BytePath {
  if (length === 0 || bytes[start] === 0) return noBytes;
  const limit = start + length;
  let end = start + 1;
  while (end < limit && bytes[end] !== 0) end += 1;
  return sliceBytes(bytes, start, end);
}

/** Where `byte` is first, from `start` to `end`; −1: nowhere. A loop: the native search costs more than the few bytes there are to look at. */
export function indexOfByte(bytes: Buffer, byte: number, start: number, end: number): number {
  for (let index = start; index < end; index += 1) if (bytes[index] === byte) return index;
  return -1;
}

export const noBytes = '' as BytePath;

/** A name that people wrote, as the UTF-8 bytes it has on disk. */
export function bytePath(text: string): BytePath {
  return Buffer.from(text).toString('latin1') as BytePath;
}

/** For messages: decoded as UTF-8 and harmless to a terminal. */
export function displayPath(path: string): string {
  return printable(Buffer.from(path, 'latin1').toString());
}

/**
 * The archive breaks tar's rules. Parsers of single parts say only what is wrong; `TarReader` adds the layer and the entry.
 */
export class MalformedTarError extends IntegrityError {
  constructor(message: string, cause?: unknown) {
    super(message, {
      code: 'MALFORMED_TAR',
      hint: 'pull again; if it fails again, the layer is malformed: report it to the publisher of the image',
      cause,
    });
  }
}
