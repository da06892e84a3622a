import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, rmdir, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { diskError } from './disk-error.ts';
import { DIRECTORY_MODE, FILE_MODE } from './trust.ts';

/** A file that never has a name: open(2). Node has no word for it; other systems answer an error. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** A new empty file without a name in an existing directory, for reading and writing. Throws the system's errors. */
export async function namelessFile(directory: string): Promise<FileHandle> {
  const nameless = open(directory, constants.O_RDWR | O_TMPFILE, FILE_MODE);
  return await nameless.catch(() => unlinkedFile(directory));
}

/** For file systems where a file has a name at first. */
async function unlinkedFile(directory: string): Promise<FileHandle> {
  const name = path.join(directory, `.blob-${randomBytes(12).toString('hex')}`);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const handle = await open(name, flags, FILE_MODE);
  try {
    await unlink(name);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Files without a name, for blobs that nobody wants to keep: the kernel frees them however the program ends. */
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
      return await namelessFile(this.directory);
    } catch (error) {
      throw diskError(error, this.directory);
    }
  }

  /** Removes the directory if it was made here. */
  async close(): Promise<void> {
    if (this.#made !== undefined) await rmdir(this.directory).catch(() => undefined);
  }
}
