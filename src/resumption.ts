import { printable } from './errors.ts';
import type { Survey } from './git/survey.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import type { Report } from './report/event.ts';
import type { Built } from './rootfs-build.ts';
import { nothingLost } from './rootfs/not-restored.ts';

/** With -g: all layers of the image are in DIR already, and nothing is to be done but to say so. */
export function alreadyThere(
  image: Image,
  { branch, checkedOut }: Extract<Survey, { kind: 'complete' }>,
  { destination, report }: PullOptions,
): Built {
  skipLayers(image.layers.length, report);
  const shown = printable(destination);
  const state = checkedOut
    ? 'nothing was done'
    : `another branch is checked out; to get this one back: dlrootfs checkout ${branch} -d ${shown}`;
  report({ type: 'notice', message: `${shown} has all layers of the image: ${state}` });
  const layers = image.layers.map(({ id, digest, diffID, size }) => ({
    id,
    digest,
    diffID,
    size,
    entries: 0,
  }));
  return { layers, notRestored: nothingLost() };
}

/** Tells that the first `count` layers are there, and answers a reporter for those that come after them, counted from 0. */
export function skipLayers(count: number, report: Report): Report {
  for (let index = 0; index < count; index += 1) {
    report({ type: 'layer-start', index, cached: true });
    report({ type: 'layer-fetched', index });
    report({ type: 'layer-apply', index });
    report({ type: 'layer-applied', index, entries: 0 });
  }
  if (count === 0) return report;
  return (event) => report('index' in event ? { ...event, index: event.index + count } : event);
}
