import type { Writable } from 'node:stream';
import type { FileHandle } from 'node:fs/promises';
import { constants, createGzip, createZstdCompress } from 'node:zlib';
import { UsageError, printable } from '../errors.ts';
import type { ImageContents, ImageLayer } from '../rootfs/image-contents.ts';
import { BLOCK_SIZE } from '../tar/header.ts';
import { ImageTree, type ImageTreeOptions, type TreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import type { PartOptions } from '../rootfs/selection.ts';
import { writeBytes } from './archive-file.ts';
import { entryBlocks, linkBlocks, type NameRecords, paddingOf } from './entry-blocks.ts';
import { alignExtents, fillGaps } from './sparse-map.ts';

const END_MARK = Buffer.alloc(2 * BLOCK_SIZE);
const ZEROS = Buffer.alloc(BLOCK_SIZE);
const BATCH_BYTES = 256 * 1024;

export type ArchiveCompression = 'none' | 'gzip' | 'zstd';

export interface FlattenOptions {
  readonly compression: ArchiveCompression;
  /** A new empty file, open for reading and writing, that nobody else has: for contents that come before their turn. */
  readonly temporaryFile: () => Promise<FileHandle>;
  /** See `ImageTreeOptions`. */
  readonly onLayer?: ImageTreeOptions['onLayer'];
  /** What messages call the output. Default: `the archive`. */
  readonly name?: string | undefined;
  /** Leave the output open at the end, as for standard output. */
  readonly keepOpen?: boolean;
  /** The part of the image that is written; left out: all of it. */
  readonly part?: PartOptions | undefined;
  /** What messages call the image. */
  readonly image?: string;
  readonly signal?: AbortSignal | undefined;
}

/** What the archive became. */
export interface FlattenSummary {
  /** Entries of the layers, and of the archive. */
  readonly entriesRead: number;
  readonly entriesWritten: number;
  /** Entries of each layer, base layer first. */
  readonly layerEntries: readonly number[];
  /** What it does not have as the image has it. */
  readonly notRestored: Readonly<NotRestored>;
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
  throw new UsageError(`cannot tell the format of ${printable(fileName)} by its name`, {
    hint: 'use a name that ends in .tar, .tar.gz, .tar.zst, .ext4, .squashfs or .erofs, or - for a tar on standard output',
  });
}

/**
 * Writes the root file system of an image as one archive: see `flattenedTree`. Nothing is written before every layer was read to its
 * end. The output is ended (unless `keepOpen`), or destroyed on failure.
 *
 * @throws IntegrityError for a malformed layer, DestinationError when the output cannot be written, and what the layers throw
 */
export async function flatten(
  layers: readonly ImageLayer[],
  output: Writable,
  { compression, name = 'the archive', keepOpen = false, signal, ...treeOptions }: FlattenOptions,
): Promise<FlattenSummary> {
  let summary: FlattenSummary | undefined;
  async function* source(): AsyncGenerator<Buffer, void, void> {
    summary = yield* flattenedLayers(layers, treeOptions);
  }
  const compress = compression === 'none' ? undefined : compressor(compression);
  await writeBytes(source(), output, { name, compressor: compress, end: !keepOpen, signal });
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

/**
 * The layers are read twice: first for what there is in the end, then for the contents of that.
 *
 * @param layers base layer first; each is read to its last byte before the archive begins, so that nothing unverified gets into it
 */
async function* flattenedLayers(
  layers: readonly ImageLayer[],
  {
    part,
    image = 'the image',
    ...treeOptions
  }: Pick<FlattenOptions, 'temporaryFile' | 'onLayer' | 'part' | 'image'>,
): AsyncGenerator<Buffer, FlattenSummary, void> {
  const tree = await ImageTree.build(layers, { name: image, ...treeOptions });
  try {
    if (part) tree.select(part);
    const entriesWritten = yield* flattenedTree(tree);
    const { layerEntries, counts: notRestored } = tree;
    const entriesRead = layerEntries.reduce((sum, count) => sum + count, 0);
    return { entriesRead, entriesWritten, layerEntries, notRestored };
  } finally {
    await tree.close();
  }
}

/** What not all readers of a tar take alike. */
export interface TarDialect {
  /** Of sparse files: kept, in GNU's format, or filled with zeros. */
  readonly holes: 'kept' | 'filled';
  readonly names: NameRecords;
}

/**
 * The root file system of an image, or the part of it that is selected, as one archive: pax, entries in the order of the tree, nothing
 * that the image does not say. The same image gives the same bytes. Returns the number of entries.
 *
 * @param written the tree's own entries, in its order, as they are to be written; some may be missing
 * @param dialect what the reader of the tar takes
 * @param more blocks of other entries, which come last
 * @throws what the layers throw
 */
export async function* flattenedTree(
  tree: ImageTree,
  written: Iterable<TreeEntry> = tree,
  dialect: TarDialect = { holes: 'kept', names: 'utf-8' },
  more: readonly Uint8Array[] = [],
): AsyncGenerator<Buffer, number, void> {
  const contents = tree.contents();
  const batch = new Batch();
  let entries = 0;
  try {
    for (const entry of written) {
      yield* writeEntry(entry, contents, dialect, batch);
      entries += 1;
    }
  } finally {
    await contents.close();
  }
  for (const blocks of more) yield* batch.add(blocks);
  yield* batch.add(END_MARK);
  yield* batch.flush();
  return entries;
}

async function* writeEntry(
  entry: TreeEntry,
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

/** Gathers many small pieces into buffers of one size, each of its own memory: what readers hand out lives only until their next piece. */
class Batch {
  #buffer = Buffer.allocUnsafe(BATCH_BYTES);
  #length = 0;

  /** Takes the bytes; yields every buffer that is full. */
  *add(bytes: Uint8Array): Generator<Buffer, void, void> {
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + BATCH_BYTES - this.#length);
      this.#buffer.set(bytes.subarray(at, end), this.#length);
      this.#length += end - at;
      at = end;
      if (this.#length === BATCH_BYTES) yield this.#take();
    }
  }

  /** What is left. */
  *flush(): Generator<Buffer, void, void> {
    if (this.#length > 0) yield this.#take();
  }

  #take(): Buffer {
    const full = this.#buffer.subarray(0, this.#length);
    this.#buffer = Buffer.allocUnsafe(BATCH_BYTES);
    this.#length = 0;
    return full;
  }
}
