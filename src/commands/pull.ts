import type { FetchOptions } from '../blob/layer-blob.ts';
import { layerQueue, withoutCorruptBlobs } from '../blob/queue.ts';
import { type Prepare, RootfsBuild } from './build.ts';
import {
  type Built,
  protectedPaths,
  openTreeNotes,
  reportUntouched,
  tellOfOtherFiles,
} from './existing-image.ts';
import type { Image } from '../oci/image.ts';
import { type PullOptions, refuseDiskOptions } from '../options.ts';
import { Destination } from '../rootfs/destination.ts';
import { type PullSummary, withSummary } from './summary.ts';
import type { OpenedImage } from './with-session.ts';

/**
 * Turns an image into a root file system.
 *
 * @throws a DlrootfsError, or the signal's reason; then DIR is unchanged, unless it held files and some layers were unpacked over them
 */
export async function pull(request: PullOptions): Promise<PullSummary> {
  const { destination, runtimes } = request;
  refuseDiskOptions(request, 'a directory');
  // Loaded on demand: it would add some 20 ms to every start.
  const runtime = request.prepare || runtimes.length > 0 ? await import('../runtime/write.ts') : undefined;
  runtime?.checkRuntimeConfigs(runtimes, destination, request.force);
  if (request.replace !== false) Destination.requireReplaceable(destination, protectedPaths(request));
  else if (!request.merge) Destination.requireEmpty(destination);
  const prepare = runtime && ((directory?: string) => runtime.prepareFiles(request, directory));
  return await withSummary(request, destination, async (opened, options) => {
    const built = await build(opened, prepare, options);
    await runtime?.writeRuntimeConfigs(opened.image.config, options, built.identity);
    return built;
  });
}

/** Makes DIR the image; with `replace` only if it is not that already. */
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
  if (replace !== false) await tellOfOtherFiles(options);
  const built = part
    ? await buildPart(opened, prepare, options)
    : await withoutCorruptBlobs(report, (careful) =>
        buildLayers(image, { store, careful }, prepare, options),
      );
  if (built.tree) await notes?.write(built.tree);
  return built;
}

/** Unpacks layer after layer while the next ones are downloaded. */
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
 * Makes a rootfs of the part of an image that the options name. All layers are read first, in memory, so that whiteouts, links and
 * replaced files are those of the whole; what is left is then unpacked as one archive.
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
  return await withImageTree(opened, options, true, async (tree, layers) => {
    const fill = (rootfs: RootfsBuild) => rootfs.applyPart(flattenedTree(tree), layers, all.at(-1)?.info);
    return await RootfsBuild.make(options, all, prepare, fill);
  });
}
