import type { Layer } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { Appetite } from './appetite.ts';
import { Connections } from './connections.ts';
import { LayerBlob } from './layer-blob.ts';
import type { RetryPolicy } from './persistence.ts';
import { PulledLayer } from './pulled-layer.ts';
import type { Store } from './store.ts';

export interface LayerQueueOptions {
  readonly store: Store;
  /** Connections at once, all together. */
  readonly jobs: number;
  /** Nothing of a layer is handed out before its blob is checked, and it can be read again: for a DIR that holds files. */
  readonly hold?: boolean | undefined;
  readonly policy?: RetryPolicy | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

const DEFAULT_POLICY: RetryPolicy = { retries: 5, delay: 1000 };

/**
 * The layers of an image, base first, each as soon as its bytes begin to come; the downloads of the next ones run ahead. A blob that is
 * listed twice is fetched once. The first failure, wherever it is, ends all, and is what is thrown. Ending the iteration early ends
 * the downloads.
 */
export async function* layerQueue(
  layers: readonly Layer[],
  options: LayerQueueOptions,
): AsyncGenerator<PulledLayer, void, undefined> {
  const abort = new AbortController();
  const signal = AbortSignal.any([options.signal, abort.signal]);
  const { store, report } = options;
  warnUnverifiable(layers, report);
  const connections = new Connections(options.jobs);
  const appetite = new Appetite();
  const nameOf = (index: number) =>
    `layer ${index + 1} of ${layers.length} (${layers[index]!.id.slice(0, 12)})`;
  const blobs = new Map<string, LayerBlob>();
  for (const [key, indexes] of byBlob(layers)) {
    const blob = new LayerBlob(layers[indexes[0]!]!, {
      store,
      report,
      signal,
      connections,
      appetite,
      indexes,
      name: nameOf(indexes[0]!),
      policy: options.policy ?? DEFAULT_POLICY,
      hold: options.hold ?? false,
    });
    blob.whole.catch((error: unknown) => abort.abort(error));
    blobs.set(key, blob);
  }
  try {
    for (const [index, layer] of layers.entries()) {
      const key = keyOf(layer, index);
      const blob = blobs.get(key)!;
      await blob.ready;
      yield new PulledLayer(index, layer, blob, {
        name: nameOf(index),
        native: store.native,
        signal,
        report,
      });
      blob.leave();
      await blob.whole;
      if (layers.slice(index + 1).some((other, offset) => keyOf(other, index + 1 + offset) === key)) continue;
      await blob.close();
      blobs.delete(key);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    abort.abort(new Error('the queue was left'));
    await Promise.all([...blobs.values()].map((blob) => blob.close()));
  }
}

/** Which layers share a blob: those of one digest. Without one, each has its own. */
function byBlob(layers: readonly Layer[]): Map<string, number[]> {
  const blobs = new Map<string, number[]>();
  for (const [index, layer] of layers.entries()) {
    const key = keyOf(layer, index);
    blobs.set(key, [...(blobs.get(key) ?? []), index]);
  }
  return blobs;
}

function keyOf(layer: Layer, index: number): string {
  return layer.digest ?? `#${index}`;
}

function warnUnverifiable(layers: readonly Layer[], report: Report): void {
  const count = layers.filter((layer) => layer.checksum === undefined).length;
  if (count === 0) return;
  const message = `${count} of ${layers.length} layers cannot be verified: the registry has no checksum of them`;
  report({ type: 'notice', message });
}
