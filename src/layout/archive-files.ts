import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { addAbortSignal, Readable } from 'node:stream';
import { Parser, type ReadEntry } from 'tar';
import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { compressionOf, type Decompress, MAGIC_LENGTH } from '../oci/compression.ts';
import { explainOsError } from '../sys/os-error.ts';
import { namelessFile } from '../sys/temp-file.ts';
import type { BytePath } from '../tar/entry.ts';
import { BLOCK_SIZE } from '../tar/header.ts';
import { normalize } from '../tar/layer-path.ts';
import { openRegular, readRange, type LayoutFile, type LayoutFiles } from './layout-files.ts';

const MOST_LINKS = 16;

/**
 * The files of a layout in a tar archive, plain or compressed, in a file or as a stream: one pass over the headers finds them, then they are
 * read from their positions in the archive. It is first unpacked to an unnamed file where it cannot be read directly.
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
      return { size, read };
    };
    return { name, signal: options.signal, find, close: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Follows links, as `docker save` once wrote them, which lead to other members or nowhere. */
function resolve(index: ArchiveIndex, path: string, name: string): Extent | undefined {
  let place: string = normalize(path as BytePath);
  for (let links = 0; links < MOST_LINKS; links += 1) {
    const member = index.get(place);
    if (typeof member !== 'string') return member;
    place = member;
  }
  throw new IntegrityError(`${name} has a loop of links at ${printable(path)}`);
}

/** The archive itself if it is plain, else its spooled copy. */
async function openPlain(file: string, name: string, options: SpoolOptions): Promise<FileHandle> {
  const { handle, size } = await openRegular(file);
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

/** By normalised path: a file, or the path of the member that a link leads to. */
export type ArchiveIndex = ReadonlyMap<string, Extent | string>;

/** Archives of images have a few files per layer. */
const MAX_MEMBERS = 500_000;

/**
 * Finds the members of a plain tar of `size` bytes by its headers. The package `tar` parses them: it reads what it needs, and zeros in place of
 * file contents. Of members with the same path the last one counts, as when the archive is unpacked.
 *
 * @throws IntegrityError when the archive is corrupt, cut off or has sparse members
 */
export function indexArchive(descriptor: number, size: number, name: string): ArchiveIndex {
  const members = new Map<string, Extent | string>();
  const scan = new HeaderScan(descriptor, name);
  for (let entry = scan.next(); entry !== undefined; entry = scan.next()) {
    const member = memberOf(entry, scan.position);
    if (typeof member === 'object' && member.offset + member.size > size) {
      throw new IntegrityError(`${name} is cut off: it ends within ${printable(entry.path)}`, {
        code: 'TRUNCATED_ARCHIVE',
        hint: 'save or copy the image again',
      });
    }
    if (member !== undefined) members.set(normalize(entry.path as BytePath), member);
    if (members.size > MAX_MEMBERS) throw new IntegrityError(`${name} has more than ${MAX_MEMBERS} members`);
    scan.skip(entry.startBlockSize);
  }
  return members;
}

/** Gives the package's parser the header blocks of an archive file, one by one, so that the start of each content is known. */
class HeaderScan {
  /** Of the next byte to read. */
  position = 0;
  readonly #descriptor: number;
  readonly #name: string;
  readonly #parser = new Parser({ strict: true, zstd: false });
  /** The entry that the last block completed. */
  #entry: ReadEntry | undefined;
  #failure: Error | undefined;
  #end = false;
  /** Blocks since the last entry: a block of zeros, or headers about the next entry. */
  #zeros = 0;
  #meta = 0;
  #sparse = false;

  constructor(descriptor: number, name: string) {
    this.#descriptor = descriptor;
    this.#name = name;
    const take = (entry: ReadEntry) => {
      this.#entry = entry;
      entry.resume();
    };
    this.#parser.on('entry', take);
    this.#parser.on('ignoredEntry', take);
    this.#parser.on('meta', (records: string) => (this.#sparse ||= /^\d+ GNU\.sparse\./m.test(records)));
    this.#parser.on('nullBlock', () => (this.#zeros += 1));
    this.#parser.on('eof', () => (this.#end = true));
    this.#parser.on('error', (error: unknown) => (this.#failure ??= error as Error));
  }

  /** The next entry, which the package has read all headers of; undefined after the last one. `skip` comes before the one after it. */
  next(): ReadEntry | undefined {
    this.#entry = undefined;
    this.#meta = 0;
    this.#sparse = false;
    for (;;) {
      const block = Buffer.alloc(BLOCK_SIZE);
      const length = readSync(this.#descriptor, block, 0, BLOCK_SIZE, this.position);
      if (length === 0 && this.#meta > 0) throw this.#error('the archive ends before the entry of a header');
      if (length === 0) return undefined;
      if (length < BLOCK_SIZE) throw this.#error('the archive ends within a header block');
      if (this.position === 0 && compressionOf(block) !== 'none') throw this.#error('not a tar header');
      const zeros = this.#zeros;
      this.#feed(block);
      this.position += BLOCK_SIZE;
      if (this.#end) return undefined;
      if (zeros > 0) throw this.#error('data follows a single block of zeros, which is half of an end mark');
      if (this.#entry !== undefined) return this.#checked(this.#entry);
      this.#meta += this.#zeros > 0 ? 0 : 1;
    }
  }

  /** Skips the contents of an entry. */
  skip(bytes: number): void {
    for (let rest = bytes; rest > 0; rest -= ZEROS.length) this.#feed(ZEROS.subarray(0, rest));
    this.position += bytes;
  }

  #feed(bytes: Buffer): void {
    this.#parser.write(bytes);
    if (this.#failure === undefined) return;
    throw this.#error(`not a tar header (${printable(this.#failure.message, 80)})`);
  }

  #checked(entry: ReadEntry): ReadEntry {
    if (entry.meta) throw this.#error(`a meta header of ${entry.size} bytes, the limit is ${MAX_META_BYTES}`);
    if (this.#sparse || entry.type === 'SparseFile') {
      throw new IntegrityError(`${this.#name} has the sparse member ${printable(entry.path)}`, {
        hint: 'make the archive again without --sparse',
      });
    }
    const { size } = entry.header;
    if (size !== undefined && Number.isSafeInteger(size)) return entry;
    throw this.#error(`the size of ${printable(entry.path)} is not a whole number from 0 up`);
  }

  #error(reason: string): IntegrityError {
    return new IntegrityError(`${this.#name}: header at byte ${this.position}: ${reason}`, {
      code: 'MALFORMED_TAR',
      hint: 'save or copy the image again',
    });
  }
}

/** The package's own limit. */
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

/** Relative to the link's directory, and never outside the archive. An absolute path, or one that leaves it, starts at its root. */
function symlinkTarget({ path, linkpath = '' }: ReadEntry): string {
  if (linkpath.startsWith('/')) return normalize(linkpath as BytePath);
  return normalize(`${path.slice(0, path.lastIndexOf('/') + 1)}${linkpath}` as BytePath);
}

export interface SpoolOptions {
  /** An existing directory: compressed archives and standard input are unpacked to an unnamed file in it. */
  readonly spoolDirectory: string;
  readonly decompress: Decompress;
  readonly signal: AbortSignal;
}

/**
 * Writes an archive that comes as a stream, decompressed, to an unnamed file.
 *
 * @throws what `decompress` throws, DestinationError where the file cannot be written
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
  const handle = await namelessFile(spoolDirectory).catch((error: unknown) => {
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
