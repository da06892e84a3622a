import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { algorithmOf, type Digest } from '../oci/digest.ts';
import type { Checksum } from '../oci/image.ts';
import { osErrorOf } from '../sys/os-error.ts';
import type { ByteReader } from './decode/byte-reader.ts';

/** In bytes. */
const PIECE = 2 ** 20;

/** A whole file of the store, which somebody may have changed: its digest is computed whenever it is read. */
export class CachedFile {
  readonly #handle: FileHandle;
  readonly #digest: Digest;

  constructor(handle: FileHandle, digest: Digest) {
    this.#handle = handle;
    this.#digest = digest;
  }

  /**
   * The bytes from the start. Where they are corrupt, throws what `failureOf` makes of the reason, in place of the end and from then on.
   */
  reader(failureOf: (fault: string) => Error): ByteReader {
    const hash = new BlobHash({ digest: this.#digest });
    let ended = false;
    let failure: Error | undefined;
    return {
      read: async (into) => {
        const outcome = ended ? 0 : await this.#next(into, hash);
        ended = typeof outcome === 'string' || outcome === 0;
        if (typeof outcome === 'string') failure = failureOf(outcome);
        else if (!ended) return outcome;
        if (failure !== undefined) throw failure;
        return 0;
      },
    };
  }

  /**
   * Reads all of it; answers why it is corrupt, if it is.
   *
   * @throws the signal's reason
   */
  async fault(signal: AbortSignal): Promise<string | undefined> {
    const hash = new BlobHash({ digest: this.#digest });
    const buffer = new Uint8Array(PIECE);
    for (;;) {
      signal.throwIfAborted();
      const outcome = await this.#next(buffer, hash);
      if (typeof outcome === 'string') return outcome;
      if (outcome === 0) return undefined;
    }
  }

  /** Reads the bytes behind those that `hash` has: answers how many, 0 at the end if all were right, or else why they are corrupt. */
  async #next(into: Uint8Array, hash: BlobHash): Promise<number | string> {
    try {
      const { bytesRead } = await this.#handle.read(into, 0, into.length, hash.bytes);
      hash.update(into.subarray(0, bytesRead));
      if (bytesRead > 0) return bytesRead;
    } catch (error) {
      const os = osErrorOf(error);
      if (!os) throw error;
      return `cannot be read: ${os.text}`;
    }
    const found = hash.mismatch();
    return found === undefined ? 0 : `has digest ${found} but must have ${this.#digest}`;
  }

  /** Undefined where it cannot be told. */
  async size(): Promise<number | undefined> {
    const stats = await this.#handle.stat().catch(() => undefined);
    return stats?.size;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** The running digest of a blob, over its checksum's prefix first (registry v1). */
export class BlobHash {
  readonly #checksum: Checksum | undefined;
  readonly #hash: Hash | undefined;
  #bytes = 0;

  constructor(checksum: Checksum | undefined) {
    this.#checksum = checksum;
    if (!checksum) return;
    this.#hash = createHash(algorithmOf(checksum.digest));
    if (checksum.prefix) this.#hash.update(checksum.prefix);
  }

  /** How many bytes of the blob went in. */
  get bytes(): number {
    return this.#bytes;
  }

  update(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    this.#hash?.update(chunk);
  }

  /** The digest that was found instead of the right one; undefined when it is right, or nothing is known to compare with. */
  mismatch(): Digest | undefined {
    if (!this.#checksum || !this.#hash) return undefined;
    const { digest } = this.#checksum;
    const found = `${algorithmOf(digest)}:${this.#hash.digest('hex')}`;
    return found === digest ? undefined : (found as Digest);
  }
}
