import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { algorithmOf, type Digest } from '../oci/digest.ts';
import type { Checksum } from '../oci/image.ts';
import { osErrorOf } from '../sys/os-error.ts';
import type { ByteReader } from './decode/byte-reader.ts';

/** Bytes read at once. */
const PIECE = 2 ** 20;

/** A complete blob in the store. Its digest is checked on every read, since the file may have changed. */
export class CachedFile {
  readonly handle: FileHandle;
  readonly #digest: Digest;

  constructor(handle: FileHandle, digest: Digest) {
    this.handle = handle;
    this.#digest = digest;
  }

  /**
   * The bytes from the start. If they are corrupt, throws `failureOf(reason)` instead of reporting the end.
   */
  reader(failureOf: (fault: string) => Promise<Error>): ByteReader {
    const hash = new BlobHash({ digest: this.#digest });
    let ended = false;
    let failure: Error | undefined;
    return {
      read: async (into) => {
        const outcome = ended ? 0 : await this.#next(into, hash);
        ended = typeof outcome === 'string' || outcome === 0;
        if (typeof outcome === 'string') failure = await failureOf(outcome);
        else if (!ended) return outcome;
        if (failure !== undefined) throw failure;
        return 0;
      },
    };
  }

  /**
   * Reads all of it; returns why it is corrupt, or undefined.
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

  /** Reads the bytes that follow those in `hash`: returns their number, 0 at the end if the digest is right, or why they are corrupt. */
  async #next(into: Uint8Array, hash: BlobHash): Promise<number | string> {
    try {
      const { bytesRead } = await this.handle.read(into, 0, into.length, hash.bytes);
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

  /** In bytes; undefined where stat(2) fails. */
  async size(): Promise<number | undefined> {
    const stats = await this.handle.stat().catch(() => undefined);
    return stats?.size;
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** The running digest of a blob; it starts with the prefix of its checksum (registry v1). */
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

  /** Number of bytes of the blob so far. */
  get bytes(): number {
    return this.#bytes;
  }

  update(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
    this.#hash?.update(chunk);
  }

  /** The wrong digest that was computed; undefined when it is right, or without a checksum. */
  mismatch(): Digest | undefined {
    if (!this.#checksum || !this.#hash) return undefined;
    const { digest } = this.#checksum;
    const found = `${algorithmOf(digest)}:${this.#hash.digest('hex')}`;
    return found === digest ? undefined : (found as Digest);
  }
}
