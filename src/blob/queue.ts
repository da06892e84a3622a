import { createHash } from 'node:crypto';
import { IntegrityError } from '../errors.ts';
import { type Compression, promisedCompression } from '../oci/compression.ts';
import { algorithmOf, type DiffID, shortID } from '../oci/digest.ts';
import type { Layer } from '../oci/image.ts';
import { MAX_LAYERS } from '../oci/json.ts';
import type { Report } from '../report/event.ts';
import { openFilesFor } from '../sys/open-files.ts';
import { MalformedDataError } from './decode/byte-reader.ts';
import type { Decoder } from './decode/decoder.ts';
import { decode, recognise } from './decode/decompress.ts';
import type { TarThread } from './decode/tar-thread.ts';
import { type FetchOptions, LayerBlob } from './layer-blob.ts';
import { CorruptBlobError } from './transfer.ts';

interface PulledLayerOptions {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** A layer whose blob is complete or arriving. It returns the verified tar. */
export class PulledLayer {
  /** Index of the layer, from 0 for the base layer. */
  readonly index: number;
  readonly layer: Layer;
  readonly #blob: LayerBlob;
  readonly #options: PulledLayerOptions;
  #diffID: DiffID | undefined;
  #compression: Compression | undefined;

  constructor(index: number, layer: Layer, blob: LayerBlob, options: PulledLayerOptions) {
    this.index = index;
    this.layer = layer;
    this.#blob = blob;
    this.#options = options;
  }

  /** Size of the blob in bytes, known when the tar was read to its end. */
  get blobSize(): number | undefined {
    return this.#blob.size;
  }

  /** Compression of the blob, known when its tar begins. */
  get compression(): Compression | undefined {
    return this.#compression;
  }

  /** Digest of the tar, known when it was read to its end. */
  get diffID(): DiffID | undefined {
    return this.#diffID;
  }

  /**
   * Returns the tar while the blob arrives. Each chunk is valid until the next one is requested. It ends only
   * if both digests, of blob and tar, are right. It can be read again until the queue releases the layer. The
   * tar's digest is computed only the first time: the blob's file is the same.
   *
   * @param thread decodes the first time, if it takes the compression
   * @throws IntegrityError
   * @throws any error that ended the queue, also of another layer
   */
  async *tar(thread?: TarThread): AsyncGenerator<Uint8Array, void, undefined> {
    const isFirst = this.#diffID === undefined;
    const fill = isFirst && thread ? await this.decodedBy(thread.decoder) : undefined;
    for await (const chunk of fill ? thread!.read(fill) : this.#decoded(isFirst)) {
      this.#options.signal.throwIfAborted();
      yield chunk;
    }
  }

  /** Decodes in this thread. */
  async *#decoded(withDigest: boolean): AsyncGenerator<Uint8Array, void, undefined> {
    const algorithm = algorithmOf(this.layer.diffID);
    const hash = withDigest ? createHash(algorithm) : undefined;
    try {
      const { compression, reader } = await this.#recognised();
      for await (const chunk of decode(compression, reader)) {
        hash?.update(chunk);
        yield chunk;
      }
      if (hash) this.#verify(`${algorithm}:${hash.digest('hex')}` as DiffID);
    } catch (error) {
      throw await this.#explainMalformed(error);
    }
  }

  /**
   * Waits for the first bytes of the blob. Returns undefined if `decoder` does not take its compression.
   * Otherwise it returns a function, to be called once, that makes the decoder write the tar into its ring.
   * That resolves when the tar has ended and both digests are right, or when its reader takes no more of it.
   *
   * @throws as `tar`, also from the function
   */
  async decodedBy(decoder: Decoder): Promise<(() => Promise<void>) | undefined> {
    const { compression, reader } = await this.#recognised();
    if (!decoder.takes(compression)) return undefined;
    return async () => {
      try {
        const found = await decoder.decode(compression, reader, this.layer.diffID);
        this.#options.signal.throwIfAborted();
        if (found !== undefined) this.#verify(found);
      } catch (error) {
        throw await this.#explainMalformed(error);
      }
    };
  }

  async #recognised(): ReturnType<typeof recognise> {
    const recognised = await recognise(this.#blob.reader());
    if (this.#compression === undefined) this.#compareCompression(recognised.compression);
    this.#compression = recognised.compression;
    return recognised;
  }

  /** @throws IntegrityError if the image's config has another diffID */
  #verify(diffID: DiffID): void {
    const expected = this.layer.diffID;
    if (expected !== undefined && diffID !== expected) throw this.#wrongTar(diffID, expected);
    this.#diffID = diffID;
  }

  #compareCompression(found: Compression): void {
    const promised = promisedCompression(this.layer.mediaType);
    if (promised === undefined || promised === found) return;
    const message = `${this.#options.name}: the manifest says ${described(promised)}, but it is ${described(found)}`;
    this.#options.report({ type: 'notice', message });
  }

  /** Returns the error for malformed data. If the blob is corrupt, it is the blob's error. */
  async #explainMalformed(error: unknown): Promise<unknown> {
    if (!(error instanceof MalformedDataError)) return error;
    const message = `${this.#options.name}: its compressed data ${error.message}`;
    return this.explainFailure(new IntegrityError(message, { code: 'MALFORMED_LAYER', cause: error }));
  }

  /**
   * Reads the whole tar. Resolves when blob and tar are complete and right; the tar can be read afterwards.
   */
  async verified(): Promise<void> {
    for await (const chunk of this.tar()) void chunk;
  }

  /**
   * Returns the error to throw after applying the tar failed with `error`. If the tar is malformed because
   * the blob is corrupt, that is a CorruptBlobError.
   */
  async explainFailure(error: unknown): Promise<unknown> {
    if (!(error instanceof IntegrityError)) return error;
    return (await this.#blob.verdict()) ?? error;
  }

  #wrongTar(found: DiffID, expected: DiffID): IntegrityError {
    return new IntegrityError(
      `${this.#options.name}: its tar has diffID ${found} but the image's config says ${expected}`,
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

/** Share of the limit of open files for blobs that are open at the same time. */
const SHARE = 0.2;

/** Lets the blobs of the first layers that are not released be open, up to a limit. */
class OpenBlobLimit {
  readonly #most: number;
  #end: number;
  readonly #waiting = new Map<number, () => void>();

  constructor(most: number) {
    this.#most = most;
    this.#end = most;
  }

  /** Resolves when the blob of a layer may be opened. */
  async wait(index: number): Promise<void> {
    if (index < this.#end) return;
    await new Promise<void>((resolve) => this.#waiting.set(index, resolve));
  }

  /** Releases a layer. Called in the order of the layers. */
  release(index: number): void {
    this.#end = Math.max(this.#end, index + 1 + this.#most);
    for (const [waiting, resolve] of this.#waiting) {
      if (waiting >= this.#end) break;
      this.#waiting.delete(waiting);
      resolve();
    }
  }

  lift(): void {
    this.release(Infinity);
  }
}

/** The blobs of an image's layers and their downloads. The first failure ends all of them. */
class Blobs {
  readonly #layers: readonly Layer[];
  readonly #options: FetchOptions;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  /** Blobs by layer. Layers with the same digest share one. */
  readonly #blobs: LayerBlob[] = [];
  #allWhole: Promise<unknown> | undefined;
  readonly #open: OpenBlobLimit;

  /** @param open the number of blobs that may be open at the same time */
  constructor(
    layers: readonly Layer[],
    options: FetchOptions,
    open = options.hold === true ? Infinity : openFilesFor(SHARE, MAX_LAYERS),
  ) {
    this.#layers = layers;
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
    warnUnverifiable(layers, options.report);
    this.#open = new OpenBlobLimit(open);
    this.#signal.addEventListener('abort', () => this.#open.lift(), { once: true });
    if (this.#signal.aborted) this.#open.lift();
    const context = {
      ...options,
      signal: this.#signal,
      mayOpen: (index: number) => this.#open.wait(index),
    };
    for (const indexes of Map.groupBy(layers.keys(), (index) => layers[index]!.digest ?? index).values()) {
      const first = indexes[0]!;
      const blob = new LayerBlob(layers[first]!, this.#nameOf(first), indexes, context);
      blob.whole.catch((error: unknown) => this.#abort.abort(error));
      for (const index of indexes) this.#blobs[index] = blob;
    }
  }

  /** Returns the layer as soon as its download starts; with `hold`, when all blobs are complete and right. */
  async layer(index: number): Promise<PulledLayer> {
    const { report, hold } = this.#options;
    const blob = this.#blobs[index]!;
    await (hold === true ? this.#whole() : blob.ready);
    const name = this.#nameOf(index);
    return new PulledLayer(index, this.#layers[index]!, blob, { name, signal: this.#signal, report });
  }

  /** Resolves when all blobs are complete. */
  async #whole(): Promise<void> {
    this.#allWhole ??= Promise.all(this.#blobs.map(({ whole }) => whole));
    await this.#allWhole;
  }

  /** Releases the blob of a layer that is applied, unless a later layer has the same blob. */
  async release(index: number): Promise<void> {
    const blob = this.#blobs[index]!;
    await blob.whole;
    if (!this.#blobs.includes(blob, index + 1)) await blob.close();
    this.#open.release(index);
  }

  /** The error that ended the queue; undefined while it runs. */
  get failure(): unknown {
    return this.#signal.reason;
  }

  async close(): Promise<void> {
    this.#abort.abort(new Error('the queue has ended'));
    await Promise.all(this.#blobs.map((blob) => blob.close()));
  }

  #nameOf(index: number): string {
    return `layer ${index + 1} of ${this.#layers.length} (${shortID(this.#layers[index]!.id)})`;
  }
}

/**
 * The layers of an image, base first, each as soon as its download starts. The downloads of the next ones run
 * ahead. A blob that is listed twice is downloaded once. Ending the iteration early ends the downloads.
 *
 * @throws the first failure of any blob, which ends all downloads
 */
export async function* layerQueue(
  layers: readonly Layer[],
  options: FetchOptions,
): AsyncGenerator<PulledLayer, void, undefined> {
  const blobs = new Blobs(layers, options);
  try {
    for (const index of layers.keys()) {
      yield await blobs.layer(index);
      await blobs.release(index);
    }
  } catch (error) {
    throw blobs.failure ?? error;
  } finally {
    await blobs.close();
  }
}

/** Layers of an image that stay readable, base first, each as soon as its download starts. */
export interface KeptLayers {
  readonly layers: AsyncIterable<PulledLayer>;
  close(): Promise<void>;
}

/**
 * As `layerQueue`, but keeps the blobs until `close`. A layer whose tar was read to its end can be read again.
 */
export function keptLayers(layers: readonly Layer[], options: FetchOptions): KeptLayers {
  const blobs = new Blobs(layers, options, Infinity);
  async function* inOrder(): AsyncGenerator<PulledLayer, void, undefined> {
    try {
      for (const index of layers.keys()) yield await blobs.layer(index);
    } catch (error) {
      throw blobs.failure ?? error;
    }
  }
  return { layers: inOrder(), close: () => blobs.close() };
}

/** All layers of an image, base first; they can be read in parallel and more than once. */
export interface AllLayers {
  readonly layers: readonly PulledLayer[];
  close(): Promise<void>;
}

/**
 * Downloads all blobs of an image. Resolves when they are complete and right.
 *
 * @throws as `layerQueue`
 */
export async function fetchAllLayers(
  layers: readonly Layer[],
  options: Omit<FetchOptions, 'hold'>,
): Promise<AllLayers> {
  const blobs = new Blobs(layers, { ...options, hold: true });
  try {
    const pulled = await Promise.all(layers.map((_, index) => blobs.layer(index)));
    return { layers: pulled, close: () => blobs.close() };
  } catch (error) {
    // Read before `close`, which aborts with another reason.
    const reason = blobs.failure ?? error;
    await blobs.close();
    throw reason;
  }
}

/**
 * Runs `attempt`, and runs it again if a blob is corrupt: once for each blob, which is downloaded again. From
 * the second attempt on `careful` is true: the digest of each cached blob is checked before it is read.
 *
 * @throws what the attempts throw
 */
export async function withoutCorruptBlobs<T>(
  report: Report,
  attempt: (careful: boolean) => Promise<T>,
): Promise<T> {
  const corrupt = new Set<string>();
  for (;;) {
    try {
      return await attempt(corrupt.size > 0);
    } catch (error) {
      if (!(error instanceof CorruptBlobError) || corrupt.has(error.blob)) throw error;
      corrupt.add(error.blob);
      report({ type: 'notice', message: `${error.message}; starting the pull again without it` });
    }
  }
}

function warnUnverifiable(layers: readonly Layer[], report: Report): void {
  const count = layers.filter((layer) => layer.checksum === undefined).length;
  if (count === 0) return;
  const message = `${count} of ${layers.length} layers cannot be verified: the registry has no checksums for them`;
  report({ type: 'notice', message });
}
