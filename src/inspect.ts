import type { Store } from './blob/store.ts';
import type { Image } from './oci/image.ts';
import type { Platform } from './oci/platform.ts';
import type { PullOptions } from './options.ts';
import type { BytesBySource } from './summary.ts';
import { bytesBySource } from './summary.ts';
import { withSession } from './with-session.ts';

export interface InspectedLayer {
  readonly id: string;
  readonly digest?: string | undefined;
  readonly diffID?: string | undefined;
  readonly mediaType: string;
  /** Compressed, in bytes. */
  readonly size?: number | undefined;
  readonly createdBy?: string | undefined;
  /** It is in the store already. */
  readonly cached: boolean;
}

/** What is to be known of an image without pulling it; `inspect` prints it. */
export interface Inspection {
  readonly reference: string;
  readonly id: string;
  readonly digest?: string | undefined;
  readonly mediaType?: string | undefined;
  readonly platform: Platform;
  /** All that the reference offers; one where it names one image. */
  readonly platforms: readonly Platform[];
  /** Base layer first. */
  readonly layers: readonly InspectedLayer[];
  readonly config: Readonly<Record<string, unknown>>;
  /** What a pull would take from the store, and what it would fetch. */
  readonly bytes: BytesBySource;
  readonly rateLimit?: string | undefined;
}

/** Looks an image up and fetches nothing of its layers. Throws as `pull` does. */
export async function inspect(options: PullOptions): Promise<Inspection> {
  return await withSession(options, async ({ source: { reference }, session, store }) => {
    const image = await session.image(options.platform, options.signal);
    const layers = await Promise.all(image.layers.map((layer) => inspectLayer(layer, store)));
    return {
      reference,
      id: image.id,
      digest: image.digest,
      mediaType: image.mediaType,
      platform: image.platform,
      platforms: image.platforms ?? [image.platform],
      layers,
      config: image.config.raw,
      bytes: bytesBySource(layers),
      rateLimit: image.rateLimit,
    };
  });
}

/** Tells all tags of the repository that the image is in, as the registry lists them. */
export async function listTags(options: PullOptions, tell: (tag: string) => void): Promise<void> {
  await withSession(options, async ({ session }) => {
    for await (const tag of session.tags(options.signal)) tell(tag);
  });
}

async function inspectLayer(layer: Image['layers'][number], store: Store): Promise<InspectedLayer> {
  const { id, digest, diffID, mediaType, size, createdBy } = layer;
  const cached = digest !== undefined && (await store.has(digest));
  return { id, digest, diffID, mediaType, size, createdBy, cached };
}
