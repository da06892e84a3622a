import { DlrootfsError, IntegrityError } from '../errors.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import { Digest, digestOf, verify } from '../oci/digest.ts';
import {
  MAX_MANIFEST_BYTES,
  parseManifest,
  verifyManifest,
  type ManifestDocument,
} from '../oci/manifest-document.ts';
import type { Manifest } from '../oci/manifest.ts';
import { MANIFEST_ACCEPT } from '../oci/media-types.ts';
import { Reference } from '../oci/reference.ts';
import { readAtMost } from './http/body.ts';
import type { Query } from './endpoint.ts';
import type { Response } from './http/exchange.ts';
import type { ManifestStore, Timeouts } from './registry-options.ts';
import { describeRateLimit } from './rate-limit.ts';
import { isTransient } from './transient.ts';
import type { Mirrored } from './failover.ts';

/** A manifest or index, verified, with the digest that it was asked for by or that it has. */
export interface FoundDocument {
  readonly document: ManifestDocument;
  readonly digest: Digest;
}

/** What was wrong with bytes that came over the network may be right the next time: tried this often. */
const TRIES = 2;

/** Gets the small documents of one repository: from the store where it has them, else from a registry; all are verified. */
export class Documents {
  readonly #name: string;
  readonly #endpoints: Mirrored;
  readonly #store: ManifestStore | undefined;
  readonly #timeouts: Timeouts;
  /** What the registry said of its limits with the last manifest. */
  rateLimit: string | undefined;

  constructor(
    reference: Reference,
    endpoints: Mirrored,
    store: ManifestStore | undefined,
    timeouts: Timeouts,
  ) {
    this.#name = Reference.name(reference);
    this.#endpoints = endpoints;
    this.#store = store;
    this.#timeouts = timeouts;
  }

  /** The manifest or index that a tag points to now: one GET, or a HEAD when the store has it already. */
  async byTag(tag: string, signal: AbortSignal): Promise<FoundDocument> {
    const what = `the manifest of ${this.#name}:${tag}`;
    const known = await this.#stillThere(tag, what, signal);
    if (known) return known;
    const found = await this.#ask(`manifests/${tag}`, what, undefined, signal);
    await this.#store?.remember?.(`${this.#name}:${tag}`, found.digest);
    return found;
  }

  /** The manifest or index with this digest. */
  async byDigest(digest: Digest, signal: AbortSignal): Promise<FoundDocument> {
    const what = `the manifest ${this.#name}@${digest}`;
    return (await this.#stored(digest, what)) ?? this.#ask(`manifests/${digest}`, what, digest, signal);
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

  async #stillThere(tag: string, what: string, signal: AbortSignal): Promise<FoundDocument | undefined> {
    const store = this.#store;
    if (!store || (store.recall && (await store.recall(`${this.#name}:${tag}`)) === undefined))
      return undefined;
    const query: Query = {
      method: 'HEAD',
      path: `manifests/${tag}`,
      headers: accept,
      also: [404, 405],
      subject: what,
    };
    const digest = await this.#endpoints.ask(query, digestOfHead, signal).catch((error: unknown) => {
      // An answer to HEAD has no words; those to GET will have.
      if (error instanceof DlrootfsError && !isTransient(error)) return undefined;
      throw error;
    });
    return digest && this.#stored(digest, what);
  }

  async #stored(digest: Digest, what: string): Promise<FoundDocument | undefined> {
    const bytes = await this.#store?.get(digest);
    if (!bytes) return undefined;
    try {
      const document = parseManifest(bytes, undefined, what);
      verifyManifest(document, digest, what);
      return { document, digest };
    } catch {
      // The store is healed by what comes instead.
      return undefined;
    }
  }

  async #ask(
    path: string,
    what: string,
    digest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<FoundDocument> {
    const query: Query = { path, headers: accept, subject: what };
    const { found, bytes } = await this.#verified(
      query,
      MAX_MANIFEST_BYTES,
      signal,
      async (body, response) => {
        this.rateLimit = describeRateLimit((name) => response.header(name)) ?? this.rateLimit;
        const document = parseManifest(body, response.header('content-type'), what);
        const expected = digest ?? digestOfHeader(response);
        if (expected !== undefined) verifyManifest(document, expected, what);
        return Promise.resolve({
          found: { document, digest: expected ?? digestOf(document.payload) },
          bytes: body,
        });
      },
    );
    await this.#store?.put(found.digest, bytes);
    return found;
  }

  /** Asks, reads at most `limit` bytes, and checks; what fails its check is asked for once more. */
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
          async (response) => check(await readAtMost(response, limit, this.#timeouts, signal), response),
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

const accept = { accept: MANIFEST_ACCEPT.join(', ') };

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
