import { flattenedTree } from './archive/flatten.ts';
import { type Built, RootfsBuild } from './build.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { withImageTree } from './with-image-tree.ts';
import type { Opened } from './with-session.ts';

/**
 * Makes a rootfs of the part of an image that the options name. All layers are read first, in memory, so that whiteouts, links and
 * replaced files are those of the whole; what is left is then unpacked as one archive.
 *
 * @param prepare adds files of no layer
 * @throws as a pull of the whole; NotFoundError for a path that the image has not, before anything is written
 */
export async function buildPart(
  image: Image,
  opened: Opened,
  options: PullOptions,
  prepare: ((directory?: string) => void) | undefined,
): Promise<Built> {
  return await withImageTree(image, opened, options, true, async (tree, layers) => {
    const rootfs = await RootfsBuild.open(options, image.layers);
    try {
      await rootfs.applyPart(flattenedTree(tree), layers, image.layers.at(-1)?.info);
      return await rootfs.finish(prepare);
    } catch (error) {
      await rootfs.discard();
      throw error;
    }
  });
}
