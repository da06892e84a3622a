import { fetchAllLayers } from './blob/queue.ts';
import type { Store } from './blob/store.ts';
import { CorruptBlobError } from './blob/transfer.ts';
import { printable } from './errors.ts';
import type { Survey } from './git/survey.ts';
import type { Image, Layer } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import type { Report } from './report/event.ts';
import type { Built } from './build.ts';
import { Destination } from './rootfs/destination.ts';
import { nothingLost } from './rootfs/not-restored.ts';
import type { LayerSummary } from './summary.ts';

/** With -g: all layers of the image are in DIR already, and nothing is to be done but to say so. */
export async function alreadyThere(
  image: Image,
  { branch, checkedOut }: Extract<Survey, { kind: 'complete' }>,
  options: PullOptions,
): Promise<Built> {
  const back = `dlrootfs checkout ${branch} -d ${printable(options.destination)}`;
  const state = checkedOut
    ? 'nothing was done'
    : `another branch is checked out; to get this one back: ${back}`;
  return await nothingToDo(image, `has all layers of the image: ${state}`, options);
}

/** With `replace`: DIR is the image already, and nothing is to be done but to say so. */
export async function untouched(image: Image, options: PullOptions): Promise<Built> {
  return await nothingToDo(image, 'is this image already: nothing was done', options);
}

async function nothingToDo(image: Image, why: string, { destination, report }: PullOptions): Promise<Built> {
  await Destination.tidy(destination);
  const layers = layersThere(image.layers, report);
  report({ type: 'notice', message: `${printable(destination)} ${why}` });
  return { layers, notRestored: nothingLost() };
}

/** Tells that these layers, the image's first, are in DIR, and sums them up. */
export function layersThere(layers: readonly Layer[], report: Report): LayerSummary[] {
  return layers.map(({ id, digest, diffID, size }, index) => {
    report({ type: 'layer-start', index, cached: true });
    report({ type: 'layer-fetched', index });
    report({ type: 'layer-apply', index });
    report({ type: 'layer-applied', index, entries: 0 });
    return { id, digest, diffID, size, entries: 0 };
  });
}

/** A reporter for layers that are counted from 0 behind `count` others. */
export function behind(count: number, report: Report): Report {
  return count === 0
    ? report
    : (event) => report('index' in event ? { ...event, index: event.index + count } : event);
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

/** All layers of an image, each complete and right, until the result is closed. @throws as `withoutCorruptBlobs` */
export async function fetchImage(
  { layers }: Image,
  store: Store,
  { jobs, retryPolicy: policy, signal, report }: PullOptions,
): ReturnType<typeof fetchAllLayers> {
  return await withoutCorruptBlobs(report, (careful) =>
    fetchAllLayers(layers, { store, jobs, policy, signal, report, careful }),
  );
}
