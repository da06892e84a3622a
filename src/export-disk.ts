import path from 'node:path';
import { ArchiveFile } from './archive/archive-file.ts';
import { checkDiskTool, writeDiskImage } from './disk/disk-image.ts';
import { type DiskFormat, identityOf } from './disk/format.ts';
import { findDiskTool } from './disk/tools.ts';
import { DestinationError, printable, UsageError } from './errors.ts';
import type { PullOptions } from './options.ts';
import { describeNotRestored } from './rootfs/rootfs.ts';
import { containerName, refuseExisting, writeConfig } from './runtime/config-files.ts';
import { guestOf } from './runtime/guest.ts';
import { machineCommand, machineConfig, machinePath } from './runtime/virtual-machine.ts';
import { type PullSummary, Stopwatch, summarize, Tally } from './summary.ts';
import { absolutePath } from './sys/os-path.ts';
import { withImageTree } from './with-image-tree.ts';
import { resolveImage, withSession } from './with-session.ts';

const OTHER_NAME = 'choose another name with -o, or replace it with --force';

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
  const { part, force, virtualMachines } = options;
  if (part && virtualMachines.length > 0) {
    throw new UsageError('--for does not go with a part of an image', {
      hint: 'leave out --for, or --path and --exclude',
    });
  }
  const isReadOnly = format !== 'ext4';
  const starts = virtualMachines.map((machine) => ({ machine, start: machinePath(machine, output) }));
  if (!force)
    refuseExisting(
      starts.map(({ start }) => start),
      OTHER_NAME,
    );
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
      const name = containerName(path.basename(output, path.extname(output)));
      const built = await withImageTree(image, opened, options, true, async (tree, layers) => {
        const guest = starts.length > 0 ? guestOf(tree, image.config, name, isReadOnly) : undefined;
        const { architecture } = image.platform;
        const guestDisk = guest && { file: output, fileSystem: format, isReadOnly, architecture, guest };
        const configs = guestDisk
          ? starts.map((each) => ({ ...each, text: machineConfig(each.machine, guestDisk) }))
          : [];
        const notRestored = await writeDiskImage(tree, { ...disk, additions: guest?.additions ?? [] });
        return { layers, notRestored, configs };
      });
      await file.commit();
      stopwatch.lap('layers');
      const message = describeNotRestored(built.notRestored, true);
      if (message !== undefined) report({ type: 'notice', message });
      for (const { machine, start, text } of built.configs) {
        await writeConfig(start, text, force, {
          mode: machine === 'qemu' ? 0o755 : 0o644,
          other: OTHER_NAME,
        });
        report({ type: 'runtime-config', file: start, command: machineCommand(machine, start) });
      }
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
