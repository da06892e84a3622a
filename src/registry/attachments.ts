import { IntegrityError, NotFoundError, printable, undefinedIfNotFound } from '../errors.ts';
import { type Attachments, MAX_DOCUMENT_BYTES, type Referrers, referrersTag } from '../oci/artifact.ts';
import { type Digest, digestOf, verifyDigest } from '../oci/digest.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, parseManifest } from '../oci/manifest.ts';
import { MediaType, mediaTypeOf } from '../oci/media-types.ts';
import type { Endpoint, Failover, Query } from './endpoint.ts';
import { nextPage, readDocument } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import type { RegistryOptions } from './registry-options.ts';

const MAX_REFERRER_PAGES = 100;
/** Limit on the number of referrers of one manifest, of the wanted types. */
const MAX_REFERRERS = 1000;

/** Statuses of registries without the referrers API. */
const NO_API = [400, 404, 405, 406];

const ACCEPT_ATTACHMENT = {
  accept: [MediaType.ociManifest, MediaType.ociIndex, MediaType.dockerManifest].join(', '),
};

interface Page extends Referrers {
  readonly next: string | undefined;
}

/**
 * Reads signatures and other documents that refer to an image, by version 2 of the protocol. Offline it
 * returns those that an earlier run stored.
 */
export class RegistryAttachments implements Attachments {
  readonly #name: string;
  readonly #options: Pick<RegistryOptions, 'manifestStore' | 'offline'>;
  readonly #endpoints: Failover;

  constructor(
    name: string,
    options: Pick<RegistryOptions, 'manifestStore' | 'offline'>,
    endpoints: Failover,
  ) {
    this.#name = name;
    this.#options = options;
    this.#endpoints = endpoints;
  }

  async referrers(digest: Digest, types: readonly string[]): Promise<Referrers> {
    const { manifestStore: store, offline } = this.#options;
    const note = `referrers of ${this.#name}@${digest}`;
    if (offline) {
      const last = await store?.recall(note);
      const bytes = last && (await store?.get(last.digest));
      return bytes ? referrersIn(bytes, note, types) : { descriptors: [], isCut: false };
    }
    // At once, since a registry without the API would cost a round trip more.
    const tagged = this.#fromTag(digest, types);
    tagged.catch(() => undefined);
    const listed = (await this.#fromApi(digest, types)) ?? (await tagged);
    const { descriptors } = listed;
    const kept = { schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: descriptors };
    const bytes = Buffer.from(JSON.stringify(kept));
    await store?.put(digestOf(bytes), bytes);
    await store?.remember(note, digestOf(bytes), digest);
    return listed;
  }

  /** Returns undefined if no endpoint has the referrers API. */
  async #fromApi(digest: Digest, types: readonly string[]): Promise<Referrers | undefined> {
    const subject = `the referrers of ${this.#name}@${digest}`;
    const seen = new Set<string>();
    const descriptors: Descriptor[] = [];
    let source: Endpoint | undefined;
    for (let query: string | undefined = ''; query !== undefined;) {
      if (seen.has(query) || seen.size >= MAX_REFERRER_PAGES || descriptors.length > MAX_REFERRERS)
        return { descriptors: descriptors.slice(0, MAX_REFERRERS), isCut: true };
      seen.add(query);
      const asked: Query<Page | undefined> = {
        path: `referrers/${digest}${query}`,
        subject,
        repository: this.#name,
        headers: { accept: MediaType.ociIndex },
        also: NO_API,
        read: (response: Response) => readPage(response, subject, types),
      };
      const page: Page | undefined = await (source
        ? source.ask(asked)
        : this.#endpoints
            .first(asked, async (endpoint, retries) => {
              const first = await endpoint.ask(asked, retries);
              // A mirror may lack the referrers of its images.
              const isLast = retries === undefined;
              if (!first || (first.descriptors.length === 0 && !isLast)) throw withoutReferrers(endpoint);
              source = endpoint;
              return first;
            })
            .catch(undefinedIfNotFound));
      if (!page) return undefined;
      descriptors.push(...page.descriptors);
      query = page.next;
    }
    return { descriptors, isCut: false };
  }

  async #fromTag(digest: Digest, types: readonly string[]): Promise<Referrers> {
    const tag = referrersTag(digest);
    const bytes = await this.taggedManifest(tag, digest);
    return bytes
      ? referrersIn(bytes, `the tag ${tag} of ${this.#name}`, types)
      : { descriptors: [], isCut: false };
  }

  async manifest(digest: Digest): Promise<Uint8Array | undefined> {
    const { manifestStore: store, offline } = this.#options;
    const stored = await store?.get(digest);
    if (stored || offline) return stored;
    const name = `the manifest of signatures ${this.#name}@${digest}`;
    const bytes = await this.#fetchManifest(digest, name);
    if (!bytes) return undefined;
    verifyDigest(bytes, digest, name);
    await store?.put(digest, bytes);
    return bytes;
  }

  async taggedManifest(tag: string, subject: Digest): Promise<Uint8Array | undefined> {
    const { manifestStore: store, offline } = this.#options;
    const note = `${this.#name}:${tag}`;
    if (offline) {
      const last = await store?.recall(note);
      return last && (await store?.get(last.digest));
    }
    const bytes = await this.#fetchManifest(tag, `the manifest of signatures ${note}`);
    if (!bytes) return undefined;
    await store?.put(digestOf(bytes), bytes);
    await store?.remember(note, digestOf(bytes), subject);
    return bytes;
  }

  /** Returns undefined if the manifest does not exist. */
  async #fetchManifest(target: string, subject: string): Promise<Uint8Array | undefined> {
    const query = {
      path: `manifests/${target}`,
      subject,
      repository: this.#name,
      headers: ACCEPT_ATTACHMENT,
      read: readManifest,
    };
    return await this.#endpoints.ask(query).catch(undefinedIfNotFound);
  }

  async blob({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Promise<Uint8Array> {
    const { manifestStore: store, offline } = this.#options;
    const subject = `the signature ${digest} of ${this.#name}`;
    if (size > MAX_DOCUMENT_BYTES)
      throw new IntegrityError(`${subject} has ${size} bytes, ${MAX_DOCUMENT_BYTES} are allowed`);
    const stored = await store?.get(digest);
    if (stored) return stored;
    if (offline)
      throw new NotFoundError(`the cache does not have ${subject}`, {
        code: 'NOT_CACHED',
        hint: offline.hint,
      });
    const bytes = await this.#endpoints.ask({ path: `blobs/${digest}`, subject, read: readBlob });
    verifyDigest(bytes, digest, subject);
    await store?.put(digest, bytes);
    return bytes;
  }

  async elsewhere(url: URL, subject: Digest): Promise<Uint8Array | undefined> {
    const { manifestStore: store, offline } = this.#options;
    const note = `document ${url.href}`;
    if (offline) {
      const last = await store?.recall(note);
      return last && (await store?.get(last.digest));
    }
    const asked = { path: '', subject: `the document ${printable(url.href)}`, read: readBlob };
    const bytes = await this.#endpoints.last!.elsewhere(url).ask(asked).catch(undefinedIfNotFound);
    if (!bytes) return undefined;
    await store?.put(digestOf(bytes), bytes);
    await store?.remember(note, digestOf(bytes), subject);
    return bytes;
  }
}

const readManifest = (response: Response): Promise<Uint8Array> => readDocument(response, MAX_MANIFEST_BYTES);
const readBlob = (response: Response): Promise<Uint8Array> => readDocument(response, MAX_DOCUMENT_BYTES);

/** Reads a page of referrers; undefined if the registry does not have the API. */
async function readPage(
  response: Response,
  subject: string,
  types: readonly string[],
): Promise<Page | undefined> {
  const isIndex = mediaTypeOf(response.header('content-type') ?? '') === MediaType.ociIndex;
  if (response.status !== 200 || !isIndex) {
    response.discard();
    return undefined;
  }
  const bytes = await readDocument(response, MAX_MANIFEST_BYTES);
  const next = nextPage(response.header('link'), response.url, response.url.pathname);
  return { ...referrersIn(bytes, subject, types), next };
}

/**
 * Returns the descriptors of the wanted types in an index.
 *
 * @throws IntegrityError unless the bytes are an index
 */
function referrersIn(bytes: Uint8Array, what: string, types: readonly string[]): Referrers {
  const document = parseManifest(bytes, MediaType.ociIndex, what);
  if (document.kind !== 'index') throw new IntegrityError(`${what} are no index`);
  const wanted = document.manifests.filter(
    // A registry may leave out the type of an artifact.
    ({ artifactType }) => artifactType === undefined || types.includes(mediaTypeOf(artifactType)),
  );
  return { descriptors: wanted.slice(0, MAX_REFERRERS), isCut: wanted.length > MAX_REFERRERS };
}

function withoutReferrers(endpoint: Endpoint): NotFoundError {
  return new NotFoundError(`${endpoint.name} has no referrers`, { code: 'NOT_FOUND' });
}
