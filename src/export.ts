import path from 'node:path';
import { summaryOf } from './build.ts';
import { ArchiveFile, isSpecialFile } from './archive/archive-file.ts';
import { compressionFor, flatten, type FlattenSummary } from './archive/flatten.ts';
import { diskFormatOf } from './disk/format.ts';
import { UsageError } from './errors.ts';
import { describeNotRestored } from './rootfs/rootfs.ts';
import type { PullOptions } from './options.ts';
import { fetchImage } from './resumption.ts';
import { type PullSummary, Stopwatch, summarize, Tally } from './summary.ts';
import { layerReport, treeLayer } from './with-image-tree.ts';
import { resolveImage, withSession } from './with-session.ts';

/** Standard output: a stream that is not closed here. */
export type OpenOutput = NodeJS.WritableStream & Parameters<typeof flatten>[1];

/**
 * Writes the root file system of an image as one file, without a rootfs on disk. `output` is a file, whose ending selects an archive and
 * its compression, or the format of a disk image; `-` is an archive on standard output.
 *
 * @returns what `pull` returns, with the file as its destination
 * @throws as `pull` does; a file appears complete or not at all
 */
export async function exportArchive(
  request: PullOptions,
  output: string,
  stdout: OpenOutput,
): Promise<PullSummary> {
  const special = output === '-' || (await isSpecialFile(output));
  // Temporary files go where those of a pull into this directory would: beside the file.
  const destination = path.join(special ? '.' : path.dirname(output), '-');
  const format = output === '-' ? undefined : diskFormatOf(output);
  if (format !== undefined) {
    const { exportDisk, notRegular } = await import('./export-disk.ts');
    if (special) throw notRegular(output);
    return await exportDisk({ ...request, destination }, output, format);
  }
  const tally = new Tally(request.report);
  const options = { ...request, destination, report: tally.report };
  const stopwatch = new Stopwatch();
  const { report, signal } = options;
  if (request.diskSize !== undefined)
    throw new UsageError('--size is the size of an ext4', { hint: 'leave it out, or use -o FILE.ext4' });
  const [machine] = request.virtualMachines;
  if (machine !== undefined)
    throw new UsageError(`--for ${machine} starts a disk image, not an archive`, {
      hint: 'use -o FILE.ext4',
    });
  const compression = special ? 'none' : compressionFor(output);
  const file = output === '-' ? undefined : await ArchiveFile.create(output, signal);
  try {
    return await withSession(options, async (opened) => {
      const { source, store } = opened;
      const image = await resolveImage(opened, options);
      stopwatch.lap('resolve');
      const fetched = await fetchImage(image, store, options);
      let summary: FlattenSummary;
      try {
        summary = await flatten(fetched.layers.map(treeLayer), file?.output ?? stdout, {
          compression,
          temporaryFile: () => store.spool(),
          onLayer: layerReport(report),
          name: file ? output : 'standard output',
          keepOpen: file === undefined,
          part: options.part,
          image: source.reference,
          signal,
        });
      } finally {
        await fetched.close();
      }
      await file?.commit();
      const message = describeNotRestored(summary.notRestored, true);
      if (message !== undefined) report({ type: 'notice', message });
      stopwatch.lap('layers');
      report({ type: 'done', reference: source.reference, destination: output });
      const layers = fetched.layers.map((layer, index) => summaryOf(layer, summary.layerEntries[index]!));
      const built = { layers, notRestored: summary.notRestored };
      return summarize({ source, image, built, destination: output, tally, stopwatch });
    });
  } catch (error) {
    await file?.discard();
    throw error;
  }
}
