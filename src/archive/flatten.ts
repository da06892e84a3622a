import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { FileHandle } from 'node:fs/promises';
import { constants, createGzip, createZstdCompress } from 'node:zlib';
import { UsageError, printable } from '../errors.ts';
import type { ImageLayer } from '../rootfs/image-contents.ts';
import { unwritable } from './archive-file.ts';
import { flattenedTar, type FlattenSummary } from './flattened-tar.ts';

export type { FlattenSummary } from './flattened-tar.ts';

export type ArchiveCompression = 'none' | 'gzip' | 'zstd';

export interface FlattenOptions {
  readonly compression: ArchiveCompression;
  /** A new empty file, open for reading and writing, that nobody else has: for contents that come before their turn. */
  readonly temporaryFile: () => Promise<FileHandle>;
  /** What messages call the output. Default: `the archive`. */
  readonly name?: string | undefined;
  /** Leave the output open at the end, as for standard output. */
  readonly keepOpen?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * By the name of the file: `.tar`, `.tar.gz` or `.tgz`, `.tar.zst` or `.tzst`; `-` is not compressed.
 *
 * @throws UsageError for another name
 */
export function compressionFor(fileName: string): ArchiveCompression {
  if (fileName === '-' || /\.tar$/i.test(fileName)) return 'none';
  if (/\.(?:tar\.gz|tgz)$/i.test(fileName)) return 'gzip';
  if (/\.(?:tar\.zst|tzst)$/i.test(fileName)) return 'zstd';
  throw new UsageError(`cannot tell from the name what kind of archive ${printable(fileName)} is to be`, {
    hint: 'use a name that ends in .tar, .tar.gz or .tar.zst, or - for a tar on standard output',
  });
}

/**
 * Writes the root file system of an image as one archive: see `flattenedTar`. Nothing is written before every layer was read to its
 * end. The output is ended (unless `keepOpen`), or destroyed on failure.
 *
 * @throws IntegrityError for a malformed layer, DestinationError when the output cannot be written, and what the layers throw
 */
export async function flatten(
  layers: readonly ImageLayer[],
  output: Writable,
  { compression, temporaryFile, name = 'the archive', keepOpen = false, signal }: FlattenOptions,
): Promise<FlattenSummary> {
  let summary: FlattenSummary | undefined;
  let sourceError: unknown;
  async function* source(): AsyncGenerator<Buffer, void, void> {
    try {
      summary = yield* flattenedTar(layers, temporaryFile);
    } catch (error) {
      // Where the output failed first, its error is thrown in here.
      if (output.errored !== error) sourceError = error;
      throw error;
    }
  }
  const archive = Readable.from(source(), { objectMode: false });
  const options = { end: !keepOpen, signal };
  try {
    if (compression === 'none') await pipeline(archive, output, options);
    else await pipeline(archive, compressor(compression), output, options);
  } catch (error) {
    signal?.throwIfAborted();
    throw error === sourceError ? error : unwritable(name, error);
  }
  return summary!;
}

/** Neither format gets a time, a name or a number of threads: the bytes depend on the data alone. */
function compressor(
  compression: Exclude<ArchiveCompression, 'none'>,
): ReturnType<typeof createGzip> | ReturnType<typeof createZstdCompress> {
  if (compression === 'gzip') return createGzip({ level: 6, chunkSize: 256 * 1024 });
  return createZstdCompress({
    chunkSize: 256 * 1024,
    params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_checksumFlag]: 1 },
  });
}
