import { IntegrityError, printable } from '../errors.ts';

/**
 * A path as in the archive: one character per byte (latin1), any byte but NUL. Decode it as UTF-8 only for
 * messages.
 */
export type BytePath = string & { readonly bytePath: unique symbol };

export type EntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo';

/** The type of an inode: a hard link is another name of one. */
export type InodeType = Exclude<EntryType, 'hardlink'>;

/** An owner of files, as numbers. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Returns true if files of this type have a device number. */
export function isDevice(type: string): type is 'character' | 'block' {
  return type === 'character' || type === 'block';
}

/** A range of data in a sparse file; between ranges the file reads as zeros. */
export interface SparseExtent {
  readonly offset: number;
  readonly length: number;
}

/** One entry of a tar archive, with the headers before it (pax, GNU) applied. */
export interface Entry {
  readonly type: EntryType;
  /** Path, not normalised: it may be absolute, climb, end in a slash, or name a whiteout. */
  readonly path: BytePath;
  /** Target of a symlink or hard link, else empty. */
  readonly linkPath: BytePath;
  /** The low twelve bits of the mode. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size of the file on disk, with its holes, in bytes; 0 for all other types. */
  readonly size: number;
  /** Seconds since 1970, may be negative; `mtimeNanoseconds` (0 to 999,999,999) is added to it. */
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /**
   * Values by full name (`security.capability`, also a byte string), in archive order; undefined: none. An
   * access list with names instead of numbers is unchanged under its record's key (`textKeys`).
   */
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Ranges of data; undefined for a file without holes. */
  readonly sparse: readonly SparseExtent[] | undefined;
}

/** Bytes of a tar archive, read synchronously. */
export interface ByteSource {
  /**
   * Returns the next bytes, at least one and at most `max`; undefined at the end. Valid until the next call.
   */
  read(max: number): Uint8Array | undefined;
}

/** Entries of one archive, read synchronously, in archive order. */
export interface EntryReader {
  /** Returns the next entry, or undefined after the end mark. Skips the rest of the entry before. */
  next(): Entry | undefined;
  /**
   * Returns more of the current file's stored data (extents back to back when sparse); undefined at its end.
   * The view is valid until the next call.
   */
  data(): Uint8Array | undefined;
}

/** Buffer's decoder of this encoding alone: half the time of `toString('latin1', start, end)`. */
interface Latin1Slice {
  latin1Slice(start: number, end: number): BytePath;
}

/** Returns the bytes from `start` to `end`, one character each. */
export function sliceBytes(bytes: Buffer, start: number, end: number): BytePath {
  return (bytes as unknown as Latin1Slice).latin1Slice(start, end);
}

/** Returns the bytes up to the first NUL, at most `length` of them. */
export function sliceUntilNul(bytes: Buffer, start: number, length: number): BytePath {
  if (length === 0 || bytes[start] === 0) return noBytes;
  const limit = start + length;
  let end = start + 1;
  while (end < limit && bytes[end] !== 0) end += 1;
  return sliceBytes(bytes, start, end);
}

/**
 * Returns the first index of `byte` from `start` to `end`, or -1. For a few bytes the loop is faster than
 * the native search.
 */
export function indexOfByte(bytes: Buffer, byte: number, start: number, end: number): number {
  for (let index = start; index < end; index += 1) if (bytes[index] === byte) return index;
  return -1;
}

export const noBytes = '' as BytePath;

/** Converts a name from a user to the UTF-8 bytes that it has on disk. */
export function bytePath(text: string): BytePath {
  return Buffer.from(text).toString('latin1') as BytePath;
}

/** Decodes a path as UTF-8 and escapes it for a terminal, for messages. */
export function displayPath(path: string): string {
  return printable(Buffer.from(path, 'latin1').toString());
}

/**
 * The archive breaks tar's rules. Parsers of single parts state only the fault. `TarReader` adds the layer
 * and the entry.
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
