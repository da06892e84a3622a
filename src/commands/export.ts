import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { Writable } from 'node:stream';
import { ArchiveFile, STANDARD_OUTPUT } from '../archive/archive-file.ts';
import { compressionFor, writeArchive } from '../archive/flatten.ts';
import { diskFormatOf } from '../disk/format.ts';
import { DestinationError, printable } from '../errors.ts';
import type { Exporter } from './export-disk.ts';
import { type PullOptions, refuseDiskOptions } from '../options.ts';
import { notRestoredText } from '../rootfs/not-restored.ts';
import type { Report } from '../report/event.ts';
import { limitHeapGrowth } from '../sys/native.ts';
import { osPath } from '../sys/os-path.ts';
import { type PullSummary, withSummary } from './summary.ts';
import { withImageTree } from './with-image-tree.ts';

/** Standard output, which is not closed here. */
export type OpenOutput = NodeJS.WritableStream & Writable;

/**
 * Writes the root file system of an image as one file, without a rootfs on disk.
 *
 * @param output a file, whose ending selects the archive's compression or the format of a disk image; `-` is
 * an archive on standard output, which is destroyed on failure
 * @returns what `pull` returns, with the file as its destination
 * @throws as `pull` does; a file appears complete or not at all
 */
export async function exportArchive(
  request: PullOptions,
  output: string,
  stdout: OpenOutput,
): Promise<PullSummary> {
  const isSpecial = output === '-' || (await isSpecialFile(output));
  // Temporary files go beside the file, as those of a pull go beside DIR.
  const destination = path.join(isSpecial ? '.' : path.dirname(output), '-');
  const options = { ...request, destination, report: limitingHeap(request.report) };
  if (request.additions.length > 0) {
    const { refuseOwnPlace } = await import('./added-sources.ts');
    await refuseOwnPlace(request, isSpecial ? undefined : destination);
  }
  const format = output === '-' ? undefined : diskFormatOf(output);
  // Loaded on demand: an archive does not need it.
  const exporter = format
    ? await (await import('./export-disk.ts')).diskExporter(options, output, format, isSpecial)
    : archiveExporter(options, output, isSpecial, stdout);
  const file = output === '-' ? undefined : await ArchiveFile.create(output, options.signal);
  try {
    if (file) await exporter.check?.(file);
    return await withSummary(options, output, async (opened, reporting) => {
      const built = await withImageTree(opened, reporting, true, async (tree, layers) => {
        return {
          layers,
          changed: true,
          notRestored: await exporter.write(tree, opened.image, opened.store, file),
        };
      });
      await file?.commit();
      const message = notRestoredText(built.notRestored, true);
      if (message !== undefined) reporting.report({ type: 'notice', message });
      if (file?.identity !== undefined) await exporter.finish?.(file.identity);
      return built;
    });
  } catch (error) {
    if (file) await file.discard();
    else stdout.destroy();
    throw namingOutput(error, output);
  }
}

/**
 * Passes events on, and limits V8's heap when all layers are fetched. During a download the limit costs a
 * fifth of the processor time, and saves no memory.
 */
function limitingHeap(report: Report): Report {
  let left = Infinity;
  return (event) => {
    report(event);
    if (event.type === 'image') left = event.layers.length;
    if (event.type === 'layer-fetched' && (left -= 1) === 0) limitHeapGrowth();
  };
}

/**
 * Returns the error with the name of the output where the disk was full: a temporary file may have filled it.
 */
function namingOutput(error: unknown, output: string): unknown {
  if (!(error instanceof DestinationError) || !['ENOSPC', 'EDQUOT'].includes(error.code)) return error;
  const name = output === '-' ? STANDARD_OUTPUT : printable(output);
  if (error.message.startsWith(`cannot write ${name}: `)) return error;
  const { message, code, hint } = error;
  return new DestinationError(`cannot write ${name}: ${message}`, { code, hint, cause: error });
}

/** @throws UsageError for options of a disk image, and for a name without a known ending */
function archiveExporter(
  options: PullOptions,
  output: string,
  isSpecial: boolean,
  stdout: OpenOutput,
): Exporter {
  refuseDiskOptions(options, 'an archive');
  const { signal } = options;
  const compression = isSpecial ? 'none' : compressionFor(output);
  return {
    async write(tree, _image, _store, file) {
      const name = file ? output : STANDARD_OUTPUT;
      await writeArchive(tree, file ?? stdout, { compression, name, signal });
      return tree.counts;
    },
  };
}

/** Returns true for a FIFO or a device. Its name does not show the format that its reader expects. */
async function isSpecialFile(name: string): Promise<boolean> {
  const existing = await stat(osPath(name)).catch(() => undefined);
  return existing !== undefined && !existing.isFile() && !existing.isDirectory();
}
