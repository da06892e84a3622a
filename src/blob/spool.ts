import { mkdir, rmdir, type FileHandle } from 'node:fs/promises';
import { namelessFile } from '../sys/temp-file.ts';
import { diskError } from './disk-error.ts';
import { DIRECTORY_MODE } from './trust.ts';

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
