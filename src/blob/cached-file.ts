import type { FileHandle } from 'node:fs/promises';
import type { Digest } from '../oci/digest.ts';
import { BlobHash } from './blob-hash.ts';
import type { ByteReader } from './byte-reader.ts';
import { diskError } from './spool.ts';

/** In bytes. */
const PIECE = 2 ** 20;

/** A whole file of the store, which may have been tampered with: its digest is taken again whenever it is read. */
export class CachedFile {
  readonly #handle: FileHandle;
  readonly #digest: Digest;
  readonly #where: string;

  /** `where` the file lies, for messages. */
  constructor(handle: FileHandle, digest: Digest, where: string) {
    this.#handle = handle;
    this.#digest = digest;
    this.#where = where;
  }

  /**
   * The bytes from the start. Before it says that they are at the end it calls `damaged` if they were not right, and throws what that
   * returns, then and whenever it is asked again.
   */
  reader(damaged: (found: Digest) => Error): ByteReader {
    const hash = new BlobHash({ digest: this.#digest });
    let ended = false;
    let failure: Error | undefined;
    return {
      read: async (into) => {
        if (!ended) {
          const bytesRead = await this.#read(into, hash.bytes);
          hash.update(into.subarray(0, bytesRead));
          if (bytesRead > 0) return bytesRead;
          ended = true;
          const found = hash.mismatch();
          failure = found === undefined ? undefined : damaged(found);
        }
        if (failure !== undefined) throw failure;
        return 0;
      },
    };
  }

  /** Reads it all; what its digest is instead of the right one. */
  async mismatch(): Promise<Digest | undefined> {
    const hash = new BlobHash({ digest: this.#digest });
    const buffer = new Uint8Array(PIECE);
    for (;;) {
      const bytesRead = await this.#read(buffer, hash.bytes);
      if (bytesRead === 0) return hash.mismatch();
      hash.update(buffer.subarray(0, bytesRead));
    }
  }

  async #read(into: Uint8Array, position: number): Promise<number> {
    try {
      return (await this.#handle.read(into, 0, into.length, position)).bytesRead;
    } catch (error) {
      throw diskError(error, this.#where);
    }
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
