import { createHash, type Hash } from 'node:crypto';
import type { Checksum } from '../oci/image.ts';
import { algorithmOf, type Digest } from '../oci/digest.ts';

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
