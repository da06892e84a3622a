import type { Store } from './blob/store.ts';
import type { Image } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import type { InspectedLayer, Inspection } from './report/text.ts';
import { bytesBySource } from './summary.ts';
import { findImage, withSession } from './with-session.ts';

/** Looks up an image and downloads none of its layers. @throws as `pull` does */
export async function inspect(options: PullOptions): Promise<Inspection> {
  return await withSession(options, async (opened) => {
    const { source, store } = opened;
    const { image, signers } = await findImage(opened, options, 'inspect');
    const layers = await Promise.all(image.layers.map((layer) => inspectLayer(layer, store)));
    return {
      reference: source.reference,
      id: image.id,
      digest: image.digest,
      mediaType: image.mediaType,
      platform: image.platform,
      platforms: image.platforms ?? [image.platform],
      layers,
      config: image.config.raw,
      bytes: bytesBySource(layers),
      rateLimit: image.rateLimit,
      signers,
    };
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
