import type { FileHandle } from 'node:fs/promises';
import type { ImageContents, ImageLayer } from '../rootfs/image-contents.ts';
import { ImageTree, type TreeEntry } from '../rootfs/image-tree.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { Batch } from './batch.ts';
import { blockSize, entryBlocks, linkBlocks, paddingOf } from './entry-blocks.ts';
import { alignExtents, fillGaps } from './sparse-map.ts';

/** What the archive became. */
export interface FlattenSummary {
  /** Entries of the layers, and of the archive. */
  readonly entriesRead: number;
  readonly entriesWritten: number;
  /** What it does not have as the image has it. */
  readonly notRestored: Readonly<NotRestored>;
}

const endMark = Buffer.alloc(2 * blockSize);
const zeros = Buffer.alloc(blockSize);

/**
 * The root file system of an image as one archive: pax, entries in the order of the tree, nothing that the image does not say. The
 * same image gives the same bytes. The layers are read twice: first for what there is in the end, then for the contents of that.
 *
 * @param layers base layer first; each is read to its last byte before the archive begins, so that nothing unverified gets into it
 * @param temporaryFile a new empty file for contents that come before their turn
 * @throws IntegrityError for a layer that makes no sense, naming it and the entry, and what the layers themselves throw
 */
export async function* flattenedTar(
  layers: readonly ImageLayer[],
  temporaryFile: () => Promise<FileHandle>,
): AsyncGenerator<Buffer, FlattenSummary, void> {
  const tree = await ImageTree.build(layers, { name: 'the archive', temporaryFile });
  const contents = tree.contents();
  const batch = new Batch();
  let entriesWritten = 0;
  try {
    for (const entry of tree) {
      yield* writeEntry(entry, contents, batch);
      entriesWritten += 1;
    }
  } finally {
    await contents.close();
    await tree.close();
  }
  yield* batch.add(endMark);
  yield* batch.flush();
  return { entriesRead: tree.entriesRead, entriesWritten, notRestored: tree.counts };
}

async function* writeEntry(entry: TreeEntry, contents: ImageContents, batch: Batch): AsyncGenerator<Buffer> {
  if (entry.linkTo !== undefined) {
    yield* batch.add(linkBlocks(entry, entry.linkTo));
    return;
  }
  if (entry.type !== 'file') {
    yield* batch.add(entryBlocks(entry, undefined).blocks);
    return;
  }
  const { extents, pieces } = await contents.open(entry.inode);
  const aligned = extents && alignExtents(extents, entry.size);
  const { blocks, dataSize } = entryBlocks(entry, aligned);
  yield* batch.add(blocks);
  const filled = extents && aligned ? fillGaps(pieces, extents, aligned) : pieces;
  for await (const piece of filled) yield* batch.add(piece);
  yield* batch.add(zeros.subarray(0, paddingOf(dataSize)));
}
