import { fetchAllLayers, layerQueue } from './blob/queue.ts';
import type { PulledLayer } from './blob/pulled-layer.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { withoutCorruptBlobs } from './resumption.ts';
import type { ImageLayer } from './rootfs/image-contents.ts';
import { ImageTree } from './rootfs/image-tree.ts';
import type { Opened } from './with-session.ts';

/**
 * The root file system of an image in memory, while `use` runs. Every layer was read to its end, and so verified.
 *
 * @param contents what files hold is read too: else the layers are read while they arrive, and need no room
 * @throws what fetching and reading the layers throws, and `use`
 */
export async function withImageTree<T>(
  image: Image,
  { store, source }: Opened,
  { report, signal, jobs, retryPolicy: policy }: PullOptions,
  contents: boolean,
  use: (tree: ImageTree) => Promise<T>,
): Promise<T> {
  const queue = { store, jobs, policy, signal, report };
  const treeOptions = { name: source.reference, temporaryFile: () => store.spool() };
  const closed = { close: async () => Promise.resolve() };
  const [tree, layers] = await withoutCorruptBlobs(report, async (careful) => {
    if (!contents) return [await streamed(image, { ...queue, careful }, treeOptions), closed] as const;
    const fetched = await fetchAllLayers(image.layers, { ...queue, careful });
    try {
      return [await ImageTree.build(fetched.layers.map(treeLayer), treeOptions), fetched] as const;
    } catch (error) {
      await fetched.close();
      throw error;
    }
  });
  try {
    return await use(tree);
  } finally {
    await tree.close();
    await layers.close();
  }
}

async function streamed(
  image: Image,
  queue: Parameters<typeof layerQueue>[1],
  treeOptions: Parameters<typeof ImageTree.build>[1],
): Promise<ImageTree> {
  let last: PulledLayer | undefined;
  async function* layers(): AsyncGenerator<ImageLayer, void, void> {
    for await (const layer of layerQueue(image.layers, queue)) {
      last = layer;
      yield treeLayer(layer);
    }
  }
  try {
    return await ImageTree.build(layers(), treeOptions);
  } catch (error) {
    throw last ? await last.explainFailure(error) : error;
  }
}

/** A layer as trees and archives read it. */
export function treeLayer(layer: PulledLayer): ImageLayer {
  return { name: `layer ${layer.layer.id.slice(0, 12)}`, open: () => layer.tar() };
}
