import type { FileHandle } from 'node:fs/promises';
import type { Digest } from '../oci/digest.ts';
import { BlobHash } from './blob-hash.ts';
import type { ByteReader } from './byte-reader.ts';

/** In bytes. */
const PIECE = 2 ** 20;

/** A whole file of the store, which may have been tampered with: its digest is taken again whenever it is read. */
export class CachedFile {
  readonly #handle: FileHandle;
  readonly #digest: Digest;

  constructor(handle: FileHandle, digest: Digest) {
    this.#handle = handle;
    this.#digest = digest;
  }

  /** The bytes from the start. Before it says that they are at the end it calls `damaged` if they were not right, and throws what that returns. */
  reader(damaged: (found: Digest) => Error): ByteReader {
    const hash = new BlobHash({ digest: this.#digest });
    let checked = false;
    return {
      read: async (into) => {
        const { bytesRead } = await this.#handle.read(into, 0, into.length, hash.bytes);
        hash.update(into.subarray(0, bytesRead));
        if (bytesRead > 0 || checked) return bytesRead;
        checked = true;
        const found = hash.mismatch();
        if (found !== undefined) throw damaged(found);
        return 0;
      },
    };
  }

  /** Reads it all; what its digest is instead of the right one. */
  async mismatch(): Promise<Digest | undefined> {
    const hash = new BlobHash({ digest: this.#digest });
    const buffer = new Uint8Array(PIECE);
    for (;;) {
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, hash.bytes);
      if (bytesRead === 0) return hash.mismatch();
      hash.update(buffer.subarray(0, bytesRead));
    }
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
