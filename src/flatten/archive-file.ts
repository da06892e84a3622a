import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import type { Writable } from 'node:stream';
import { DestinationError, printable } from '../errors.ts';
import { absolutePath, osPath, pathText } from '../sys/os-path.ts';

/**
 * A file that appears whole or not at all: it is written under another name beside its place and renamed when it is complete. A
 * symlink is followed; what is no file (a FIFO, `/dev/stdout`) is written to as it is.
 */
export class ArchiveFile {
  readonly output: Writable;
  readonly #path: string;
  /** The name until it is complete; undefined where there is nothing to rename. */
  readonly #partial: string | undefined;

  private constructor(handle: FileHandle, place: string, partial: string | undefined) {
    this.#path = place;
    this.#partial = partial;
    this.output = handle.createWriteStream();
  }

  /** @throws DestinationError when it cannot be written there */
  static async create(name: string): Promise<ArchiveFile> {
    try {
      const existing = await stat(osPath(name)).catch(absent);
      if (existing && !existing.isFile()) {
        const handle = await open(osPath(name), constants.O_WRONLY);
        return new ArchiveFile(handle, name, undefined);
      }
      const place = existing
        ? pathText(await realpath(osPath(name), { encoding: 'buffer' }))
        : absolutePath(name);
      const random = randomBytes(6).toString('hex');
      const partial = path.join(path.dirname(place), `.${path.basename(place)}.${random}.part`);
      return new ArchiveFile(await open(osPath(partial), 'wx', 0o666), place, partial);
    } catch (error) {
      throw unwritable(name, error);
    }
  }

  /** To be called when `output` has ended: puts the file in its place. */
  async commit(): Promise<void> {
    try {
      if (this.#partial !== undefined) await rename(osPath(this.#partial), osPath(this.#path));
    } catch (error) {
      throw unwritable(this.#path, error);
    }
  }

  /** Removes what was written. */
  async discard(): Promise<void> {
    this.output.destroy();
    if (this.#partial !== undefined) await unlink(osPath(this.#partial)).catch(() => undefined);
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

function unwritable(name: string, error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error;
  return new DestinationError(`cannot write ${printable(name)}: ${printable(error.message)}`, {
    code: String(error.code),
    hint: 'name a file in a directory that exists and that you may write to',
    cause: error,
  });
}
