import { noBytes } from './byte-path.ts';
import type { BytePath, Entry, EntryType, SparseExtent } from './entry.ts';
import type { Header } from './header.ts';
import { MalformedTarError } from './malformed.ts';
import { PaxGlobals, inForce } from './pax-scope.ts';
import type { PaxRecords } from './pax.ts';

/** All that stands before an entry's own header. */
export interface MetaHeaders {
  /** Of the last pax header: it replaces earlier ones (GNU tar, bsdtar, Go). */
  readonly pax: PaxRecords | undefined;
  /** Undefined before the first global header. */
  readonly globals: PaxGlobals | undefined;
  /** GNU's `L` and `K`; empty when there was none. */
  readonly longName: BytePath;
  readonly longLink: BytePath;
}

const slash = 0x2f;

/** The kind of file for each type flag; what is not here is a regular file, as POSIX says of types that a reader does not know. */
const entryTypes: readonly (EntryType | undefined)[] = Object.assign(
  Array.from<EntryType | undefined>({ length: 256 }),
  {
    [0x31]: 'hardlink',
    [0x32]: 'symlink',
    [0x33]: 'character',
    [0x34]: 'block',
    [0x35]: 'directory',
    [0x36]: 'fifo',
    // GNU's directory with a list of its files as data.
    [0x44]: 'directory',
  } satisfies Record<number, EntryType>,
);

/** What an entry's path is: GNU's long name before the pax path before the header's, as in Go. */
export function pathOf(header: Header, meta: MetaHeaders): BytePath {
  if (meta.pax?.sparse?.name !== undefined) return meta.pax.sparse.name;
  return meta.longName !== noBytes ? meta.longName : (meta.pax?.path ?? header.path);
}

/** The kind of entry; only a NUL flag with a slash at the end of the path (v7) is a directory in disguise. */
export function typeOf(header: Header, path: string): EntryType {
  if (header.type === 0) return path.charCodeAt(path.length - 1) === slash ? 'directory' : 'file';
  return entryTypes[header.type] ?? 'file';
}

/**
 * The entry that a header and the meta headers before it describe.
 *
 * @throws MalformedTarError for what no file system can hold: a link to nothing, owners beyond 32 bits.
 */
export function composeEntry(
  header: Header,
  meta: MetaHeaders,
  path: BytePath,
  type: EntryType,
  size: number,
  sparse: readonly SparseExtent[] | undefined,
): Entry {
  const isLink = type === 'symlink' || type === 'hardlink';
  const isDevice = type === 'character' || type === 'block';
  const { pax, globals } = meta;
  const mtime = pax === undefined && globals === undefined ? undefined : inForce(pax?.mtime, globals?.mtime);
  const linkPath = isLink ? linkPathOf(header, meta) : noBytes;
  if (isLink && linkPath === noBytes) throw new MalformedTarError('it links to nothing');
  return {
    type,
    path,
    linkPath,
    mode: header.mode & 0o7777,
    uid: owner(inForce(pax?.uid, globals?.uid) ?? header.uid, 'uid'),
    gid: owner(inForce(pax?.gid, globals?.gid) ?? header.gid, 'gid'),
    size,
    mtimeSeconds: mtime === undefined ? header.mtime : mtime.seconds,
    mtimeNanoseconds: mtime === undefined ? 0 : mtime.nanoseconds,
    deviceMajor: isDevice
      ? deviceNumber(inForce(pax?.deviceMajor, globals?.deviceMajor) ?? header.deviceMajor)
      : 0,
    deviceMinor: isDevice
      ? deviceNumber(inForce(pax?.deviceMinor, globals?.deviceMinor) ?? header.deviceMinor)
      : 0,
    xattrs: globals === undefined ? ownXattrs(pax) : globals.withXattrs(pax?.xattrs),
    sparse,
  };
}

function linkPathOf(header: Header, meta: MetaHeaders): BytePath {
  return meta.longLink !== noBytes ? meta.longLink : (meta.pax?.linkPath ?? header.linkPath);
}

function ownXattrs(pax: PaxRecords | undefined): Entry['xattrs'] {
  return pax?.xattrs === undefined ? undefined : new PaxGlobals().withXattrs(pax.xattrs);
}

/** 0 to 2^32 − 1. Small negative numbers (−2 is nobody of old) become what the kernel makes of them, as with Go's readers. */
function owner(id: number, name: string): number {
  if (id >= 0 && id <= 0xffff_ffff) return id;
  if (id < 0 && id >= -0x8000_0000) return id + 0x1_0000_0000;
  throw new MalformedTarError(`its ${name} ${id} does not fit in 32 bits`);
}

function deviceNumber(value: number): number {
  if (value >= 0 && value <= 0xffff_ffff) return value;
  throw new MalformedTarError(`its device number ${value} does not fit in 32 bits`);
}
