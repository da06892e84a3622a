import type { FileHandle } from 'node:fs/promises';
import { DlrootfsError, IntegrityError } from '../errors.ts';
import { AsyncTarReader } from '../tar/async-reader.ts';
import { displayPath, MalformedTarError } from '../tar/entry.ts';
import { AccountFiles } from './account-files.ts';
import { Batch } from './batch.ts';
import { Contents, type FlattenLayer } from './contents.ts';
import { blockSize, entryBlocks, linkBlocks, paddingOf } from './entry-blocks.ts';
import { FileTree } from './file-tree.ts';
import { alignExtents, fillGaps } from './sparse-map.ts';
import { inOrder, type Placed } from './walk.ts';

/** What the archive became. */
export interface FlattenSummary {
  /** Entries of the layers, and of the archive. */
  readonly entriesRead: number;
  readonly entriesWritten: number;
  /** Entries for the root that are no directory: left out. */
  readonly ignored: number;
}

const endMark = Buffer.alloc(2 * blockSize);
const zeros = Buffer.alloc(blockSize);

/**
 * The root file system of an image as one archive: pax, entries in the order of their names, nothing that the image does not say. The
 * same image gives the same bytes. The layers are read twice: first for what there is in the end, then for the contents of that.
 *
 * @param layers base layer first; each is read to its last byte before the archive begins, so that nothing unverified gets into it
 * @param temporaryFile a new empty file for contents that come before their turn
 * @throws IntegrityError for a layer that makes no sense, naming it and the entry, and what the layers themselves throw
 */
export async function* flattenedTar(
  layers: readonly FlattenLayer[],
  temporaryFile: () => Promise<FileHandle>,
): AsyncGenerator<Buffer, FlattenSummary, void> {
  const tree = new FileTree();
  let entriesRead = 0;
  const accounts = new AccountFiles();
  for (const layer of layers) entriesRead += await readLayer(tree, accounts, layer);

  const contents = new Contents(layers, inOrder(tree.root), temporaryFile);
  const batch = new Batch();
  let entriesWritten = 0;
  try {
    for (const placed of inOrder(tree.root)) {
      yield* writeEntry(placed, contents, batch);
      entriesWritten += 1;
    }
  } finally {
    await contents.close();
  }
  yield* batch.add(endMark);
  yield* batch.flush();
  return { entriesRead, entriesWritten, ignored: tree.ignored };
}

/** Applies one layer to the tree, and reads on to its end: only there it is known to be verified. Answers how many entries it has. */
async function readLayer(tree: FileTree, accounts: AccountFiles, layer: FlattenLayer): Promise<number> {
  tree.startLayer();
  const chunks = layer.open()[Symbol.asyncIterator]();
  try {
    const reader = new AsyncTarReader(chunks, layer.name);
    let entries = 0;
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      try {
        await accounts.read(reader, tree.apply(entry));
      } catch (error) {
        if (!(error instanceof DlrootfsError) || error instanceof MalformedTarError) throw error;
        const { code, hint } = error;
        throw new IntegrityError(`${layer.name}: ${displayPath(entry.path)}: ${error.message}`, {
          code,
          hint,
          cause: error,
        });
      }
      entries += 1;
    }
    tree.numberNamedLists(accounts.names(tree.root));
    while ((await chunks.next()).done !== true);
    return entries;
  } finally {
    await chunks.return?.();
  }
}

async function* writeEntry(
  { path, inode, linkTo }: Placed,
  contents: Contents,
  batch: Batch,
): AsyncGenerator<Buffer> {
  if (linkTo !== undefined) {
    yield* batch.add(linkBlocks(path, linkTo, inode));
    return;
  }
  const { entry } = inode;
  const extents = entry.sparse && alignExtents(entry.sparse, entry.size);
  const { blocks, dataSize } = entryBlocks(path, inode, extents);
  yield* batch.add(blocks);
  if (dataSize === 0) return;
  const data = contents.read(inode);
  const filled = entry.sparse && extents ? fillGaps(data, entry.sparse, extents) : data;
  for await (const piece of filled) yield* batch.add(piece);
  yield* batch.add(zeros.subarray(0, paddingOf(dataSize)));
}
