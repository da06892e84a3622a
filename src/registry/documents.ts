import { DlrootfsError, IntegrityError } from '../errors.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import { Digest, digestOf, verify } from '../oci/digest.ts';
import {
  type Manifest,
  type ManifestDocument,
  MAX_MANIFEST_BYTES,
  parseManifest,
  verifyManifest,
} from '../oci/manifest.ts';
import { MANIFEST_ACCEPT } from '../oci/media-types.ts';
import { Reference } from '../oci/reference.ts';
import { describeRateLimit } from './http/answer-error.ts';
import { readDocument } from './http/body.ts';
import type { Query } from './endpoint.ts';
import type { Failover } from './failover.ts';
import type { Response } from './http/exchange.ts';
import type { ManifestStore } from './registry-options.ts';
import { isTransient } from './http/transport-error.ts';

/** A manifest or index, verified, with its digest. */
export interface FoundDocument {
  readonly document: ManifestDocument;
  readonly digest: Digest;
}

/** Tries of a document whose bytes were wrong. */
const TRIES = 2;

/** The manifests and configs of one repository: from the store where it has them, else from a registry; all are verified. */
export class Documents {
  readonly #name: string;
  readonly #endpoints: Failover;
  readonly #store: ManifestStore | undefined;
  /** The rate limit that came with the last manifest, in words. */
  rateLimit: string | undefined;

  constructor(reference: Reference, endpoints: Failover, store: ManifestStore | undefined) {
    this.#name = Reference.name(reference);
    this.#endpoints = endpoints;
    this.#store = store;
  }

  /** The manifest or index that a tag points to now: one GET, or a HEAD when the store has it already. */
  async byTag(tag: string, signal: AbortSignal): Promise<FoundDocument> {
    const subject = `the manifest of ${this.#name}:${tag}`;
    const query: Query = {
      path: `manifests/${tag}`,
      headers: ACCEPT,
      subject,
      absent: `${this.#name} has no tag ${tag}`,
    };
    const found = (await this.#stillThere(tag, query, signal)) ?? (await this.#ask(query, undefined, signal));
    await this.#store?.remember?.(`${this.#name}:${tag}`, found.digest);
    return found;
  }

  /** The manifest or index with this digest. */
  async byDigest(digest: Digest, signal: AbortSignal): Promise<FoundDocument> {
    const subject = `the manifest ${this.#name}@${digest}`;
    const query = { path: `manifests/${digest}`, headers: ACCEPT, subject };
    return (await this.#stored(digest, subject)) ?? this.#ask(query, digest, signal);
  }

  /** The config of an image. */
  async config({ config }: Manifest, signal: AbortSignal): Promise<ImageConfig> {
    const what = `the config of ${this.#name}`;
    return parseConfig(await this.#configBytes(config, what, signal), what);
  }

  async #configBytes({ digest, size }: Descriptor, what: string, signal: AbortSignal): Promise<Uint8Array> {
    const stored = await this.#store?.get(digest);
    if (stored && digestOf(stored) === digest) return stored;
    if (size > MAX_CONFIG_BYTES) {
      throw new IntegrityError(`${what} has ${size} bytes, ${MAX_CONFIG_BYTES} are allowed`);
    }
    const bytes = await this.#verified(
      { path: `blobs/${digest}`, subject: what },
      size,
      signal,
      async (body) => {
        verify(body, digest, what);
        return Promise.resolve(body);
      },
    );
    await this.#store?.put(digest, bytes);
    return bytes;
  }

  async #stillThere(tag: string, get: Query, signal: AbortSignal): Promise<FoundDocument | undefined> {
    const store = this.#store;
    if (!store || (store.recall && (await store.recall(`${this.#name}:${tag}`)) === undefined))
      return undefined;
    const head: Query = { ...get, method: 'HEAD', also: [404, 405] };
    const digest = await this.#endpoints.ask(head, digestOfHead, signal).catch((error: unknown) => {
      // An answer to HEAD has no words; those to GET will have.
      if (error instanceof DlrootfsError && !isTransient(error)) return undefined;
      throw error;
    });
    return digest && this.#stored(digest, get.subject);
  }

  async #stored(digest: Digest, what: string): Promise<FoundDocument | undefined> {
    const bytes = await this.#store?.get(digest);
    if (!bytes) return undefined;
    try {
      const document = parseManifest(bytes, undefined, what);
      verifyManifest(document, digest, what);
      return { document, digest };
    } catch {
      // The document that is fetched instead replaces it.
      return undefined;
    }
  }

  async #ask(query: Query, digest: Digest | undefined, signal: AbortSignal): Promise<FoundDocument> {
    const { subject } = query;
    const { found, bytes } = await this.#verified(
      query,
      MAX_MANIFEST_BYTES,
      signal,
      async (body, response) => {
        this.rateLimit = describeRateLimit((name) => response.header(name)) ?? this.rateLimit;
        const document = parseManifest(body, response.header('content-type'), subject);
        const expected = digest ?? digestOfHeader(response);
        if (expected !== undefined) verifyManifest(document, expected, subject);
        return Promise.resolve({
          found: { document, digest: expected ?? digestOf(document.payload) },
          bytes: body,
        });
      },
    );
    await this.#store?.put(found.digest, bytes);
    return found;
  }

  /** Requests a document, reads at most `limit` bytes and checks them; after a failed check it requests the document once more. */
  async #verified<T>(
    query: Query,
    limit: number,
    signal: AbortSignal,
    check: (body: Uint8Array, response: Response) => Promise<T>,
  ): Promise<T> {
    for (let count = 1; ; count += 1) {
      try {
        return await this.#endpoints.ask(
          query,
          async (response) => check(await readDocument(response, limit), response),
          signal,
        );
      } catch (error) {
        // Malformed may mean broken off.
        const mismatch =
          error instanceof IntegrityError && /^(?:INTEGRITY|DIGEST_MISMATCH)$/.test(error.code);
        if (!mismatch || count >= TRIES) throw error;
      }
    }
  }
}

const ACCEPT = { accept: MANIFEST_ACCEPT.join(', ') };

/** What the registry says the manifest's digest is; undefined where it says nothing, or nothing that can be checked. */
function digestOfHeader(response: Response): Digest | undefined {
  try {
    return Digest.parse(response.header('docker-content-digest')?.trim() ?? '');
  } catch {
    return undefined;
  }
}

async function digestOfHead(response: Response): Promise<Digest | undefined> {
  return Promise.resolve(response.status === 200 ? digestOfHeader(response) : undefined);
}
