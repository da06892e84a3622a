import { shortID } from '../oci/digest.ts';
import type { Layer } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { type FetchOptions, LayerBlob } from './layer-blob.ts';
import { PulledLayer } from './pulled-layer.ts';
import { Scheduler, StarvationMeter } from './scheduler.ts';
import { CorruptBlobError } from './transfer.ts';

export interface LayerQueueOptions extends FetchOptions {
  /** Limit on the connections, of all blobs together. */
  readonly jobs: number;
}

/** The blobs of an image's layers and their downloads. The first failure ends all of them. */
class Blobs {
  readonly #layers: readonly Layer[];
  readonly #options: LayerQueueOptions;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  /** By layer: those with the same digest share one. */
  readonly #blobs: LayerBlob[] = [];

  constructor(layers: readonly Layer[], options: LayerQueueOptions) {
    this.#layers = layers;
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
    warnUnverifiable(layers, options.report);
    const scheduler = new Scheduler(options.jobs);
    const context = { ...options, signal: this.#signal, scheduler, starvation: new StarvationMeter() };
    for (const indexes of Map.groupBy(layers.keys(), (index) => layers[index]!.digest ?? index).values()) {
      const first = indexes[0]!;
      const blob = new LayerBlob(layers[first]!, this.#nameOf(first), indexes, context);
      blob.whole.catch((error: unknown) => this.#abort.abort(error));
      for (const index of indexes) this.#blobs[index] = blob;
    }
  }

  /** The layer, as soon as its first bytes arrive; with `hold`, when all blobs are complete and right. */
  async layer(index: number): Promise<PulledLayer> {
    const { report, hold } = this.#options;
    const blob = this.#blobs[index]!;
    await (hold === true ? Promise.all(this.#blobs.map(({ whole }) => whole)) : blob.ready);
    const name = this.#nameOf(index);
    return new PulledLayer(index, this.#layers[index]!, blob, { name, signal: this.#signal, report });
  }

  /** The layer is applied: releases its blob, unless a later layer has the same. */
  async release(index: number): Promise<void> {
    const blob = this.#blobs[index]!;
    blob.leave();
    await blob.whole;
    if (!this.#blobs.includes(blob, index + 1)) await blob.close();
  }

  /** The reason of the end; undefined while the queue runs. */
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
 * The layers of an image, base first, each as soon as its first bytes arrive; the downloads of the next ones run ahead. A blob that is
 * listed twice is downloaded once. Ending the iteration early ends the downloads.
 *
 * @throws the first failure of any blob, which ends all downloads
 */
export async function* layerQueue(
  layers: readonly Layer[],
  options: LayerQueueOptions,
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

/** All layers of an image, base first; they can be read in parallel and more than once. */
export interface AllLayers {
  readonly layers: readonly PulledLayer[];
  close(): Promise<void>;
}

/**
 * Downloads all blobs of an image and resolves when they are complete and right.
 *
 * @throws what `layerQueue` does
 */
export async function fetchAllLayers(
  layers: readonly Layer[],
  options: Omit<LayerQueueOptions, 'hold'>,
): Promise<AllLayers> {
  const blobs = new Blobs(layers, { ...options, hold: true });
  try {
    const pulled = await Promise.all(layers.map((_, index) => blobs.layer(index)));
    return { layers: pulled, close: () => blobs.close() };
  } catch (error) {
    // Before `close`, which aborts too.
    const reason = blobs.failure ?? error;
    await blobs.close();
    throw reason;
  }
}

/**
 * Runs `attempt`, and again where a blob turns out to be corrupt: once for each blob, which is downloaded again. From the second attempt on
 * `careful` is set: the digest of each cached blob is checked before it is read.
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
