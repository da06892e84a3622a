import {
  DlrootfsError,
  IntegrityError,
  isTransient,
  NetworkError,
  NotFoundError,
  UsageError,
} from '../errors.ts';
import type { Attachments } from '../oci/artifact.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
import { Digest, digestOf, verifyDigest } from '../oci/digest.ts';
import { describeFound, type FoundDocument } from '../oci/image-index.ts';
import type { Image, LayerDescription, RemoteLayer, Session } from '../oci/image.ts';
import { parseJsonObject, ValueLimit } from '../oci/json.ts';
import {
  type Descriptor,
  CONFIG,
  isConfigDocument,
  type Manifest,
  MAX_MANIFEST_BYTES,
  noManifest,
  parseManifest,
} from '../oci/manifest.ts';
import { MANIFEST_ACCEPT } from '../oci/media-types.ts';
import type { Platform } from '../oci/platform.ts';
import { isTag, Reference } from '../oci/reference.ts';
import { RegistryAttachments } from './attachments.ts';
import { BlobSource } from './blob-source.ts';
import type { Endpoint, Failover, Query } from './endpoint.ts';
import { MAX_TAGS, MAX_TAGS_BYTES, nextPage, rateLimitText, readDocument } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import type { RegistryOptions } from './registry-options.ts';

const MAX_TAG_PAGES = 10_000;
/** Tags among which an error looks for a similar one. */
const MAX_SIMILAR_TAGS = 1000;

/** The path of a manifest, and its names in errors. */
type ManifestTarget = Pick<
  Query<unknown>,
  'path' | 'subject' | 'absent' | 'absentHint' | 'repository' | 'explain'
>;

type RegistryDocument = FoundDocument & { readonly digest: Digest };

const ACCEPT_MANIFEST = { accept: MANIFEST_ACCEPT.join(', ') };

/**
 * A session by version 2 of the protocol (OCI distribution specification). Manifests and configs come from
 * the store if it has them; all are verified.
 */
export class Version2Session implements Omit<Session<RemoteLayer>, 'close'> {
  readonly #reference: Reference;
  readonly #name: string;
  readonly #options: Pick<RegistryOptions, 'manifestStore' | 'offline' | 'report'>;
  readonly #endpoints: Failover;
  readonly #blobs = new Map<Digest, BlobSource>();
  /** The rate limit in the answer with the last manifest, in words. */
  #rateLimit: string | undefined;

  /** @param endpoints empty offline: then everything comes from the store, and no layer can be opened */
  constructor(
    reference: Reference,
    options: Pick<RegistryOptions, 'manifestStore' | 'offline' | 'report'>,
    endpoints: Failover,
  ) {
    this.#reference = reference;
    this.#name = Reference.name(reference);
    this.#options = options;
    this.#endpoints = endpoints;
  }

  async image(platform: Platform, onDocument?: (digest: Digest) => void): Promise<Image<RemoteLayer>> {
    const { tag = 'latest', digest } = this.#reference;
    if (digest !== undefined) onDocument?.(digest);
    const found = await (digest === undefined ? this.#byTag(tag) : this.#byDigest(digest, true));
    if (digest === undefined) onDocument?.(found.digest);
    const source = {
      manifest: async (listed: Pick<Descriptor, 'digest' | 'platform'>) => {
        // An entry without a platform may not be the image.
        if (listed.platform) onDocument?.(listed.digest);
        return (await this.#byDigest(listed.digest)).document;
      },
      config: (manifest: Manifest) => this.#config(manifest),
    };
    const image = await describeFound(found, platform, source, Reference.format(this.#reference));
    const layers = image.layers.map(({ urls, ...layer }) => ({
      ...layer,
      open: this.#blob({ ...layer, urls }).open,
    }));
    return { ...image, rateLimit: this.#rateLimit, layers };
  }

  attachments(): Promise<Attachments> {
    return Promise.resolve(new RegistryAttachments(this.#name, this.#options, this.#endpoints));
  }

  #blob({ digest, size, urls }: Pick<LayerDescription, 'digest' | 'size' | 'urls'>): BlobSource {
    const blob = { path: `blobs/${digest}`, subject: `the layer ${digest} of ${this.#name}`, size, urls };
    const source = this.#blobs.get(digest) ?? new BlobSource(blob, this.#endpoints);
    this.#blobs.set(digest, source);
    return source;
  }

  /**
   * Returns the manifest or index that a tag points to. Sends one GET, or a HEAD if the store knows the tag;
   * offline it returns what the tag pointed to last.
   */
  async #byTag(tag: string): Promise<RegistryDocument> {
    const { manifestStore: store, offline, report } = this.#options;
    const name = `${this.#name}:${tag}`;
    const target = {
      path: `manifests/${tag}`,
      subject: `the manifest of ${name}`,
      absent: `${this.#name} has no tag ${tag}`,
      absentHint: `check the tag: dlrootfs tags ${this.#name} lists them`,
      repository: this.#name,
    };
    const last = await store?.recall(name);
    if (offline && last) {
      const time = `${last.at.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
      const found = await this.#byDigest(last.digest);
      report({ type: 'notice', message: `offline: ${name} is ${last.digest}, as it was at ${time}` });
      return found;
    }
    const digest = last && (await this.#digestOfTag(target));
    const stored = digest && (await this.#storedManifest(digest, target.subject));
    const found =
      stored ??
      (await this.#fetchManifest(target, undefined).catch(async (error: unknown) => {
        if (error instanceof NotFoundError) error.tags = { tag, tags: await this.#firstTags() };
        throw error;
      }));
    await store?.remember(name, found.digest);
    return found;
  }

  /** Returns some tags of the repository, for an error; none if the registry does not list them at once. */
  async #firstTags(): Promise<readonly string[]> {
    const tags: string[] = [];
    try {
      for await (const tag of this.tags({ pages: 5, retries: 0 }))
        if (tags.push(tag) >= MAX_SIMILAR_TAGS) break;
    } catch {
      // The error about the tag is told.
    }
    return tags;
  }

  /**
   * Returns the manifest or index with this digest.
   *
   * @param isGiven true for a digest of the reference, which may be that of a blob
   */
  async #byDigest(digest: Digest, isGiven = false): Promise<RegistryDocument> {
    const subject = `the manifest ${this.#name}@${digest}`;
    const target = {
      path: `manifests/${digest}`,
      subject,
      absentHint: 'check the name and the digest (dlrootfs inspect NAME prints that of a tag)',
      repository: this.#name,
      explain: isGiven ? blobAsManifest(digest, subject) : undefined,
    };
    const stored = await this.#storedManifest(digest, target.subject);
    return stored ?? this.#fetchManifest(target, digest);
  }

  /** Returns the digest in the answer to a HEAD; undefined if only a GET can tell more. */
  async #digestOfTag(target: ManifestTarget): Promise<Digest | undefined> {
    const head = {
      ...target,
      method: 'HEAD',
      headers: ACCEPT_MANIFEST,
      also: [404, 405],
      read: (response: Response) =>
        Promise.resolve(response.status === 200 ? digestOfHeader(response) : undefined),
    } as const;
    return this.#endpoints.ask(head).catch((error: unknown) => {
      // The answer to a HEAD has no body; that to the GET will explain the error.
      if (error instanceof DlrootfsError && !isTransient(error)) return undefined;
      throw error;
    });
  }

  async #storedManifest(digest: Digest, what: string): Promise<RegistryDocument | undefined> {
    const bytes = await this.#options.manifestStore?.get(digest);
    if (!bytes) return undefined;
    try {
      return { document: parseManifest(bytes, undefined, what, digest), digest };
    } catch {
      // The document is downloaded again, and replaces it.
      return undefined;
    }
  }

  async #fetchManifest(target: ManifestTarget, digest: Digest | undefined): Promise<RegistryDocument> {
    const read = async (response: Response) => {
      const bytes = await readDocument(response, MAX_MANIFEST_BYTES);
      this.#rateLimit = rateLimitText(response.header) ?? this.#rateLimit;
      const expected = digest ?? digestOfHeader(response);
      const document = parseManifest(bytes, response.header('content-type'), target.subject, expected);
      return { document, digest: expected ?? digestOf(document.payload), bytes };
    };
    const { bytes, ...found } = await this.#endpoints.ask({ ...target, headers: ACCEPT_MANIFEST, read });
    await this.#options.manifestStore?.put(found.digest, bytes);
    return found;
  }

  async #config({ config: { digest, size } }: Manifest): Promise<ImageConfig> {
    const { manifestStore: store } = this.#options;
    const subject = `the config of ${this.#name}`;
    const stored = await store?.get(digest);
    if (stored && digestOf(stored) === digest) return parseConfig(stored, subject);
    if (size > MAX_CONFIG_BYTES) {
      throw new IntegrityError(`${subject} has ${size} bytes, ${MAX_CONFIG_BYTES} are allowed`);
    }
    const read = async (response: Response) => {
      const bytes = await readDocument(response, size);
      verifyDigest(bytes, digest, subject);
      return bytes;
    };
    const bytes = await this.#endpoints.ask({ path: `blobs/${digest}`, subject, read });
    await store?.put(digest, bytes);
    return parseConfig(bytes, subject);
  }

  /**
   * Yields all tags, page by page, in the registry's order.
   *
   * @param limits on the pages, and on the retries of a request
   * @throws NetworkError if there are more pages; UsageError offline
   */
  async *tags(
    limits: { readonly pages: number; readonly retries?: number } = { pages: MAX_TAG_PAGES },
  ): AsyncGenerator<string, void> {
    if (this.#options.offline) {
      throw new UsageError('cannot list tags offline: the cache has no lists of tags', {
        hint: 'leave out --offline',
      });
    }
    const subject = `the list of tags of ${this.#name}`;
    /** The endpoint that answered the first page: other endpoints may have other tags and pages. */
    let source: Endpoint | undefined;
    const seen = new Set<string>();
    for (let query: string | undefined = ''; query !== undefined;) {
      if (seen.has(query) || seen.size >= limits.pages)
        throw new NetworkError(`cannot read ${subject}: it has no end`);
      seen.add(query);
      const read = async (response: Response): Promise<TagPage> => ({
        tags: tagsOf(
          parseJsonObject(await readDocument(response, MAX_TAGS_BYTES), subject, new ValueLimit(MAX_TAGS))[
            'tags'
          ],
        ),
        next: nextPage(response.header('link'), response.url, '/tags/list'),
      });
      const asked = { path: `tags/list${query}`, subject, repository: this.#name, read };
      const page: TagPage = await (source?.ask(asked, limits.retries) ??
        this.#endpoints.first(asked, async (endpoint, retries) => {
          const first = await endpoint.ask(asked, limits.retries ?? retries);
          source = endpoint;
          return first;
        }));
      yield* page.tags;
      query = page.next;
    }
  }
}

/**
 * Explains 404 for a manifest, and the 500 of distribution's server, if the repository has a blob of that
 * digest.
 */
function blobAsManifest(digest: Digest, subject: string): Query<unknown>['explain'] {
  const read = async (response: Response): Promise<string | undefined> => {
    const bytes = await readDocument(response, MAX_CONFIG_BYTES);
    verifyDigest(bytes, digest, subject);
    // Some registries have manifests as blobs too.
    return isConfigDocument(parseJsonObject(bytes, subject)) ? CONFIG : undefined;
  };
  return async (status, endpoint) => {
    if (status !== 404 && status !== 500) return undefined;
    const blob = await endpoint
      .ask({ path: `blobs/${digest}`, subject, read }, 0)
      .catch((error: unknown) => (isOfLayer(error) ? 'a layer' : undefined));
    return blob === undefined ? undefined : noManifest(subject, blob);
  };
}

/** True for the error about a blob that is too long for a config, or no JSON. */
function isOfLayer(error: unknown): boolean {
  return error instanceof DlrootfsError && ['BODY_TOO_LARGE', 'INTEGRITY'].includes(error.code);
}

/** Returns the digest in the answer's header; undefined without one, or if it is of an unknown algorithm. */
function digestOfHeader(response: Response): Digest | undefined {
  try {
    return Digest.parse(response.header('docker-content-digest')?.trim() ?? '');
  } catch {
    return undefined;
  }
}

interface TagPage {
  readonly tags: readonly string[];
  readonly next: string | undefined;
}

/** Returns the tags of a page, without invalid names. */
export function tagsOf(document: unknown): readonly string[] {
  if (!Array.isArray(document)) return [];
  return document.filter((tag) => typeof tag === 'string' && isTag(tag));
}
