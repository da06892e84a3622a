import { opendir } from 'node:fs/promises';
import type { FetchOptions } from '../blob/layer-blob.ts';
import { layerQueue, withoutCorruptBlobs } from '../blob/queue.ts';
import { type Built, type Prepare, RootfsBuild } from './build.ts';
import { readExistingImage } from './existing-image.ts';
import { protectedPaths } from './protected-paths.ts';
import { openTreeNotes } from './tree-notes.ts';
import { printable } from '../errors.ts';
import type { Image, Layer } from '../oci/image.ts';
import { type PullOptions, refuseDiskOptions } from '../options.ts';
import type { Report } from '../report/event.ts';
import { Destination } from '../rootfs/destination.ts';
import { nothingLost } from '../rootfs/not-restored.ts';
import { pathBytes } from '../sys/os-path.ts';
import { type LayerSummary, type PullSummary, withSummary } from './summary.ts';
import type { OpenedImage } from './with-session.ts';

/**
 * Turns an image into a root file system.
 *
 * @throws a DlrootfsError, or the signal's reason; then DIR is unchanged, unless it held files and some
 * layers were unpacked over them
 */
export async function pull(request: PullOptions): Promise<PullSummary> {
  const { destination, runtimes } = request;
  refuseDiskOptions(request, 'a directory');
  // Loaded on demand: it would add some 20 ms to every start.
  const runtime = request.prepare || runtimes.length > 0 ? await import('../runtime/write.ts') : undefined;
  runtime?.checkRuntimeConfigs(runtimes, destination, request.force);
  if (request.replace !== false) Destination.requireReplaceable(destination, protectedPaths(request));
  else if (!request.merge) Destination.requireEmpty(destination);
  if (request.additions.length > 0)
    await (await import('./added-sources.ts')).refuseOwnPlace(request, destination);
  const prepare = runtime && ((directory?: string) => runtime.prepareFiles(request, directory));
  return await withSummary(request, destination, async (opened, options) => {
    const built = await build(opened, prepare, options);
    await runtime?.writeRuntimeConfigs(opened.image.config, options, built.identity);
    return built;
  });
}

/** Makes DIR the image; with `replace: true` only if it is not that already. */
async function build(
  opened: OpenedImage,
  prepare: Prepare | undefined,
  options: PullOptions,
): Promise<Built> {
  const { image, store } = opened;
  const { replace, part, report } = options;
  await using notes = replace === false ? undefined : await openTreeNotes(opened, options);
  const found = replace === true ? await notes!.look() : undefined;
  if (found?.state === 'untouched') return await reportUntouched(image, found.identity, options);
  if (replace !== false) await reportOtherFiles(options);
  const built = part
    ? await buildPart(opened, prepare, options)
    : await withoutCorruptBlobs(report, (careful) =>
        buildLayers(image, { store, careful }, prepare, options),
      );
  if (built.tree) await notes?.write(built.tree);
  return built;
}

/** Reports that DIR is the image already; changes nothing. */
async function reportUntouched(
  { layers }: Image,
  identity: string,
  { destination, report }: PullOptions,
): Promise<Built> {
  await Destination.tidy(destination);
  const summaries = reportLayersThere(layers, report);
  report({
    type: 'notice',
    message: `${printable(destination)} is this image already: nothing was done`,
  });
  return { layers: summaries, changed: false, notRestored: nothingLost(), identity };
}

/** Reports that the layers are in DIR; returns their summaries. */
function reportLayersThere(layers: readonly Layer[], report: Report): LayerSummary[] {
  return layers.map(({ id, digest, diffID, size }, index) => {
    report({ type: 'layer-start', index, cached: true });
    report({ type: 'layer-fetched', index });
    report({ type: 'layer-apply', index });
    report({ type: 'layer-applied', index, entries: 0 });
    return { id, digest, diffID, size, entries: 0 };
  });
}

/** The largest number of files and directories to count; for more the notice says `more than`. */
const MAX_COUNTED = 1000;

/**
 * Reports, before anything is downloaded, how many files `--replace` removes from a DIR that no pull made.
 */
async function reportOtherFiles({ destination, layerInfo, report }: PullOptions): Promise<void> {
  // A pull without `json` leaves nothing to recognize it by.
  if (!layerInfo) return;
  using root = Destination.openExisting(destination);
  if (root === undefined || readExistingImage(root.self) !== undefined) return;
  const count = await countFiles(pathBytes(root.self));
  if (count === 0) return;
  const [number, limit] = count > MAX_COUNTED ? [MAX_COUNTED, 'more than '] : [count, ''];
  const what = `${limit}${number} ${count === 1 ? 'file or directory' : 'files and directories'}`;
  const message = `${printable(destination)} has no json of an image: --replace removes ${what} in it`;
  report({ type: 'notice', message });
}

/**
 * Counts the files and directories below a directory, at most one above the limit. A directory that cannot be
 * read counts as empty.
 */
async function countFiles(root: Buffer): Promise<number> {
  // Names are bytes, one character per byte.
  const waiting = [root.toString('latin1')];
  let count = 0;
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    try {
      for await (const entry of await opendir(Buffer.from(directory, 'latin1'), { encoding: 'latin1' })) {
        count += 1;
        if (count > MAX_COUNTED) return count;
        if (entry.isDirectory()) waiting.push(`${directory}/${entry.name}`);
      }
    } catch {
      // Only the count is wrong then.
    }
  }
  return count;
}

/** Applies the layers one after another, while the next ones are downloaded. */
async function buildLayers(
  { layers }: Image,
  blobs: Pick<FetchOptions, 'store' | 'careful'>,
  prepare: Prepare | undefined,
  options: PullOptions,
): Promise<Built> {
  const { report } = options;
  return await RootfsBuild.make(options, layers, prepare, async (rootfs) => {
    for await (const layer of layerQueue(layers, { ...options, ...blobs, hold: rootfs.overlay })) {
      report({ type: 'layer-apply', index: layer.index });
      const entries = await rootfs.apply(layer);
      report({ type: 'layer-applied', index: layer.index, entries });
    }
  });
}

/**
 * Makes a rootfs of the part of an image that the options select. All layers are read into memory first, so
 * that whiteouts, links and replaced files act as in the whole image. The selected files are then unpacked as
 * one archive.
 *
 * @throws NotFoundError for a path that the image does not have, before anything is written
 */
async function buildPart(
  opened: OpenedImage,
  prepare: Prepare | undefined,
  options: PullOptions,
): Promise<Built> {
  const [{ flattenedTree }, { withImageTree }] = await Promise.all([
    import('../archive/flatten.ts'),
    import('./with-image-tree.ts'),
  ]);
  const { layers: all } = opened.image;
  return await withImageTree(opened, options, true, async (tree, layers, close) => {
    const fill = async (rootfs: RootfsBuild): Promise<void> => {
      try {
        await rootfs.applyPart(flattenedTree(tree), layers, all.at(-1)?.info);
      } finally {
        // Frees descriptors for the removal of the stage: blobs of all layers may use up the limit.
        await close();
      }
    };
    return await RootfsBuild.make(options, all, prepare, fill);
  });
}
