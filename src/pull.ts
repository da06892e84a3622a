import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { layerQueue, type LayerQueueOptions, withoutCorruptBlobs } from './blob/queue.ts';
import { type Prepare, RootfsBuild } from './build.ts';
import { printable } from './errors.ts';
import {
  reportAlreadyThere,
  countedAfter,
  type Built,
  protectedPaths,
  reportLayersThere,
  openTreeNotes,
  reportUntouched,
  tellOfOtherFiles,
} from './existing-image.ts';
import type { Image } from './oci/image.ts';
import { type PullOptions, refuseDiskOptions } from './options.ts';
import { Destination } from './rootfs/destination.ts';
import { type PullSummary, withSummary } from './summary.ts';
import { osPath } from './sys/os-path.ts';
import type { OpenedImage } from './with-session.ts';

/**
 * Turns an image into a root file system.
 *
 * @throws a DlrootfsError, or the signal's reason; then DIR is unchanged, unless it held files and some layers were unpacked over them
 */
export async function pull(request: PullOptions): Promise<PullSummary> {
  const { destination, runtimes } = request;
  refuseDiskOptions(request, 'a directory');
  // Loaded on demand: they would add some 20 ms to every start.
  const git = request.git ? await import('./git/git-program.ts') : undefined;
  await git?.findGit(request.environment);
  const runtime = request.prepare || runtimes.length > 0 ? await import('./runtime/write.ts') : undefined;
  runtime?.checkRuntimeConfigs(runtimes, destination, request.force);
  if (request.replace !== false) Destination.requireReplaceable(destination, protectedPaths(request));
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
  const untouched = replace === true ? await notes!.untouched() : undefined;
  if (untouched !== undefined) return await reportUntouched(image, untouched, options);
  if (replace !== false) {
    await tellOfOtherFiles(options);
    await tellOfBranches(options);
  }
  const built = part
    ? await buildPart(opened, prepare, options)
    : await withoutCorruptBlobs(report, (careful) =>
        buildLayers(image, { store, careful }, prepare, options),
      );
  if (built.tree) await notes?.write(built.tree);
  return built;
}

/** Reports the branches that --replace removes, before anything is downloaded; with -g those of layers are made again. */
async function tellOfBranches({ destination, git, report }: PullOptions): Promise<void> {
  if (!existsSync(osPath(join(destination, '.git')))) return;
  const [{ branchesOf }, { parseBranchName }] = await Promise.all([
    import('./git/survey.ts'),
    import('./git/refs.ts'),
  ]);
  const { length } = branchesOf(destination).filter((name) => !git || !parseBranchName(name));
  if (length === 0) return;
  const [what, them] = length === 1 ? ['1 git branch', 'it'] : [`${length} git branches`, 'them'];
  const whose = git ? 'beside those of layers' : 'of a pull with -g';
  const message = `${printable(destination)} has ${what} ${whose}: --replace removes ${them}, and -g without --replace keeps ${them}`;
  report({ type: 'notice', message });
}

/** Unpacks layer after layer while the next ones are downloaded; with -g on top of those that DIR has. */
async function buildLayers(
  image: Image,
  blobs: Pick<LayerQueueOptions, 'store' | 'careful'>,
  prepare: Prepare | undefined,
  options: PullOptions,
): Promise<Built> {
  const { signal, git, destination, environment } = options;
  const surveying = git && options.replace === false ? await import('./git/survey.ts') : undefined;
  const survey = await surveying?.surveyDirectory(destination, image.layers, { environment, signal });
  if (survey?.kind === 'complete') {
    const built = await reportAlreadyThere(image, survey, options);
    prepare?.();
    return built;
  }
  const resumed = survey?.kind === 'partial' ? { ...survey, layers: image.layers } : undefined;
  const common = resumed?.common ?? 0;
  const there = reportLayersThere(image.layers.slice(0, common), options.report);
  const report = countedAfter(common, options.report);
  const fill = async (rootfs: RootfsBuild) => {
    const { overlay: hold } = rootfs;
    const queue = { ...options, ...blobs, hold, report };
    for await (const layer of layerQueue(image.layers.slice(common), queue)) {
      report({ type: 'layer-apply', index: layer.index });
      const entries = await rootfs.apply(layer);
      report({ type: 'layer-applied', index: layer.index, entries });
    }
  };
  const built = await RootfsBuild.make(options, image.layers, fill, { prepare, resumed });
  return { ...built, layers: [...there, ...built.layers] };
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
    import('./archive/flatten.ts'),
    import('./with-image-tree.ts'),
  ]);
  const { layers: all } = opened.image;
  return await withImageTree(opened, options, true, async (tree, layers) => {
    const fill = (rootfs: RootfsBuild) => rootfs.applyPart(flattenedTree(tree), layers, all.at(-1)?.info);
    return await RootfsBuild.make(options, all, fill, { prepare });
  });
}
