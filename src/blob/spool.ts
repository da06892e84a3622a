import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, rmdir, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { DestinationError, printable } from '../errors.ts';
import { DIRECTORY_MODE, FILE_MODE } from './trust.ts';

/**
 * Files without a name, for blobs that nobody wants to keep: each loses its name as soon as it is made, so that the kernel frees
 * it however the program ends.
 */
export class Spool {
  readonly directory: string;
  #made: string | undefined;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** A new empty file, for reading and writing. Throws DestinationError. */
  async file(): Promise<FileHandle> {
    try {
      this.#made ??= await mkdir(this.directory, { recursive: true, mode: DIRECTORY_MODE });
      const name = path.join(this.directory, `.blob-${randomBytes(12).toString('hex')}`);
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      const handle = await open(name, flags, FILE_MODE);
      await unlink(name);
      return handle;
    } catch (error) {
      throw diskError(error, this.directory);
    }
  }

  /** Removes the directory if it was made here. */
  async close(): Promise<void> {
    if (this.#made !== undefined) await rmdir(this.directory).catch(() => undefined);
  }
}

/** Names the disk where a blob could not be written or read. */
export function diskError(error: unknown, where: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return error;
  const { code } = error;
  const what =
    code === 'ENOSPC' ? 'no space left on the disk' : code === 'EDQUOT' ? 'disk quota exceeded' : code;
  return new DestinationError(`cannot store blobs in ${printable(where)}: ${String(what)}`, {
    hint: 'free some space there',
    cause: error,
  });
}
