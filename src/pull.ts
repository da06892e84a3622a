import { DamagedBlobError } from './blob/damage.ts';
import { layerQueue } from './blob/queue.ts';
import type { Store } from './blob/store.ts';
import { printable } from './errors.ts';
import { findGit } from './git/git-program.ts';
import { surveyDirectory } from './git/survey.ts';
import { platformNotice } from './oci/fitness.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { alreadyThere, skipLayers } from './resumption.ts';
import { RootfsBuild } from './rootfs-build.ts';
import type { Built } from './rootfs-build.ts';
import { prepareRootfs } from './runtime/prepare.ts';
import { checkRuntimeConfigs, writeRuntimeConfigs } from './runtime/write.ts';
import type { PullSummary } from './summary.ts';
import { Stopwatch, Tally, summarize } from './summary.ts';
import { withSession } from './with-session.ts';

/**
 * Turns an image into a root file system: the whole story. Throws a DlrootfsError, or the signal's reason; then DIR is as it was,
 * unless it held files and the image was being laid over them.
 */
export async function pull(request: PullOptions): Promise<PullSummary> {
  const tally = new Tally(request.report);
  const options = { ...request, report: tally.report };
  const { report, destination } = options;
  if (options.git) await findGit(options.environment);
  if (options.runtimes.length > 0) checkRuntimeConfigs(options.runtimes, destination, options.force);
  const stopwatch = new Stopwatch();
  return await withSession(options, async ({ source, session, store }) => {
    const image = await session.image(options.platform, options.signal);
    const unfit = platformNotice(image, options.platform, options.platformAsked, source.name);
    if (unfit !== undefined) report({ type: 'notice', message: unfit });
    report({ type: 'image', id: image.id, layers: image.layers });
    stopwatch.lap('resolve');
    const built = await buildTwice(image, store, options);
    stopwatch.lap('layers');
    await furnish(image, options);
    report({ type: 'done', reference: source.reference, destination });
    return summarize({ source, image, built, destination, tally, stopwatch });
  });
}

/** A blob in the store may turn out to be damaged when half of it is unpacked: then everything again, once, without it. */
async function buildTwice(image: Image, store: Store, options: PullOptions): Promise<Built> {
  try {
    return await build(image, store, options);
  } catch (error) {
    if (!(error instanceof DamagedBlobError)) throw error;
    options.report({ type: 'notice', message: `${error.message}: starting again without it` });
    return await build(image, store, options);
  }
}

async function build(image: Image, store: Store, options: PullOptions): Promise<Built> {
  const { signal, jobs, git, destination, environment } = options;
  const survey = git ? await surveyDirectory(destination, image.layers, { environment, signal }) : undefined;
  if (survey?.kind === 'complete') return alreadyThere(image, survey, options);
  const resumed = survey?.kind === 'partial' ? { ...survey, layers: image.layers } : undefined;
  const report = skipLayers(resumed?.common ?? 0, options.report);
  const rootfs = await RootfsBuild.open(options, resumed);
  try {
    const queue = { store, jobs, hold: rootfs.overlay, policy: options.retryPolicy, signal, report };
    for await (const layer of layerQueue(image.layers.slice(resumed?.common ?? 0), queue)) {
      report({ type: 'layer-apply', index: layer.index });
      const entries = await rootfs.apply(layer);
      report({ type: 'layer-applied', index: layer.index, entries });
    }
    return await rootfs.finish();
  } catch (error) {
    await rootfs.discard();
    throw error;
  }
}

/** What was asked for beside the rootfs itself, or put into it. */
async function furnish(image: Image, options: PullOptions): Promise<void> {
  const { destination, report, runtimes, force, rootless } = options;
  if (options.prepare) {
    const made = prepareRootfs(destination);
    if (made.length > 0) report({ type: 'notice', message: `prepared ${printable(made.join(', '))}` });
  }
  if (runtimes.length === 0) return;
  const ids = rootless ? { uid: options.uid, gid: options.gid } : undefined;
  const written = await writeRuntimeConfigs(runtimes, {
    destination,
    image: image.config,
    force,
    rootless: ids,
  });
  for (const message of written.notices) report({ type: 'notice', message: printable(message) });
  for (const [index, file] of written.files.entries()) {
    report({ type: 'runtime-config', file, command: written.next[index]! });
  }
}
