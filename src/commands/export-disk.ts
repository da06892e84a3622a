import path from 'node:path';
import type { ArchiveFile } from '../archive/archive-file.ts';
import type { Store } from '../blob/store.ts';
import { checkDiskTool, type DiskTarget, writeDiskImage } from '../disk/disk-image.ts';
import { writeErofs } from '../disk/erofs.ts';
import { type DiskFormat, diskFormats, diskIdentityOf } from '../disk/format.ts';
import { type DiskTool, findDiskTool } from '../disk/tools.ts';
import { DestinationError, printable, UsageError } from '../errors.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { ImageTree } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { containerName, openBeside, refuseExisting, writeConfig } from '../runtime/config-files.ts';
import {
  type Guest,
  guestOf,
  type MachineConfig,
  machineConfig,
  machinePath,
} from '../runtime/virtual-machine.ts';

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
  refuseContradictions(options, format);
  if (!options.force)
    refuseExisting(
      options.virtualMachines.map(() => machinePath(output)),
      OTHER_NAME,
    );
  const isOurs = format === 'erofs' && options.diskCompression === undefined;
  const tool = isOurs ? undefined : await findDiskTool(format, options.environment, options.signal);
  return new DiskExporter(options, output, format, tool);
}

/** @throws UsageError for options that the format, or a disk of a part of an image, cannot have */
function refuseContradictions(options: PullOptions, format: DiskFormat): void {
  const { diskSize, diskCompression, part, virtualMachines } = options;
  if (diskSize !== undefined && diskFormats[format].isReadOnly)
    throw new UsageError(`--size is the size of an ext4: ${format} has no free room`, {
      hint: 'leave it out, or use -o FILE.ext4',
    });
  if (part && virtualMachines.length > 0)
    throw new UsageError('cannot use --for with a part of an image', {
      hint: 'leave out --for, or --path and --exclude',
    });
  if (diskCompression !== undefined && format !== 'erofs')
    throw new UsageError(`--compress is for an erofs, not for ${format}`, { hint: 'use -o FILE.erofs' });
}

class DiskExporter implements Exporter {
  readonly #options: PullOptions;
  readonly #output: string;
  readonly #format: DiskFormat;
  /** Undefined where this program writes the format itself. */
  readonly #tool: DiskTool | undefined;
  /** The configurations that boot the disk, known when it is written. */
  #configs: readonly MachineConfig[] = [];

  constructor(options: PullOptions, output: string, format: DiskFormat, tool: DiskTool | undefined) {
    this.#options = options;
    this.#output = output;
    this.#format = format;
    this.#tool = tool;
  }

  async check(file: ArchiveFile): Promise<void> {
    const target = this.#target(file);
    if (this.#tool) await checkDiskTool({ ...target, tool: this.#tool });
  }

  async write(
    tree: ImageTree,
    image: Image,
    store: Store,
    file: ArchiveFile | undefined,
  ): Promise<Readonly<NotRestored>> {
    const guest = this.#guest(tree, image);
    const identity = diskIdentityOf(this.#format, contentText(image, this.#options), image.config.created);
    const request = { ...this.#target(file), identity, guestFiles: guest?.files ?? [] };
    if (!this.#tool) return await writeErofs(tree, request);
    return await writeDiskImage(tree, {
      ...request,
      tool: this.#tool,
      notice: (message) => this.#options.report({ type: 'notice', message }),
      onEntries: (entries, total) => this.#options.report({ type: 'disk-entries', entries, total }),
      temporaryFile: () => store.spool(),
    });
  }

  async finish(identity: string): Promise<void> {
    if (this.#configs.length === 0) return;
    const { force, report } = this.#options;
    using directory = openBeside(this.#output, identity).directory;
    for (const { file, mode, text, command } of this.#configs) {
      const place = { directory, name: path.basename(file) };
      await writeConfig(place, text, force, { mode, other: OTHER_NAME });
      report({ type: 'runtime-config', file, command });
    }
  }

  /** @throws DestinationError if a FIFO or device now has the name */
  #target(file: ArchiveFile | undefined): Omit<DiskTarget, 'tool'> {
    if (file?.descriptor === undefined || !file.directory) throw notRegular(this.#output);
    const { descriptor, directory } = file;
    const { diskSize: size, diskCompression: compression, signal } = this.#options;
    return { format: this.#format, name: this.#output, size, compression, directory, signal, descriptor };
  }

  /** Makes the guest and its configurations; undefined without `--for`. */
  #guest(tree: ImageTree, { config, platform }: Image): Guest | undefined {
    const { virtualMachines } = this.#options;
    if (virtualMachines.length === 0) return undefined;
    const { isReadOnly } = diskFormats[this.#format];
    const name = containerName(path.basename(this.#output, path.extname(this.#output)));
    const guest = guestOf(tree, config, name, isReadOnly);
    const { architecture } = platform;
    const disk = { file: this.#output, fileSystem: this.#format, isReadOnly, architecture, guest };
    this.#configs = virtualMachines.map(() => machineConfig(disk));
    return guest;
  }
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
