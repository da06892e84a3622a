import {
  type BytePath,
  displayPath,
  type Entry,
  type EntryType,
  MalformedTarError,
  noBytes,
  sliceBytes,
  sliceUntilNul,
  type SparseExtent,
} from './entry.ts';
import { type Block, checksumMatches, type Header, parseHeader, sumWords } from './header.ts';
import { inForce, parsePax, PaxGlobals, type PaxRecords } from './pax.ts';
import { oldSparseMap, paxSparseMap, type SparseMap } from './sparse.ts';

/** Most bytes of one meta header (pax records, a long name); Go's archive/tar has the same limit. */
export const maxMetaSize = 1 << 20;

/**
 * What the sequence needs next. `block`: another block. `body`: `size` bytes of a meta header's body. `skip`: skip `size` bytes and their
 * padding. `entry`: nothing, the entry is complete and `size` bytes of its data follow. `end`: nothing, the end mark was reached.
 */
export type Step = 'block' | 'body' | 'skip' | 'entry' | 'end';

const DUMP_DIRECTORY = 0x44;
const OLD_SPARSE = 0x53;

/**
 * The rules by which blocks become entries, without the reading: the caller reads, and passes the blocks and
 * bodies that `Step` requests. Where tools differ, the rules are those of Go's archive/tar, which containerd, docker and umoci use.
 * There are three exceptions: global pax headers count, unknown types are regular files (POSIX), and a meta header needs its entry.
 *
 * All methods throw MalformedTarError.
 */
export class HeaderSequence {
  /** Bytes of the body, of the data, or to skip: see `Step`. */
  size = 0;
  #entry: Entry | undefined;
  #globals: PaxGlobals | undefined;
  #pax: PaxRecords | undefined;
  readonly #longName = new LongName();
  readonly #longLink = new LongName();
  /** Type and path of the header whose body comes next. */
  #bodyType = 0;
  #bodyPath = noBytes;
  #afterZeros = false;
  /** Header, type and map of a sparse file whose map continues in the next block. */
  #sparse: { readonly header: Header; readonly type: EntryType; readonly map: SparseMap } | undefined;
  /** For messages: the current entry and the one before it. */
  #path: BytePath | undefined;
  #previous: BytePath | undefined;

  /** The entry that the last step completed. */
  get entry(): Entry {
    return this.#entry!;
  }

  /** The data of the entry was read: the next block is of the next entry. */
  leaveEntry(): void {
    this.#previous = this.#path ?? this.#previous;
    this.#path = undefined;
  }

  /** Takes the next block. */
  accept({ block, at, words, wordsAt }: Block): Step {
    if (this.#sparse !== undefined) {
      this.#sparse.map.accept(block, at);
      return this.#continueSparse();
    }
    const sum = sumWords(words, wordsAt);
    if (sum === 0) return this.#acceptZeros();
    if (this.#afterZeros)
      throw new MalformedTarError('half an end mark: one block of zeros, then a block that is not');
    if (!checksumMatches(block, at, sum)) {
      throw new MalformedTarError('not a tar header: its checksum is wrong');
    }
    const header = this.#parse(block, at);
    switch (header.type) {
      case 0x78: // x
      case 0x58: // X, Solaris
      case 0x67: // g
      case 0x4c: // L
      case 0x4b: // K
        return this.#wantBody(header);
      case 0x56: // V, the label of a volume
      case 0x41: // A, an access list of Solaris: Linux has none of that kind
        this.size = sizeOf(header.size);
        return 'skip';
      case 0x4d: // M
        this.#path = header.path;
        throw new MalformedTarError('it continues from another volume, which a layer cannot have');
      default:
        return this.#acceptHeader(header, block, at);
    }
  }

  /** Takes the body that the last step asked for; the next step is `block`. */
  acceptBody(body: Buffer): void {
    switch (this.#bodyType) {
      case 0x67:
        (this.#globals ??= new PaxGlobals()).add(parsePax(body, this.#bodyPath));
        break;
      case 0x4c:
        this.#longName.set(body);
        break;
      case 0x4b:
        this.#longLink.set(body);
        break;
      default:
        this.#pax = parsePax(body, this.#bodyPath);
    }
  }

  /** The archive ends here, with or without its end mark. @throws MalformedTarError after a meta header and within a sparse map */
  finish(): void {
    if (this.#sparse !== undefined) throw new MalformedTarError('the archive ends within its sparse map');
    if (this.#pax !== undefined || this.#longName.isSet || this.#longLink.isSet) {
      throw new MalformedTarError('the archive ends after a meta header, without the entry it is for');
    }
  }

  /** The error with the layer and the entry in its message, or the header's offset where no entry is known. */
  located(error: unknown, layer: string, offset: number): unknown {
    if (!(error instanceof MalformedTarError)) return error;
    let place = `header at byte ${offset}`;
    if (this.#path !== undefined && this.#path !== noBytes) place = displayPath(this.#path);
    else if (this.#previous !== undefined) place += `, after ${displayPath(this.#previous)}`;
    return new MalformedTarError(`${layer}: ${place}: ${error.message}`, error);
  }

  #parse(block: Buffer, at: number): Header {
    try {
      return parseHeader(block, at);
    } catch (error) {
      this.#path = sliceUntilNul(block, at, 100);
      throw error;
    }
  }

  #acceptZeros(): Step {
    if (!this.#afterZeros) {
      this.#afterZeros = true;
      return 'block';
    }
    this.finish();
    return 'end';
  }

  #wantBody(header: Header): Step {
    if (header.size > maxMetaSize) {
      this.#path = header.path;
      throw new MalformedTarError(`a meta header of ${header.size} bytes, the limit is ${maxMetaSize}`);
    }
    this.#bodyType = header.type;
    this.#bodyPath = header.path;
    this.size = sizeOf(header.size);
    return 'body';
  }

  #acceptHeader(header: Header, block: Buffer, at: number): Step {
    const path = this.#pathOf(header);
    this.#path = path;
    const type = typeOf(header, path);
    const sparse = this.#pax?.sparse;
    // The size in the pax header counts: a reader that uses the other one sees other entries (CVE-2025-62518).
    const hasData = type === 'file' || header.type === DUMP_DIRECTORY;
    this.size = hasData ? sizeOf(this.#pax?.size ?? header.size) : 0;
    if (header.type === OLD_SPARSE) {
      this.#sparse = { header, type, map: oldSparseMap(block, at, this.size) };
      return this.#continueSparse();
    }
    if (sparse !== undefined) {
      if (type !== 'file') throw new MalformedTarError('it is sparse and not a file');
      this.#sparse = { header, type, map: paxSparseMap(sparse, this.size) };
      return this.#continueSparse();
    }
    return this.#complete(header, type, type === 'file' ? this.size : 0, undefined);
  }

  #continueSparse(): Step {
    const { header, type, map } = this.#sparse!;
    if (map.wantsBlock) return 'block';
    const file = map.file();
    this.size = file.stored;
    this.#sparse = undefined;
    return this.#complete(header, type, file.size, file.extents);
  }

  /** The path of an entry: GNU's long name, else the pax path, else the header's, as in Go. */
  #pathOf(header: Header): BytePath {
    if (this.#pax?.sparse?.name !== undefined) return this.#pax.sparse.name;
    return this.#longName.isSet ? this.#longName.path : (this.#pax?.path ?? header.path);
  }

  #linkPathOf(header: Header): BytePath {
    const path = this.#longLink.isSet ? this.#longLink.path : (this.#pax?.linkPath ?? header.linkPath);
    if (path === noBytes) throw new MalformedTarError('it links to nothing');
    return path;
  }

  /**
   * Composes the entry that a header and the meta headers before it describe.
   *
   * @throws MalformedTarError for what no file system can hold: a link to nothing, owners beyond 32 bits
   */
  #complete(
    header: Header,
    type: EntryType,
    size: number,
    sparse: readonly SparseExtent[] | undefined,
  ): 'entry' {
    const isLink = type === 'symlink' || type === 'hardlink';
    const isDevice = type === 'character' || type === 'block';
    const pax = this.#pax;
    const globals = this.#globals;
    const mtime = pax || globals ? inForce(pax?.mtime, globals?.mtime) : undefined;
    const major = isDevice ? (inForce(pax?.deviceMajor, globals?.deviceMajor) ?? header.deviceMajor) : 0;
    const minor = isDevice ? (inForce(pax?.deviceMinor, globals?.deviceMinor) ?? header.deviceMinor) : 0;
    this.#entry = {
      type,
      path: this.#path!,
      linkPath: isLink ? this.#linkPathOf(header) : noBytes,
      mode: header.mode & 0o7777,
      uid: owner(inForce(pax?.uid, globals?.uid) ?? header.uid, 'uid'),
      gid: owner(inForce(pax?.gid, globals?.gid) ?? header.gid, 'gid'),
      size,
      mtimeSeconds: mtime === undefined ? header.mtime : mtime.seconds,
      mtimeNanoseconds: mtime === undefined ? 0 : mtime.nanoseconds,
      deviceMajor: deviceNumber(major),
      deviceMinor: deviceNumber(minor),
      xattrs: globals ? globals.withXattrs(pax?.xattrs) : ownXattrs(pax),
      sparse,
    };
    this.#forget();
    return 'entry';
  }

  #forget(): void {
    this.#pax = undefined;
    this.#longName.clear();
    this.#longLink.clear();
  }
}

function sizeOf(size: number): number {
  if (size < 0) throw new MalformedTarError(`its size ${size} is negative`);
  return size;
}

/** The body of GNU's `L` or `K`, up to its first NUL, in memory that is used again: only the last one before an entry becomes a string. */
class LongName {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;

  /** Takes a copy; an empty name changes nothing. */
  set(body: Buffer): void {
    const nul = body.indexOf(0);
    const length = nul === -1 ? body.length : nul;
    if (length === 0) return;
    if (this.#bytes.length < length) this.#bytes = Buffer.allocUnsafeSlow(length);
    body.copy(this.#bytes, 0, 0, length);
    this.#length = length;
  }

  get isSet(): boolean {
    return this.#length > 0;
  }

  get path(): BytePath {
    return sliceBytes(this.#bytes, 0, this.#length);
  }

  clear(): void {
    this.#length = 0;
  }
}

const slash = 0x2f;

/** The entry type for each type flag. POSIX: a flag that is not listed means a regular file. */
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

/** The type of an entry. In v7, a NUL flag and a slash at the end of the path mean a directory. */
function typeOf(header: Header, path: string): EntryType {
  if (header.type === 0) return path.charCodeAt(path.length - 1) === slash ? 'directory' : 'file';
  return entryTypes[header.type] ?? 'file';
}

function ownXattrs(pax: PaxRecords | undefined): Entry['xattrs'] {
  return pax?.xattrs === undefined ? undefined : new PaxGlobals().withXattrs(pax.xattrs);
}

/** 0 to 2^32 − 1. A small negative number (−2 was the user nobody) becomes the kernel's unsigned one, as in Go's readers. */
function owner(id: number, name: string): number {
  if (id >= 0 && id <= 0xffff_ffff) return id;
  if (id < 0 && id >= -0x8000_0000) return id + 0x1_0000_0000;
  throw new MalformedTarError(`its ${name} ${id} does not fit in 32 bits`);
}

function deviceNumber(value: number): number {
  if (value >= 0 && value <= 0xffff_ffff) return value;
  throw new MalformedTarError(`its device number ${value} does not fit in 32 bits`);
}
