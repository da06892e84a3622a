import { createHash } from 'node:crypto';
import { IntegrityError } from '../errors.ts';
import { type Compression, promisedCompression } from '../oci/compression.ts';
import { algorithmOf, type DiffID } from '../oci/digest.ts';
import type { Layer } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { type ByteReader, MalformedDataError } from './decode/byte-reader.ts';
import { decode, recognise } from './decode/decompress.ts';
import type { LayerBlob } from './layer-blob.ts';

/** Decodes a compressed tar in another thread, and delivers it there. */
export interface RemoteDecoder {
  /** Whether it can decode this compression. */
  handles(compression: Compression): boolean;
  /**
   * Resolves to the digest of the tar when all is decoded; to undefined when the tar is no longer wanted.
   *
   * @param expected the caller compares the digest with this one: then checksums in the compressed data are not compared
   * @throws MalformedDataError, what `blob` throws
   */
  decode(
    compression: Compression,
    blob: ByteReader,
    expected: DiffID | undefined,
  ): Promise<DiffID | undefined>;
}

export interface PulledLayerOptions {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** A layer whose blob is complete or arriving: it turns the blob into verified tar bytes. */
export class PulledLayer {
  /** From 0, base layer first. */
  readonly index: number;
  readonly layer: Layer;
  readonly #blob: LayerBlob;
  readonly #options: PulledLayerOptions;
  #diffID: DiffID | undefined;

  constructor(index: number, layer: Layer, blob: LayerBlob, options: PulledLayerOptions) {
    this.index = index;
    this.layer = layer;
    this.#blob = blob;
    this.#options = options;
  }

  /** Of the blob, in bytes; known when the tar was read to its end. */
  get blobSize(): number | undefined {
    return this.#blob.size;
  }

  /** Of the tar; known when it was read to its end. */
  get diffID(): DiffID | undefined {
    return this.#diffID;
  }

  /**
   * The tar, while the blob arrives; each chunk is valid until the next one is requested. It ends only when the digests of blob and tar are
   * right. It can be read once, or more often if the store keeps blobs, the queue holds them, or the image lists the layer twice. After the
   * first time no digest of the tar is computed: the blob's file is the same.
   *
   * @param remote where it handles the blob, the bytes go there instead of into chunks
   * @throws IntegrityError, and any error that ended the queue, also of another layer
   */
  async *tar(remote?: RemoteDecoder): AsyncGenerator<Uint8Array, void, undefined> {
    const { signal } = this.#options;
    const expected = this.layer.diffID;
    const isVerified = this.#diffID !== undefined;
    try {
      const { compression, reader } = await recognise(this.#blob.reader());
      if (!isVerified) this.#compareCompression(compression);
      if (remote?.handles(compression)) {
        this.#diffID = await remote.decode(compression, reader, expected);
        signal.throwIfAborted();
        if (!this.#diffID) return;
      } else {
        const algorithm = algorithmOf(expected);
        const hash = isVerified ? undefined : createHash(algorithm);
        for await (const chunk of decode(compression, reader)) {
          signal.throwIfAborted();
          hash?.update(chunk);
          yield chunk;
        }
        if (hash) this.#diffID = `${algorithm}:${hash.digest('hex')}` as DiffID;
      }
      if (expected !== undefined && this.#diffID !== expected) throw this.#wrongTar(expected);
    } catch (error) {
      throw await this.#explainMalformed(error);
    } finally {
      this.#blob.leave();
    }
  }

  #compareCompression(found: Compression): void {
    const promised = promisedCompression(this.layer.mediaType);
    if (promised === undefined || promised === found) return;
    const message = `${this.#options.name}: the manifest says ${described(promised)}, but it is ${described(found)}`;
    this.#options.report({ type: 'notice', message });
  }

  /** Compressed data is malformed because the blob is corrupt, or it was made so. */
  async #explainMalformed(error: unknown): Promise<unknown> {
    if (!(error instanceof MalformedDataError)) return error;
    const message = `${this.#options.name}: its compressed data ${error.message}`;
    return this.explainFailure(new IntegrityError(message, { code: 'MALFORMED_LAYER', cause: error }));
  }

  /**
   * Resolves when blob and tar are complete and right; the tar can be read afterwards. Only for blobs that can be read more than once, see `tar`.
   */
  async verified(): Promise<void> {
    for await (const chunk of this.tar()) void chunk;
  }

  /**
   * The error to throw when applying the tar failed with `error`. If the tar is malformed because the blob is corrupt, that is a CorruptBlobError.
   */
  async explainFailure(error: unknown): Promise<unknown> {
    if (!(error instanceof IntegrityError)) return error;
    this.#blob.leave();
    return (await this.#blob.verdict()) ?? error;
  }

  #wrongTar(expected: DiffID): IntegrityError {
    return new IntegrityError(
      `${this.#options.name}: its tar has digest ${this.#diffID} but the image's config says ${expected}`,
      {
        code: 'DIFF_ID_MISMATCH',
        hint: 'the image is corrupt: ask its publisher to push it again',
      },
    );
  }
}

function described(compression: string): string {
  return compression === 'none' ? 'a plain tar' : compression;
}
