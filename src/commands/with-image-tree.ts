import type { FileHandle } from 'node:fs/promises';
import type { FetchOptions } from '../blob/layer-blob.ts';
import { fetchAllLayers, layerQueue, type PulledLayer, withoutCorruptBlobs } from '../blob/queue.ts';
import { shortID } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { ImageLayer } from '../rootfs/image-contents.ts';
import { Spool } from '../rootfs/spool.ts';
import { ImageTree, type ImageTreeOptions } from '../rootfs/image-tree.ts';
import { type LayerSummary, summaryOf } from './summary.ts';
import type { OpenedImage } from './with-session.ts';

/**
 * Calls `use` with the root file system of an image, in memory, or the part that the options select. Every
 * layer was read to its end, and so verified.
 *
 * @param contents true if contents will be read: the layers are fetched first; else they are read while they
 * arrive, and need no room on disk
 * @throws what fetching and reading the layers throws, NotFoundError for a path that the image does not have,
 * and what `use` throws
 */
export async function withImageTree<T>(
  { image, store, source }: OpenedImage,
  options: PullOptions,
  contents: boolean,
  use: (tree: ImageTree, layers: readonly LayerSummary[]) => Promise<T>,
): Promise<T> {
  const { report, part } = options;
  const treeOptions = {
    name: source.reference,
    temporaryFile: () => store.spool(),
    temporaryDirectory: store.spoolDirectory,
    onLayer: (index: number, entries?: number) =>
      report(
        entries === undefined ? { type: 'layer-apply', index } : { type: 'layer-applied', index, entries },
      ),
  };
  const { tree, layers, close } = await withoutCorruptBlobs(report, (careful) =>
    openTree(image, { ...options, store, careful }, contents, treeOptions),
  );
  try {
    if (part) tree.select(part);
    return await use(tree, layers);
  } finally {
    await close();
  }
}

interface OpenTree {
  readonly tree: ImageTree;
  readonly layers: readonly LayerSummary[];
  readonly close: () => Promise<void>;
}

/**
 * @param contents fetch all layers first, so that they can be read again; else read each once, while it
 * arrives
 */
async function openTree(
  { layers }: Image,
  queue: FetchOptions,
  contents: boolean,
  treeOptions: ImageTreeOptions,
): Promise<OpenTree> {
  const fetched = contents ? await fetchAllLayers(layers, queue) : undefined;
  const pulled: PulledLayer[] = [];
  let tars: FileHandle | undefined;
  let spool: Spool | undefined;
  const openSpool = async (): Promise<Spool> => {
    tars ??= await treeOptions.temporaryFile();
    return (spool ??= new Spool(tars.fd, treeOptions.temporaryDirectory));
  };
  async function* treeLayers(): AsyncGenerator<ImageLayer, void, void> {
    for await (const layer of fetched?.layers ?? layerQueue(layers, queue)) {
      pulled.push(layer);
      yield contents ? rereadLayer(layer, openSpool) : treeLayer(layer);
    }
  }
  try {
    const tree = await ImageTree.build(treeLayers(), treeOptions);
    const close = async (): Promise<void> => {
      await tree.close();
      await tars?.close();
      await fetched?.close();
    };
    return { tree, layers: pulled.map((layer, index) => summaryOf(layer, tree.layerEntries[index]!)), close };
  } catch (error) {
    const failure = (await pulled.at(-1)?.explainFailure(error)) ?? error;
    await tars?.close();
    await fetched?.close();
    throw failure;
  }
}

/** Returns the layer in the form that `ImageTree` reads. */
function treeLayer(layer: PulledLayer): ImageLayer {
  const name = `layer ${shortID(layer.layer.id)}`;
  return { name, open: () => layer.tar() };
}

/**
 * Returns a layer that `ImageTree` can read again, several at once. The decoder of xz has only one stream at
 * a time, so the first reading keeps such a tar in the spool.
 */
function rereadLayer(layer: PulledLayer, spool: () => Promise<Spool>): ImageLayer {
  let kept: { readonly file: Spool; readonly start: number; readonly end: number } | undefined;
  async function* tar(): AsyncGenerator<Uint8Array, void, undefined> {
    let written: typeof kept;
    for await (const chunk of layer.tar()) {
      if (layer.compression === 'xz') {
        const file = written?.file ?? (await spool());
        const start = written?.start ?? file.size;
        file.append(chunk);
        written = { file, start, end: file.size };
      }
      yield chunk;
    }
    kept = written;
  }
  const open = () => (kept ? kept.file.pieces(kept.start, kept.end - kept.start) : tar());
  return { ...treeLayer(layer), open };
}
