import path from 'node:path';
import { ArchiveFile } from './archive/archive-file.ts';
import { checkDiskTool, writeDiskImage } from './disk/disk-image.ts';
import { type DiskFormat, identityOf } from './disk/format.ts';
import { findDiskTool } from './disk/tools.ts';
import { DestinationError, printable, UsageError } from './errors.ts';
import type { PullOptions } from './options.ts';
import { describeNotRestored } from './rootfs/rootfs.ts';
import { type PullSummary, Stopwatch, summarize, Tally } from './summary.ts';
import { absolutePath } from './sys/os-path.ts';
import { withImageTree } from './with-image-tree.ts';
import { resolveImage, withSession } from './with-session.ts';

/**
 * Writes the root file system of an image as a disk image, without a rootfs on disk and with no other rights than the file needs. The
 * same image gives the same bytes.
 *
 * @param output a file; what has the name is replaced when the new file is complete
 * @returns what `pull` returns, with the file as its destination
 * @throws as `pull` does, and DestinationError where the program that makes the format is missing, too old, or fails
 */
export async function exportDisk(
  request: PullOptions,
  output: string,
  format: DiskFormat,
): Promise<PullSummary> {
  const tally = new Tally(request.report);
  const options = { ...request, report: tally.report };
  const stopwatch = new Stopwatch();
  const { diskSize, environment, report, signal } = options;
  if (diskSize !== undefined && format !== 'ext4') {
    throw new UsageError(`--size is the size of an ext4: a ${format} has no free room`, {
      hint: 'leave it out, or use -o FILE.ext4',
    });
  }
  const tool = await findDiskTool(format, environment, signal);
  const file = await ArchiveFile.create(output, signal);
  try {
    const { descriptor } = file;
    if (descriptor === undefined) throw notRegular(output);
    const directory = absolutePath(path.dirname(output));
    const target = { format, tool, name: output, descriptor, size: diskSize, directory, signal };
    await checkDiskTool(target);
    return await withSession(options, async (opened) => {
      const { source, store } = opened;
      const image = await resolveImage(opened, options);
      stopwatch.lap('resolve');
      const identity = identityOf(format, image.id, image.config.created);
      const disk = { ...target, identity, temporaryFile: () => store.spool() };
      const built = await withImageTree(image, opened, options, true, async (tree, layers) => ({
        layers,
        notRestored: await writeDiskImage(tree, disk),
      }));
      await file.commit();
      stopwatch.lap('layers');
      const message = describeNotRestored(built.notRestored, true);
      if (message !== undefined) report({ type: 'notice', message });
      report({ type: 'done', reference: source.reference, destination: output });
      return summarize({ source, image, built, destination: output, tally, stopwatch });
    });
  } catch (error) {
    await file.discard();
    throw error;
  }
}

/** The error for a FIFO or device that has a disk image's name. */
export function notRegular(output: string): DestinationError {
  return new DestinationError(`cannot write ${printable(output)}: a disk image is written into a file only`, {
    code: 'NOT_A_FILE',
    hint: 'name a file that does not exist yet',
  });
}
