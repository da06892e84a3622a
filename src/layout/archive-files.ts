import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { addAbortSignal, Readable } from 'node:stream';
import { Parser, type ReadEntry } from 'tar';
import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { compressionOf, type Decompress, MAGIC_LENGTH } from '../oci/compression.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { osPath } from '../sys/os-path.ts';
import { explainOsError } from '../sys/os-error.ts';
import { namelessFile } from '../sys/temp-file.ts';
import type { BytePath } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES } from '../tar/header.ts';
import { normalize } from '../tar/layer-path.ts';
import { openRegular, partOfFile, readRange, type LayoutFile, type LayoutFiles } from './layout-files.ts';

const MAX_MEMBER_LINKS = 16;

/**
 * Opens the files of a layout in a tar archive, plain or compressed, in a file or a stream. One pass over the
 * headers finds them; they are read at their positions in the archive. A compressed archive or a stream is
 * first unpacked to an unnamed file.
 *
 * @throws NotFoundError, IntegrityError, DestinationError
 */
export async function openArchive(
  archive: string | AsyncIterable<Uint8Array>,
  name: string,
  options: SpoolOptions,
): Promise<LayoutFiles> {
  const handle = await (typeof archive === 'string'
    ? openPlain(archive, name, options)
    : spool(archive, name, options));
  try {
    const { size: length } = await handle.stat();
    if (length === 0) {
      throw new NotFoundError(`${name} is empty`, {
        code: 'NOT_AN_IMAGE',
        hint: 'save or copy the image again',
      });
    }
    const index = indexArchive(handle.fd, length, name);
    const find: LayoutFiles['find'] = async (path) => {
      const extent = resolve(index, path, name);
      if (extent === undefined) return undefined;
      const { offset, size } = extent;
      const read: LayoutFile['read'] = (start, end, signal) =>
        readRange(handle, offset + start, offset + Math.min(end, size), signal);
      const open = async () => partOfFile(handle, offset, size, () => Promise.resolve());
      return { size, read, open };
    };
    return { name, signal: options.signal, find, close: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Follows links to other members, which old versions of `docker save` wrote; they may lead nowhere. */
function resolve(index: ArchiveIndex, path: string, name: string): Extent | undefined {
  let place: string = normalize(path as BytePath);
  for (let links = 0; links < MAX_MEMBER_LINKS; links += 1) {
    const member = index.get(place);
    if (typeof member !== 'string') return member;
    place = member;
  }
  throw new IntegrityError(`${name} has a loop of links at ${printable(path)}`);
}

/** Opens the archive itself if it is plain, else its unpacked copy. */
async function openPlain(file: string, name: string, options: SpoolOptions): Promise<FileHandle> {
  const { handle, size } = await openRegular(osPath(file), file);
  let plain = false;
  try {
    plain = await startsPlain(handle);
    return plain ? handle : await spool(readRange(handle, 0, size, options.signal), name, options);
  } finally {
    if (!plain) await handle.close();
  }
}

async function startsPlain(handle: FileHandle): Promise<boolean> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_LENGTH), 0, MAGIC_LENGTH, 0);
  return compressionOf(buffer.subarray(0, bytesRead)) === 'none';
}

/** The position of a member's bytes in the archive. */
export interface Extent {
  readonly offset: number;
  readonly size: number;
}

/** Members by normalised path: the position of a file, or the path that a link leads to. */
export type ArchiveIndex = ReadonlyMap<string, Extent | string>;

/** Limit on members; archives of images have a few files per layer. */
const MAX_MEMBERS = 500_000;

/**
 * Finds the members of a plain tar of `size` bytes by its headers. The package `tar` parses these; instead of
 * contents it gets zeros. Of members with the same path the last one counts, as when the archive is unpacked.
 *
 * @throws IntegrityError if the archive is corrupt, cut off or has sparse members
 */
export function indexArchive(descriptor: number, size: number, name: string): ArchiveIndex {
  const members = new Map<string, Extent | string>();
  for (const [entry, offset] of readHeaders(descriptor, name)) {
    const member = memberOf(entry, offset);
    if (typeof member === 'object' && member.offset + member.size > size) {
      throw new IntegrityError(`${name} is cut off: it ends within ${printable(entry.path)}`, {
        code: 'TRUNCATED_ARCHIVE',
        hint: 'save or copy the image again',
      });
    }
    if (member !== undefined) members.set(normalize(entry.path as BytePath), member);
    if (members.size > MAX_MEMBERS) throw new IntegrityError(`${name} has more than ${MAX_MEMBERS} members`);
  }
  return members;
}

/** Yields the entries of an archive file, each with the position of its content. */
function* readHeaders(descriptor: number, name: string): Generator<[entry: ReadEntry, offset: number]> {
  const headers = new HeaderParser(name);
  for (;;) {
    const block = Buffer.alloc(TAR_BLOCK_BYTES);
    const length = readSync(descriptor, block, 0, TAR_BLOCK_BYTES, headers.position);
    if (length === 0) {
      headers.requireEnd();
      return;
    }
    if (length < TAR_BLOCK_BYTES) throw headers.malformed('the archive ends within a header block');
    const entry = headers.take(block);
    if (headers.isOver) return;
    if (entry === undefined) continue;
    yield [entry, headers.position];
    headers.skipContent(entry);
  }
}

/** Gives the headers of an archive, block by block, to the parser of the package `tar`. */
class HeaderParser {
  /** The position of the next byte to read. */
  position = 0;
  /** True after the end mark. */
  isOver = false;
  readonly #name: string;
  readonly #parser = new Parser({ strict: true, zstd: false });
  /** The entry that the last block completed. */
  #entry: ReadEntry | undefined;
  #failure: Error | undefined;
  /** The numbers of blocks since the last entry: of zeros, and of headers about the next entry. */
  #zeros = 0;
  #meta = 0;
  #isSparse = false;

  constructor(name: string) {
    this.#name = name;
    for (const event of ['entry', 'ignoredEntry'] as const) {
      this.#parser.on(event, (found: ReadEntry) => {
        this.#entry = found;
        found.resume();
      });
    }
    this.#parser.on('meta', (records: string) => (this.#isSparse ||= /^\d+ GNU\.sparse\./m.test(records)));
    this.#parser.on('nullBlock', () => (this.#zeros += 1));
    this.#parser.on('eof', () => (this.isOver = true));
    this.#parser.on('error', (error: unknown) => (this.#failure ??= error as Error));
  }

  /**
   * Takes the next block. Returns the entry that it completes, if it does.
   *
   * @throws IntegrityError
   */
  take(block: Buffer): ReadEntry | undefined {
    if (this.position === 0 && compressionOf(block) !== 'none') throw this.malformed('not a tar header');
    const isAfterZeros = this.#zeros > 0;
    this.#feed(block);
    this.position += TAR_BLOCK_BYTES;
    if (this.isOver) return undefined;
    if (isAfterZeros)
      throw this.malformed('data follows a single block of zeros, which is half of an end mark');
    if (this.#entry === undefined) this.#meta += this.#zeros > 0 ? 0 : 1;
    else this.#check(this.#entry);
    return this.#entry;
  }

  #check(entry: ReadEntry): void {
    if (entry.meta)
      throw this.malformed(`a meta header of ${entry.size} bytes, the limit is ${MAX_META_BYTES}`);
    if (this.#isSparse || entry.type === 'SparseFile') {
      throw new IntegrityError(`${this.#name} has the sparse member ${printable(entry.path)}`, {
        hint: 'make the archive again without --sparse',
      });
    }
    if (!Number.isSafeInteger(entry.header.size))
      throw this.malformed(`the size of ${printable(entry.path)} is not a whole number from 0 up`);
  }

  /** Goes on behind the content of an entry: the parser gets zeros in its place. */
  skipContent({ startBlockSize }: ReadEntry): void {
    for (let rest = startBlockSize; rest > 0; rest -= ZEROS.length) this.#feed(ZEROS.subarray(0, rest));
    this.position += startBlockSize;
    [this.#entry, this.#meta, this.#isSparse] = [undefined, 0, false];
  }

  /** @throws IntegrityError where an archive without an end mark cannot end: after a header about an entry */
  requireEnd(): void {
    if (this.#meta > 0) throw this.malformed('the archive ends before the entry of a header');
  }

  malformed(reason: string): IntegrityError {
    return new IntegrityError(`${this.#name}: header at byte ${this.position}: ${reason}`, {
      code: 'MALFORMED_TAR',
      hint: 'save or copy the image again',
    });
  }

  #feed(bytes: Buffer): void {
    this.#parser.write(bytes);
    if (this.#failure !== undefined)
      throw this.malformed(`not a tar header (${printable(this.#failure.message, 80)})`);
  }
}

/** The limit of the package. */
const MAX_META_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(1024 * 1024);

function memberOf(entry: ReadEntry, offset: number): Extent | string | undefined {
  switch (entry.type) {
    case 'File':
    case 'OldFile':
    case 'ContiguousFile':
      return { offset, size: entry.size };
    case 'SymbolicLink':
      return symlinkTarget(entry);
    case 'Link':
      return normalize((entry.linkpath ?? '') as BytePath);
    default:
      return undefined;
  }
}

/**
 * Returns the target of a symlink, relative to its directory and within the archive: an absolute path, or one
 * that leads outside, starts at the archive's root.
 */
function symlinkTarget({ path, linkpath = '' }: ReadEntry): string {
  if (linkpath.startsWith('/')) return normalize(linkpath as BytePath);
  return normalize(`${path.slice(0, path.lastIndexOf('/') + 1)}${linkpath}` as BytePath);
}

async function namelessFileIn(name: string): Promise<FileHandle> {
  using directory = OpenDirectory.open(name);
  return await namelessFile(directory);
}

export interface SpoolOptions {
  /** An existing directory for the unnamed file. */
  readonly spoolDirectory: string;
  readonly decompress: Decompress;
  readonly signal: AbortSignal;
}

/**
 * Writes the decompressed bytes of an archive to an unnamed file.
 *
 * @throws errors of `decompress`; DestinationError if the file cannot be written
 */
async function spool(
  input: AsyncIterable<Uint8Array>,
  name: string,
  { spoolDirectory, decompress, signal }: SpoolOptions,
): Promise<FileHandle> {
  const explained = (error: unknown): unknown =>
    explainOsError(
      error,
      `write a temporary file in ${printable(spoolDirectory)}`,
      'run it where there is more space: a compressed archive, or one on standard input, is unpacked there first',
    );
  const handle = await namelessFileIn(spoolDirectory).catch((error: unknown) => {
    throw explained(error);
  });
  const readable = input instanceof Readable ? input : Readable.from(input, { objectMode: false });
  try {
    await handle.writeFile(decompress(addAbortSignal(signal, readable), name), { signal });
    return handle;
  } catch (error) {
    await handle.close();
    signal.throwIfAborted();
    throw explained(error);
  } finally {
    readable.destroy();
  }
}
