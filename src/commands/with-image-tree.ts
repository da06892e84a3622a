import type { FileHandle } from 'node:fs/promises';
import type { FetchOptions } from '../blob/layer-blob.ts';
import { Decoder } from '../blob/decode/decoder.ts';
import { TarThread } from '../blob/decode/tar-thread.ts';
import { keptLayers, layerQueue, type PulledLayer, withoutCorruptBlobs } from '../blob/queue.ts';
import { shortID } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import { createFileJobs } from '../rootfs/file-jobs.ts';
import type { ImageLayer } from '../rootfs/image-contents.ts';
import { Spool } from '../rootfs/spool.ts';
import { ImageTree, type ImageTreeOptions } from '../rootfs/image-tree.ts';
import type { SharedMemory } from '../rootfs/rootfs.ts';
import { createRing } from '../sys/ring.ts';
import { createRingDigest } from '../sys/ring-digest.ts';
import { type LayerSummary, summaryOf } from './summary.ts';
import type { OpenedImage } from './with-session.ts';

/**
 * Calls `use` with the root file system of an image, in memory, or the part that the options select. Every
 * layer was read to its end, and so verified.
 *
 * @param contents true if contents will be read: the blobs are kept until `use` ends; else each is released
 * when it was read
 * @param use may close the tree before it returns
 * @throws what fetching and reading the layers throws, NotFoundError for a path that the image does not have,
 * and what `use` throws
 */
export async function withImageTree<T>(
  { image, store, source }: OpenedImage,
  options: PullOptions,
  contents: boolean,
  use: (tree: ImageTree, layers: readonly LayerSummary[], close: () => Promise<void>) => Promise<T>,
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
    return await use(tree, layers, close);
  } finally {
    await close();
  }
}

interface OpenTree {
  readonly tree: ImageTree;
  readonly layers: readonly LayerSummary[];
  readonly close: () => Promise<void>;
}

/** @param contents keep all layers, so that they can be read again */
async function openTree(
  { layers }: Image,
  queue: FetchOptions,
  contents: boolean,
  treeOptions: ImageTreeOptions,
): Promise<OpenTree> {
  const kept = contents ? keptLayers(layers, queue) : undefined;
  const thread = Decoder.isWorth(layers) ? new TarThread(decoderMemory()) : undefined;
  const pulled: PulledLayer[] = [];
  let tars: FileHandle | undefined;
  let spool: Spool | undefined;
  const openSpool = async (): Promise<Spool> => {
    tars ??= await treeOptions.temporaryFile();
    return (spool ??= new Spool(tars.fd, treeOptions.temporaryDirectory));
  };
  async function* treeLayers(): AsyncGenerator<ImageLayer, void, void> {
    for await (const layer of kept?.layers ?? layerQueue(layers, queue)) {
      pulled.push(layer);
      const name = `layer ${shortID(layer.layer.id)}`;
      const open = () => layer.tar(thread);
      yield { name, open: contents ? reread(layer, open, openSpool) : open };
    }
  }
  let closed: Promise<unknown> | undefined;
  const close = async (): Promise<void> => {
    closed ??= Promise.all([tars?.close(), kept?.close()]);
    await closed;
  };
  try {
    const tree = await ImageTree.build(treeLayers(), treeOptions);
    const summaries = pulled.map((layer, index) => summaryOf(layer, tree.layerEntries[index]!));
    return { tree, layers: summaries, close: () => tree.close().then(close) };
  } catch (error) {
    const failure = (await pulled.at(-1)?.explainFailure(error)) ?? error;
    await close();
    throw failure;
  } finally {
    await thread?.discard();
  }
}

/** Returns memory for the decoder's thread. Nobody gives it file jobs here. */
function decoderMemory(): SharedMemory {
  return { ring: createRing(), jobs: createFileJobs(), digest: createRingDigest() };
}

/**
 * Returns a function that opens a layer's tar as `open` does, also again, and several layers at once. The
 * decoder of xz has only one stream at a time, so the first reading keeps such a tar in the spool.
 */
function reread(
  layer: PulledLayer,
  open: () => AsyncIterable<Uint8Array>,
  spool: () => Promise<Spool>,
): ImageLayer['open'] {
  let kept: { readonly file: Spool; readonly start: number; readonly end: number } | undefined;
  async function* tar(): AsyncGenerator<Uint8Array, void, undefined> {
    let written: typeof kept;
    for await (const chunk of open()) {
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
  return () => (kept ? kept.file.pieces(kept.start, kept.end - kept.start) : tar());
}
