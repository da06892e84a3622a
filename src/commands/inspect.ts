import type { Store } from '../blob/store.ts';
import { readExistingImage } from './existing-image.ts';
import { protectedPaths } from './protected-paths.ts';
import { openTreeNotes } from './tree-notes.ts';
import { firstLayers } from '../oci/first-layers.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { InspectedLayer, Inspection } from '../report/text.ts';
import { Destination } from '../rootfs/destination.ts';
import { bytesBySource } from './summary.ts';
import { addedTo, findImage, type FoundImage, type Opened, withSession } from './with-session.ts';

/** Looks up an image and downloads none of its layers. @throws as `pull` does */
export async function inspect(options: PullOptions): Promise<Inspection> {
  return await withSession(options, async (opened) =>
    describe(await findImage(opened, options, 'inspect'), opened),
  );
}

async function describe({ image, signers }: FoundImage, { source, store }: Opened): Promise<Inspection> {
  const layers = await Promise.all(image.layers.map((layer) => inspectLayer(layer, store)));
  return {
    reference: source.reference,
    id: image.id,
    digest: image.digest,
    indexDigest: image.indexes?.[0],
    mediaType: image.mediaType,
    platform: image.platform,
    platforms: image.platforms ?? [image.platform],
    layers,
    config: image.config.raw,
    bytes: bytesBySource(layers),
    rateLimit: image.rateLimit,
    signers,
  };
}

/** The effect that a pull with `replace` would have on DIR. */
export interface Preview extends Inspection {
  /** The directory, as given. */
  readonly destination: string;
  /** False if DIR is the image already: the pull would do nothing. */
  readonly changed: boolean;
  /**
   * `missing`: DIR does not exist. `other-image`: its `json` names another image. `touched`: a file in it was
   * changed. `unknown`: no `--replace` made it.
   */
  readonly reason?: 'missing' | 'other-image' | 'touched' | 'unknown' | 'always';
}

/**
 * Looks up an image and DIR, and changes nothing.
 *
 * @throws as `pull` does, also for a DIR that it would not replace
 */
export async function preview(options: PullOptions): Promise<Preview> {
  const { destination, replace } = options;
  Destination.requireReplaceable(destination, protectedPaths(options));
  return await withSession(options, async (opened) => {
    const { image: whole, signers } = await findImage(opened, options, 'inspect');
    const wanted = firstLayers(whole, options.layers, opened.source.reference);
    await using added = await addedTo(wanted, opened, options);
    const image = { ...wanted, layers: [...wanted.layers, ...added.layers] };
    const description = await describe({ image, signers }, opened);
    await using notes = await openTreeNotes({ ...opened, image }, options);
    const { state } = await notes.look();
    if (state === 'untouched')
      return replace === 'always'
        ? { ...description, destination, changed: true, reason: 'always' }
        : { ...description, destination, changed: false };
    const there = readExistingImage(destination);
    const isOther = there !== undefined && there['id'] !== image.layers.at(-1)?.info['id'];
    return { ...description, destination, changed: true, reason: isOther ? 'other-image' : state };
  });
}

/** Calls `tell` with each tag of the image's repository, in the registry's order. */
export async function listTags(options: PullOptions, tell: (tag: string) => void): Promise<void> {
  await withSession(options, async ({ session }) => {
    for await (const tag of session.tags()) tell(tag);
  });
}

async function inspectLayer(layer: Image['layers'][number], store: Store): Promise<InspectedLayer> {
  const { id, digest, diffID, mediaType, size, createdBy } = layer;
  const cached = digest !== undefined && (await store.has(digest));
  return { id, digest, diffID, mediaType, size, createdBy, cached };
}
