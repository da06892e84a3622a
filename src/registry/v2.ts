import type { Image, Session } from '../oci/image.ts';
import { chooseManifest, type Choice } from '../oci/choose-manifest.ts';
import { platformsOf } from '../oci/image-index.ts';
import { describeImage, describeSchema1, type LayerDescription } from '../oci/layers.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { BlobSource } from './blob-source.ts';
import type { Documents } from './documents.ts';
import type { Mirrored } from './failover.ts';
import type { Timeouts } from './registry-options.ts';
import { listTags } from './tag-list.ts';

/** A conversation by version 2 of the protocol (OCI distribution specification). */
export class Version2Session implements Session {
  readonly #reference: Reference;
  readonly #endpoints: Mirrored;
  readonly #documents: Documents;
  readonly #timeouts: Timeouts;

  constructor(reference: Reference, endpoints: Mirrored, documents: Documents, timeouts: Timeouts) {
    this.#reference = reference;
    this.#endpoints = endpoints;
    this.#documents = documents;
    this.#timeouts = timeouts;
  }

  async image(platform: Platform, signal: AbortSignal): Promise<Image> {
    const { digest, manifest, config: known, platforms } = await this.#choose(platform, signal);
    const what = Reference.format(this.#reference);
    const description =
      manifest.kind === 'schema1'
        ? describeSchema1(manifest)
        : describeImage(manifest, known ?? (await this.#documents.config(manifest, signal)), what);
    const { rateLimit } = this.#documents;
    const layers = description.layers.map((layer) => this.#openable(layer));
    return { ...description, digest, platforms, rateLimit, layers };
  }

  async #choose(platform: Platform, signal: AbortSignal): Promise<Choice & Pick<Image, 'platforms'>> {
    const { tag = 'latest', digest: wanted } = this.#reference;
    const documents = this.#documents;
    const { document, digest } = await (wanted === undefined
      ? documents.byTag(tag, signal)
      : documents.byDigest(wanted, signal));
    if (document.kind !== 'index') return { digest, manifest: document };
    const source = {
      manifest: async (descriptor: { readonly digest: typeof digest }) =>
        (await documents.byDigest(descriptor.digest, signal)).document,
      config: (manifest: Parameters<Documents['config']>[0]) => documents.config(manifest, signal),
    };
    const choice = await chooseManifest(document, platform, source, Reference.format(this.#reference));
    return { ...choice, platforms: platformsOf(document) };
  }

  #openable(layer: LayerDescription): Image['layers'][number] {
    const { urls: _, ...rest } = layer;
    const source = new BlobSource(layer, Reference.name(this.#reference), this.#endpoints);
    return { ...rest, open: (range, signal) => source.open(range, signal) };
  }

  tags(signal: AbortSignal): AsyncIterable<string> {
    return listTags(this.#endpoints.registry, Reference.name(this.#reference), this.#timeouts, signal);
  }

  async close(): Promise<void> {
    await this.#endpoints.close();
  }
}
