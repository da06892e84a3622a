import { stat } from 'node:fs/promises';
import path from 'node:path';
import { NotFoundError, printable } from '../errors.ts';
import { osPath } from '../sys/os-path.ts';
import { openRegular, readRange, sourceError } from './file-range.ts';
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
    const status = await stat(osPath(directory)).catch((error: unknown) => {
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
    try {
      const { handle, size } = await openRegular(place);
      await handle.close();
      return { size, read: (start, end, signal) => readFrom(place, start, end, signal) };
    } catch (error) {
      if (error instanceof NotFoundError && error.code === 'SOURCE_NOT_FOUND') return undefined;
      throw error;
    }
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
  const { handle } = await openRegular(place);
  try {
    yield* readRange(handle, start, end, signal);
  } finally {
    await handle.close();
  }
}
