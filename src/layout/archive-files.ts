import type { FileHandle } from 'node:fs/promises';
import { IntegrityError, printable } from '../errors.ts';
import { MAGIC_LENGTH, compressionOf } from '../oci/compression.ts';
import { bytePath } from '../tar/entry.ts';
import { normalize } from '../tar/layer-path.ts';
import { indexArchive } from './archive-index.ts';
import type { ArchiveIndex, Stretch } from './archive-index.ts';
import { openRegular, readRange } from './file-range.ts';
import { spool } from './spool.ts';
import type { Spooling } from './spool.ts';
import type { StoredFile, StoredFiles } from './stored-files.ts';

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
   * Opens an archive, plain or compressed. What is compressed is first unpacked to a file that nobody sees. Throws NotFoundError,
   * IntegrityError, DestinationError.
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
    for (let links = 0; links < MAX_LINKS; links++) {
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
