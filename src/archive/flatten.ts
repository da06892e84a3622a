import type { Writable } from 'node:stream';
import { constants, createGzip, createZstdCompress } from 'node:zlib';
import { UsageError, printable } from '../errors.ts';
import type { ImageContents } from '../rootfs/image-contents.ts';
import { TAR_BLOCK_BYTES, paddingOf } from '../tar/header.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import { type ArchiveFile, writeBytes } from './archive-file.ts';
import { entryBlocks, linkBlocks, type NameRecords } from './entry-blocks.ts';
import { alignExtents, fillGaps } from './sparse-map.ts';

const END_MARK = Buffer.alloc(2 * TAR_BLOCK_BYTES);
const ZEROS = Buffer.alloc(TAR_BLOCK_BYTES);
const BATCH_BYTES = 256 * 1024;

export type ArchiveCompression = 'none' | 'gzip' | 'zstd';

/** The settings of an archive. */
export interface ArchiveOptions {
  readonly compression: ArchiveCompression;
  /** Name of the output in messages. */
  readonly name: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Returns the compression by a file's name: `.tar`, `.tar.gz` or `.tgz`, `.tar.zst` or `.tzst`; none for `-`.
 *
 * @throws UsageError for another name
 */
export function compressionFor(fileName: string): ArchiveCompression {
  if (fileName === '-' || /\.tar$/i.test(fileName)) return 'none';
  if (/\.(?:tar\.gz|tgz)$/i.test(fileName)) return 'gzip';
  if (/\.(?:tar\.zst|tzst)$/i.test(fileName)) return 'zstd';
  const disk = /^(.*)\.(qcow2|vmdk|vdi|vhdx|raw|img)$/is.exec(fileName);
  throw new UsageError(`cannot tell the format of ${printable(fileName)} by its name`, {
    hint: disk
      ? virtualDiskHint(disk[1]!, disk[2]!)
      : 'use a name that ends in .tar, .tar.gz, .tar.zst, .ext4, .squashfs or .erofs, ' +
        'or - for a tar on standard output',
  });
}

/**
 * Returns the hint for a virtual disk. qemu-img(1) converts a raw disk; `.img` and `.raw` are raw disks
 * already.
 */
function virtualDiskHint(name: string, ending: string): string {
  const ext4 = printable(`${name}.ext4`);
  const wanted = printable(`${name}.${ending}`);
  return ['img', 'raw'].includes(ending.toLowerCase())
    ? `write -o ${ext4}, then mv ${ext4} ${wanted}`
    : `write -o ${ext4}, then qemu-img convert -O ${ending.toLowerCase()} ${ext4} ${wanted}`;
}

/**
 * Writes the root file system of an image as one archive: see `flattenedTree`. A stream stays open at the
 * end; on failure it is destroyed.
 *
 * @throws DestinationError if the output cannot be written, the signal's reason, and errors of the tree's
 * layers
 */
export async function writeArchive(
  tree: ImageTree,
  output: Writable | ArchiveFile,
  { compression, name, signal }: ArchiveOptions,
): Promise<void> {
  const compress = compression === 'none' ? undefined : compressor(compression);
  await writeBytes(flattenedTree(tree), output, { name, compressor: compress, signal });
}

/** Makes a compressor without a time, name or number of threads: its bytes depend only on the data. */
function compressor(
  compression: Exclude<ArchiveCompression, 'none'>,
): ReturnType<typeof createGzip> | ReturnType<typeof createZstdCompress> {
  if (compression === 'gzip') return createGzip({ level: 6, chunkSize: 256 * 1024 });
  return createZstdCompress({
    chunkSize: 256 * 1024,
    params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_checksumFlag]: 1 },
  });
}

/** Properties of a tar that readers treat differently. */
export interface TarDialect {
  /** The holes of sparse files: kept, in GNU's format, or filled with zeros. */
  readonly holes: 'kept' | 'filled';
  readonly names: NameRecords;
}

/**
 * Yields the root file system of an image, or its selected part, as one pax archive, with entries in the
 * order of the tree and no data from elsewhere. The same image gives the same bytes. Each buffer is valid
 * until the next one is requested.
 *
 * @param written the tree's entries as they are to be written, in its order; some may be missing
 * @param dialect the features that the tar's reader supports
 * @param more blocks of other entries, which come last
 * @throws errors of the layers
 */
export async function* flattenedTree(
  tree: ImageTree,
  written: Iterable<ImageTreeEntry> = tree,
  dialect: TarDialect = { holes: 'kept', names: 'utf-8' },
  more: readonly Uint8Array[] = [],
): AsyncGenerator<Buffer, void, void> {
  const contents = tree.contents();
  const batch = new Batch();
  try {
    for (const entry of written) yield* writeEntry(entry, contents, dialect, batch);
  } finally {
    await contents.close();
  }
  for (const blocks of more) yield* batch.add(blocks);
  yield* batch.add(END_MARK);
  yield* batch.flush();
}

async function* writeEntry(
  entry: ImageTreeEntry,
  contents: ImageContents,
  { holes, names }: TarDialect,
  batch: Batch,
): AsyncGenerator<Buffer> {
  if (entry.linkTo !== undefined) {
    yield* batch.add(linkBlocks(entry, entry.linkTo, names));
    return;
  }
  if (entry.type !== 'file') {
    yield* batch.add(entryBlocks(entry, undefined, names).blocks);
    return;
  }
  const { extents, pieces } = await contents.open(entry.inode);
  const whole = [{ offset: 0, length: entry.size }];
  const aligned = extents && (holes === 'filled' ? whole : alignExtents(extents, entry.size));
  const { blocks, dataSize } = entryBlocks(entry, holes === 'filled' ? undefined : aligned, names);
  yield* batch.add(blocks);
  const filled = extents && aligned ? fillGaps(pieces, extents, aligned) : pieces;
  for await (const piece of filled) yield* batch.add(piece);
  yield* batch.add(ZEROS.subarray(0, paddingOf(dataSize)));
}

/** Copies many small pieces into one buffer, which is reused after each yield. */
class Batch {
  readonly #buffer = Buffer.allocUnsafe(BATCH_BYTES);
  #length = 0;

  /** Appends bytes; yields each full buffer. */
  *add(bytes: Uint8Array): Generator<Buffer, void, void> {
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + BATCH_BYTES - this.#length);
      this.#buffer.set(bytes.subarray(at, end), this.#length);
      this.#length += end - at;
      at = end;
      if (this.#length === BATCH_BYTES) yield this.#take();
    }
  }

  /** Yields the rest. */
  *flush(): Generator<Buffer, void, void> {
    if (this.#length > 0) yield this.#take();
  }

  #take(): Buffer {
    const full = this.#buffer.subarray(0, this.#length);
    this.#length = 0;
    return full;
  }
}
