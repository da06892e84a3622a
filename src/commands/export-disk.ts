import path from 'node:path';
import type { ArchiveFile } from '../archive/archive-file.ts';
import type { Store } from '../blob/store.ts';
import { checkDiskTool, type DiskTarget, writeDiskImage } from '../disk/disk-image.ts';
import { writeErofs } from '../disk/erofs.ts';
import { type DiskFormat, diskFormats, diskIdentityOf } from '../disk/format.ts';
import { findDiskTool } from '../disk/tools.ts';
import { DestinationError, printable, UsageError } from '../errors.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { ImageTree } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { containerName, openBeside, refuseExisting, writeConfig } from '../runtime/config-files.ts';
import { guestOf, type MachineConfig, machineConfig, machinePath } from '../runtime/virtual-machine.ts';

const OTHER_NAME = 'choose another name with -o, or replace it with --force';

/** Writes one format into a file. */
export interface Exporter {
  /** Checks, before anything is fetched, that `file` can be written. */
  check?(file: ArchiveFile): Promise<void>;
  /** Writes the file; returns the metadata that it could not restore. */
  write(
    tree: ImageTree,
    image: Image,
    store: Store,
    file: ArchiveFile | undefined,
  ): Promise<Readonly<NotRestored>>;
  /** Called after the file got its final name. */
  finish?(identity: string): Promise<void>;
}

/**
 * Writes the root file system of an image as a disk image, without root rights, and beside it the
 * configuration that boots it. The same image gives the same bytes.
 *
 * @param output a file; an existing one is replaced when the new file is complete
 * @param isSpecial true if `output` is a FIFO or device
 * @throws UsageError for contradictions; DestinationError where the program that makes the format is missing
 * or too old, or the configuration exists already
 */
export async function diskExporter(
  options: PullOptions,
  output: string,
  format: DiskFormat,
  isSpecial: boolean,
): Promise<Exporter> {
  if (isSpecial) throw notRegular(output);
  const {
    diskSize: size,
    diskCompression: compression,
    environment,
    part,
    force,
    virtualMachines,
    report,
    signal,
  } = options;
  const { isReadOnly } = diskFormats[format];
  if (size !== undefined && isReadOnly)
    throw new UsageError(`--size is the size of an ext4: ${format} has no free room`, {
      hint: 'leave it out, or use -o FILE.ext4',
    });
  if (part && virtualMachines.length > 0)
    throw new UsageError('cannot use --for with a part of an image', {
      hint: 'leave out --for, or --path and --exclude',
    });
  const files = virtualMachines.map(() => machinePath(output));
  if (!force) refuseExisting(files, OTHER_NAME);
  if (compression !== undefined && format !== 'erofs')
    throw new UsageError(`--compress is for an erofs, not for ${format}`, { hint: 'use -o FILE.erofs' });
  const isOurs = format === 'erofs' && compression === undefined;
  const tool = isOurs ? undefined : await findDiskTool(format, environment, signal);
  /** @throws DestinationError if a FIFO or a device now has the name */
  const targetOf = (file: ArchiveFile | undefined): Omit<DiskTarget, 'tool'> => {
    if (file?.descriptor === undefined || !file.directory) throw notRegular(output);
    const { descriptor, directory } = file;
    return { format, name: output, size, compression, directory, signal, descriptor };
  };
  let configs: readonly MachineConfig[] = [];
  return {
    async check(file) {
      const target = targetOf(file);
      if (tool) await checkDiskTool({ ...target, tool });
    },
    async write(tree, image, store, file) {
      const { config } = image;
      const { architecture } = image.platform;
      const name = containerName(path.basename(output, path.extname(output)));
      const guest = virtualMachines.length > 0 ? guestOf(tree, config, name, isReadOnly) : undefined;
      if (guest) {
        const disk = { file: output, fileSystem: format, isReadOnly, architecture, guest };
        configs = virtualMachines.map(() => machineConfig(disk));
      }
      const identity = diskIdentityOf(format, contentText(image, options), config.created);
      const request = { ...targetOf(file), identity, guestFiles: guest?.files ?? [] };
      return tool
        ? await writeDiskImage(tree, {
            ...request,
            tool,
            notice: (message) => report({ type: 'notice', message }),
            onEntries: (entries, total) => report({ type: 'disk-entries', entries, total }),
            temporaryFile: () => store.spool(),
          })
        : await writeErofs(tree, request);
    },
    async finish(identity) {
      if (configs.length === 0) return;
      using directory = openBeside(output, identity).directory;
      for (const { file, mode, text, command } of configs) {
        const place = { directory, name: path.basename(file) };
        await writeConfig(place, text, force, { mode, other: OTHER_NAME });
        report({ type: 'runtime-config', file, command });
      }
    },
  };
}

/**
 * Returns the text that the disk's identity is derived from: the image's id. A disk with other than the
 * image's files adds the options that select them.
 */
function contentText({ id, layers, allLayers }: Image, options: PullOptions): string {
  const { additions, part, virtualMachines } = options;
  const isWhole = !allLayers && additions.length === 0 && !part && virtualMachines.length === 0;
  if (isWhole) return id;
  const count = allLayers && layers.length;
  const added = additions.length > 0 ? layers.at(-1)!.id : undefined;
  return JSON.stringify({ id, count, added, part, virtualMachines });
}

function notRegular(output: string): DestinationError {
  return new DestinationError(`cannot write ${printable(output)}: a disk image is written into a file only`, {
    code: 'NOT_A_FILE',
    hint: 'name a file that does not exist yet',
  });
}
