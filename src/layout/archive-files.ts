import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { addAbortSignal, Readable } from 'node:stream';
import { DestinationError, IntegrityError, printable } from '../errors.ts';
import { compressionOf, type Decompress, MAGIC_LENGTH } from '../oci/compression.ts';
import { bytePath, type BytePath, type ByteSource, displayPath, type Entry } from '../tar/entry.ts';
import { BLOCK_SIZE } from '../tar/header.ts';
import { normalize } from '../tar/layer-path.ts';
import { TarReader } from '../tar/reader.ts';
import { openRegular, readRange, type StoredFile, type StoredFiles } from './stored-files.ts';

const MAX_LINKS = 16;

/** The files of a layout in a tar archive: one pass over the headers finds them, then they are read where they stand. */
export class ArchiveFiles implements StoredFiles {
  readonly name: string;
  readonly #handle: FileHandle;
  readonly #index: ArchiveIndex;

  private constructor(handle: FileHandle, index: ArchiveIndex, name: string) {
    this.#handle = handle;
    this.#index = index;
    this.name = name;
  }

  /**
   * Opens an archive, plain or compressed. What is compressed is first unpacked to a file that nobody sees.
   *
   * @throws NotFoundError, IntegrityError, DestinationError
   */
  static async open(file: string, name: string, spooling: Spooling): Promise<ArchiveFiles> {
    return ArchiveFiles.#from(await openPlain(file, name, spooling), name);
  }

  /** As `open`, for an archive that comes as a stream. */
  static async fromStream(
    stream: AsyncIterable<Uint8Array>,
    name: string,
    spooling: Spooling,
  ): Promise<ArchiveFiles> {
    return ArchiveFiles.#from(await spool(stream, name, spooling), name);
  }

  static async #from(handle: FileHandle, name: string): Promise<ArchiveFiles> {
    try {
      const { size } = await handle.stat();
      return new ArchiveFiles(handle, indexArchive(handle.fd, size, name), name);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  find(name: string): Promise<StoredFile | undefined> {
    const stretch = this.#resolve(name);
    if (stretch === undefined) return Promise.resolve(undefined);
    const { offset, size } = stretch;
    return Promise.resolve({
      size,
      read: (start, end, signal) =>
        readRange(this.#handle, offset + start, offset + Math.min(end, size), signal),
    });
  }

  /** Follows links, as `docker save` once wrote them, which lead to other members or nowhere. */
  #resolve(name: string): Stretch | undefined {
    let path: string = normalize(bytePath(name));
    for (let links = 0; links < MAX_LINKS; links += 1) {
      const member = this.#index.get(path);
      if (typeof member !== 'string') return member;
      path = member;
    }
    throw new IntegrityError(`${this.name} has a loop of links at ${printable(name)}`);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** The archive itself where it is plain, else what is spooled of it. */
async function openPlain(file: string, name: string, spooling: Spooling): Promise<FileHandle> {
  const { handle, size } = await openRegular(file);
  let plain = false;
  try {
    plain = await startsPlain(handle);
    return plain ? handle : await spool(readRange(handle, 0, size, spooling.signal), name, spooling);
  } finally {
    if (!plain) await handle.close();
  }
}

async function startsPlain(handle: FileHandle): Promise<boolean> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_LENGTH), 0, MAGIC_LENGTH, 0);
  return compressionOf(buffer.subarray(0, bytesRead)) === 'none';
}

/** The position of a member's bytes in the archive. */
export interface Stretch {
  readonly offset: number;
  readonly size: number;
}

/** By normalised path: a file, or the path of the member that a link leads to. */
export type ArchiveIndex = ReadonlyMap<string, Stretch | BytePath>;

/** Archives of images have a few files a layer. */
const MAX_MEMBERS = 500_000;

/** The header blocks of an archive that is a file, wherever it is told to look. */
class HeaderSource implements ByteSource {
  position = 0;
  readonly #descriptor: number;
  readonly #block = Buffer.alloc(BLOCK_SIZE);

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(): Uint8Array | undefined {
    const length = readSync(this.#descriptor, this.#block, 0, BLOCK_SIZE, this.position);
    this.position += length;
    return length === 0 ? undefined : this.#block.subarray(0, length);
  }
}

/**
 * Finds the members of a plain tar of `size` bytes by reading only its headers. Of members with the same path the last one counts, as when
 * the archive is unpacked.
 *
 * @throws IntegrityError when the archive is damaged, cut off or has sparse members
 */
export function indexArchive(descriptor: number, size: number, name: string): ArchiveIndex {
  const members = new Map<string, Stretch | BytePath>();
  const source = new HeaderSource(descriptor);
  for (;;) {
    // A reader for each header: the next one starts after data that nobody reads.
    const entry = new TarReader(source, name).next();
    if (entry === undefined) return members;
    const member = memberOf(entry, source.position);
    if (member === undefined) continue;
    members.set(normalize(entry.path), member);
    if (members.size > MAX_MEMBERS) throw new IntegrityError(`${name} has more than ${MAX_MEMBERS} members`);
    if (typeof member === 'string') continue;
    if (entry.sparse !== undefined) throw sparseMember(entry, name);
    source.position += Math.ceil(member.size / BLOCK_SIZE) * BLOCK_SIZE;
    if (member.offset + member.size > size) {
      throw new IntegrityError(`${name} is cut off: it ends within ${displayPath(entry.path)}`, {
        code: 'TRUNCATED_ARCHIVE',
        hint: 'save or copy the image again',
      });
    }
  }
}

function memberOf(entry: Entry, offset: number): Stretch | BytePath | undefined {
  switch (entry.type) {
    case 'file':
      return { offset, size: entry.size };
    case 'symlink':
      return symlinkTarget(entry);
    case 'hardlink':
      return normalize(entry.linkPath);
    default:
      return undefined;
  }
}

/** Relative to the link's directory, and never out of the archive: what climbs higher, or is absolute, starts at its root. */
function symlinkTarget({ path, linkPath }: Entry): BytePath {
  if (linkPath.startsWith('/')) return normalize(linkPath);
  const directory = path.slice(0, path.lastIndexOf('/') + 1);
  return normalize(`${directory}${linkPath}` as BytePath);
}

function sparseMember(entry: Entry, name: string): IntegrityError {
  return new IntegrityError(
    `${name} has the sparse member ${displayPath(entry.path)}, which images have not`,
    {
      hint: `make the archive again without --sparse (${printable(entry.path, 80)})`,
    },
  );
}

/** Makes a new empty file without a name in a directory; throws the system's errors. */
export type NamelessFile = (directory: string) => Promise<FileHandle>;

/** What an archive needs that cannot be read where it is. */
export interface Spooling {
  /** The file lies there. */
  readonly directory: string;
  readonly decompress: Decompress;
  readonly namelessFile: NamelessFile;
  readonly signal: AbortSignal;
}

/**
 * Writes an archive that comes as a stream, decompressed, to a file that has no name: it goes when it is closed, however
 * the program ends.
 *
 * @throws what `decompress` throws, DestinationError where the file cannot be written
 */
async function spool(
  input: AsyncIterable<Uint8Array>,
  name: string,
  { directory, decompress, namelessFile, signal }: Spooling,
): Promise<FileHandle> {
  const handle = await namelessFile(directory).catch((error: unknown) => {
    throw spoolError(error, directory);
  });
  const readable = input instanceof Readable ? input : Readable.from(input, { objectMode: false });
  try {
    await handle.writeFile(decompress(addAbortSignal(signal, readable), name), { signal });
    return handle;
  } catch (error) {
    await handle.close();
    signal.throwIfAborted();
    throw spoolError(error, directory);
  } finally {
    readable.destroy();
  }
}

function spoolError(error: unknown, directory: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return error;
  const code = String(error.code);
  return new DestinationError(
    `cannot write a temporary file in ${printable(directory)}: ${printable(code)}`,
    {
      code: code === 'ENOSPC' ? 'DISK_FULL' : 'SPOOL',
      hint: 'a compressed archive, or one on standard input, is unpacked there first: it needs that much space',
      cause: error,
    },
  );
}
