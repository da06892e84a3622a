import { NetworkError } from '../errors.ts';
import { type Choice, chooseManifest, platformsOf } from '../oci/image-index.ts';
import type { Image, Session } from '../oci/image.ts';
import { parseJsonObject } from '../oci/json.ts';
import { describeImage, describeSchema1, type LayerDescription } from '../oci/layers.ts';
import type { Platform } from '../oci/platform.ts';
import { isTag, Reference } from '../oci/reference.ts';
import { BlobSource } from './blob-source.ts';
import type { Documents } from './documents.ts';
import type { Endpoint } from './endpoint.ts';
import type { Failover } from './failover.ts';
import { readDocument } from './http/body.ts';
import type { Response } from './http/exchange.ts';

const MAX_PAGE_BYTES = 16 * 1024 * 1024;
const MAX_PAGES = 10_000;

interface TagPage {
  readonly tags: readonly string[];
  readonly next: string | undefined;
}

/** A session by version 2 of the protocol (OCI distribution specification). */
export class Version2Session implements Session {
  readonly #reference: Reference;
  readonly #name: string;
  readonly #endpoints: Failover;
  readonly #documents: Documents;

  constructor(reference: Reference, endpoints: Failover, documents: Documents) {
    this.#reference = reference;
    this.#name = Reference.name(reference);
    this.#endpoints = endpoints;
    this.#documents = documents;
  }

  async image(platform: Platform, signal: AbortSignal): Promise<Image> {
    const image = await describedImage(this.#reference, this.#documents, platform, signal);
    return { ...image, layers: image.layers.map((layer) => this.#openable(layer)) };
  }

  #openable({ urls, ...layer }: LayerDescription): Image['layers'][number] {
    const { digest, size } = layer;
    const subject = `the layer ${digest} of ${this.#name}`;
    const source = new BlobSource({ path: `blobs/${digest}`, subject, size, urls }, this.#endpoints);
    return { ...layer, open: (range, signal) => source.open(range, signal) };
  }

  /**
   * All tags, page by page, in the registry's order.
   *
   * @throws NetworkError when the pages have no end
   */
  async *tags(signal: AbortSignal): AsyncGenerator<string, void> {
    const subject = `the list of tags of ${this.#name}`;
    /** Who answered the first page: the others may have other tags, in other pages. */
    let source: Endpoint | undefined;
    const seen = new Set<string>();
    for (let query: string | undefined = ''; query !== undefined;) {
      if (seen.has(query) || seen.size >= MAX_PAGES)
        throw new NetworkError(`cannot read ${subject}: it has no end`);
      seen.add(query);
      const read = async (response: Response): Promise<TagPage> => ({
        tags: tagsOf(parseJsonObject(await readDocument(response, MAX_PAGE_BYTES), subject)['tags']),
        next: nextPage(response.header('link'), response.url),
      });
      const asked = { path: `tags/list${query}`, subject, repository: this.#name, read };
      const page: TagPage = await (source?.ask(asked, signal) ??
        this.#endpoints.first(async (endpoint, retries) => {
          const first = await endpoint.ask(asked, signal, retries);
          source = endpoint;
          return first;
        }, signal));
      yield* page.tags;
      query = page.next;
    }
  }

  async close(): Promise<void> {
    // Its connections are those of the session that chose it.
  }
}

/** An image, and its layers as manifest and config describe them. */
type DescribedImage = Omit<Image, 'layers'> & { readonly layers: readonly LayerDescription[] };

/**
 * The image that `reference` names for a platform.
 *
 * @throws what `documents` throws; NotFoundError without an image for the platform; IntegrityError
 */
export async function describedImage(
  reference: Reference,
  documents: Documents,
  platform: Platform,
  signal: AbortSignal,
): Promise<DescribedImage> {
  const { digest, manifest, config: known, platforms } = await choose(reference, documents, platform, signal);
  const description =
    manifest.kind === 'schema1'
      ? describeSchema1(manifest)
      : describeImage(
          manifest,
          known ?? (await documents.config(manifest, signal)),
          Reference.format(reference),
        );
  return { ...description, digest, platforms, rateLimit: documents.rateLimit };
}

async function choose(
  reference: Reference,
  documents: Documents,
  platform: Platform,
  signal: AbortSignal,
): Promise<Choice & Pick<Image, 'platforms'>> {
  const { tag = 'latest', digest: wanted } = reference;
  const { document, digest } = await (wanted === undefined
    ? documents.byTag(tag, signal)
    : documents.byDigest(wanted, signal));
  if (document.kind !== 'index') return { digest, manifest: document };
  const source = {
    manifest: async (descriptor: { readonly digest: typeof digest }) =>
      (await documents.byDigest(descriptor.digest, signal)).document,
    config: (manifest: Parameters<Documents['config']>[0]) => documents.config(manifest, signal),
  };
  const choice = await chooseManifest(document, platform, source, Reference.format(reference));
  return { ...choice, platforms: platformsOf(document) };
}

/**
 * The query of the next page, by a `Link: <…>; rel="next"` header (RFC 8288); undefined on the last page, and where the link leads to
 * another server or to something other than a tag list.
 */
export function nextPage(link: string | undefined, page: URL): string | undefined {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(link ?? '') ?? [];
  const next = target === undefined ? null : URL.parse(target, page.href);
  if (!next || next.origin !== page.origin || !next.pathname.endsWith('/tags/list')) return undefined;
  return next.search;
}

/** The tags of a page; invalid names are left out. */
export function tagsOf(document: unknown): readonly string[] {
  if (!Array.isArray(document)) return [];
  return document.filter((tag) => typeof tag === 'string' && isTag(tag));
}
