import { performance } from 'node:perf_hooks';
import type { PulledLayer } from '../blob/queue.ts';
import type { Image, Layer } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { Report } from '../report/event.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { type OpenedImage, withImage } from './with-session.ts';

export interface LayerSummary extends Pick<Layer, 'id' | 'digest' | 'diffID' | 'size'> {
  /** The number of entries in its archive. */
  readonly entries: number;
}

/** Returns the summary of a layer that was applied. */
export function summaryOf(layer: PulledLayer, entries: number): LayerSummary {
  const { id, digest, diffID } = layer.layer;
  return { id, digest, diffID: diffID ?? layer.diffID, size: layer.blobSize, entries };
}

/** Compressed layers, in bytes; a blob that is listed twice counts once. */
export interface BytesBySource {
  readonly cache: number;
  readonly network: number;
}

/** Adds up the sizes of cached and downloaded blobs. */
export function bytesBySource(
  layers: readonly (Pick<LayerSummary, 'id' | 'digest' | 'size'> & {
    readonly cached: boolean;
    /** Bytes that an earlier run left; less than all. */
    readonly resumed?: number | undefined;
  })[],
): BytesBySource {
  // Only the first of several equal blobs is downloaded.
  const distinct = [
    ...new Map(layers.toReversed().map((layer) => [layer.digest ?? layer.id, layer])).values(),
  ];
  const bytes = { cache: 0, network: 0 };
  for (const { cached, size = 0, resumed = 0 } of distinct) {
    const there = cached ? size : resumed;
    bytes.cache += there;
    bytes.network += size - there;
  }
  return bytes;
}

/** The result of a pull: `pull()` returns it and `--json` prints it. */
export interface PullSummary extends Pick<Image, 'id' | 'digest' | 'platform'> {
  /** `library/ubuntu:14.04`, or `name@sha256:…`. */
  readonly reference: string;
  /** Base layer first. */
  readonly layers: readonly LayerSummary[];
  /** The number of layers of the image: more than `layers` has if only the first ones were wanted. */
  readonly imageLayers: number;
  /** The image's configuration, unchanged. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The directory or file, as given. */
  readonly destination: string;
  /** The values of `--add`; absent without. */
  readonly added?: readonly string[] | undefined;
  /** False if the destination was the image already, and nothing was done. */
  readonly changed: boolean;
  readonly notRestored: Readonly<NotRestored>;
  readonly bytes: BytesBySource;
  readonly seconds: Readonly<Record<string, number>>;
}

/**
 * Returns a reporter that passes every event on to `report`, and a function that returns the bytes by source
 * of the layers in these events.
 */
export function countingBytes(report: Report): {
  readonly report: Report;
  readonly bytes: (layers: readonly Pick<LayerSummary, 'id' | 'digest' | 'size'>[]) => BytesBySource;
} {
  const starts = new Map<number, { readonly cached: boolean; readonly resumed: number }>();
  return {
    report: (event) => {
      if (event.type === 'layer-start') {
        const { index, cached, resumed = 0 } = event;
        // A repeated pull finds in the store what it downloaded itself before.
        if (!cached || starts.get(index)?.cached !== false) starts.set(index, { cached, resumed });
      }
      report(event);
    },
    bytes: (layers) =>
      bytesBySource(layers.map((layer, index) => ({ cached: false, ...layer, ...starts.get(index) }))),
  };
}

/** The part of the summary that depends on how the command made its result. */
export type Made = Pick<PullSummary, 'layers' | 'changed' | 'notRestored'>;

/**
 * Opens an image as `withImage` does, reports the end of the command, and returns its summary.
 *
 * @param destination the directory or file that is made, as given
 * @param make makes it; reports to the `report` of the options that it gets
 */
export async function withSummary(
  options: PullOptions,
  destination: string,
  make: (opened: OpenedImage, options: PullOptions) => Promise<Made>,
): Promise<PullSummary> {
  const { report, bytes } = countingBytes(options.report);
  const start = performance.now();
  return await withImage({ ...options, report }, async (opened) => {
    const { image, source } = opened;
    const { reference } = source;
    const resolved = performance.now();
    const { layers, changed, notRestored } = await make(opened, { ...options, report });
    const made = performance.now();
    const sources = options.additions.map(({ text }) => text);
    const paths = layers.at(-1)?.entries ?? 0;
    const added = sources.length > 0 && changed ? { sources, paths } : undefined;
    report({ type: 'done', reference, destination, ...(added && { added }) });
    return {
      reference,
      id: image.id,
      digest: image.digest,
      platform: image.platform,
      layers,
      imageLayers: (image.allLayers ?? image.layers).length,
      config: image.config.raw,
      destination,
      added: sources.length > 0 ? sources : undefined,
      changed,
      notRestored,
      bytes: bytes(layers),
      seconds: {
        resolve: seconds(resolved - start),
        layers: seconds(made - resolved),
        total: seconds(performance.now() - start),
      },
    };
  });
}

const seconds = (milliseconds: number) => Math.round(milliseconds) / 1000;
