import { constants } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { NotFoundError, printable } from '../errors.ts';
import { readRange, sourceError } from './file-range.ts';
import type { StoredFile, StoredFiles } from './stored-files.ts';

/**
 * The files of a layout in a directory. Callers build paths from fixed names and digests only. Links are followed: some
 * tools link blobs to a shared store, and all but index.json is checked against a digest.
 */
export class DirectoryFiles implements StoredFiles {
  readonly name: string;
  readonly #directory: string;

  private constructor(directory: string, name: string) {
    this.#directory = directory;
    this.name = name;
  }

  /** Throws NotFoundError when there is no such directory. */
  static async open(directory: string, name: string): Promise<DirectoryFiles> {
    const status = await stat(directory).catch((error: unknown) => {
      throw sourceError(error, directory);
    });
    if (!status.isDirectory()) {
      throw new NotFoundError(`${printable(directory)} is not a directory`, {
        code: 'SOURCE_NOT_FOUND',
        hint: `for an archive write oci-archive:${printable(directory)}`,
      });
    }
    return new DirectoryFiles(directory, name);
  }

  async find(name: string): Promise<StoredFile | undefined> {
    const place = path.join(this.#directory, name);
    const handle = await openRegular(place);
    if (handle === undefined) return undefined;
    await using closing = handle;
    const { size } = await closing.stat();
    return { size, read: (start, end, signal) => readFrom(place, start, end, signal) };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

async function* readFrom(
  place: string,
  start: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const handle = await openRegular(place);
  if (handle === undefined)
    throw new NotFoundError(`${printable(place)} is gone`, { code: 'SOURCE_NOT_FOUND' });
  await using closing = handle;
  yield* readRange(closing, start, end, signal);
}

/** Never waits for the other end of a pipe. */
async function openRegular(place: string): Promise<FileHandle | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(place, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) {
      return undefined;
    }
    throw sourceError(error, place);
  }
  const status = await handle.stat();
  if (status.isFile()) return handle;
  await handle.close();
  throw new NotFoundError(`${printable(place)} is not a file`, { code: 'SOURCE_UNREADABLE' });
}
