import { DlrootfsError, IntegrityError } from '../errors.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
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
import type { Response } from './http/exchange.ts';
import type { ManifestStore } from './registry-options.ts';
import { isTransient } from './http/transport-error.ts';

/** A manifest or index, verified, with its digest. */
export interface FoundDocument {
  readonly document: ManifestDocument;
  readonly digest: Digest;
}

/** Sends a request and reads its answer, as `Failover.ask` does. */
type Ask = <T>(query: Query<T>, signal: AbortSignal) => Promise<T>;

/** The manifests and configs of one repository: from the store where it has them, else from a registry; all are verified. */
export class Documents {
  readonly #name: string;
  readonly #ask: Ask;
  readonly #store: ManifestStore | undefined;
  /** The rate limit in the answer with the last manifest, in words. */
  rateLimit: string | undefined;

  constructor(reference: Reference, ask: Ask, store: ManifestStore | undefined) {
    this.#name = Reference.name(reference);
    this.#ask = ask;
    this.#store = store;
  }

  /** The manifest or index that a tag points to now: one GET, or a HEAD when the store has it already. */
  async byTag(tag: string, signal: AbortSignal): Promise<FoundDocument> {
    const query = {
      path: `manifests/${tag}`,
      subject: `the manifest of ${this.#name}:${tag}`,
      absent: `${this.#name} has no tag ${tag}`,
      repository: this.#name,
    };
    const known = await this.#storedByTag(tag, query, signal);
    const found = known ?? (await this.#fetchManifest(query, undefined, signal));
    await this.#store?.remember?.(`${this.#name}:${tag}`, found.digest);
    return found;
  }

  /** The manifest or index with this digest. */
  async byDigest(digest: Digest, signal: AbortSignal): Promise<FoundDocument> {
    const subject = `the manifest ${this.#name}@${digest}`;
    const stored = await this.#storedManifest(digest, subject);
    return (
      stored ??
      this.#fetchManifest(
        {
          path: `manifests/${digest}`,
          subject,
          absentHint: 'check the name and the digest (dlrootfs inspect NAME prints that of a tag)',
          repository: this.#name,
        },
        digest,
        signal,
      )
    );
  }

  /** The store's manifest of a tag, if a HEAD says that the tag still points to it. */
  async #storedByTag(
    tag: string,
    target: ManifestTarget,
    signal: AbortSignal,
  ): Promise<FoundDocument | undefined> {
    const store = this.#store;
    if (!store || (store.recall && (await store.recall(`${this.#name}:${tag}`)) === undefined))
      return undefined;
    const head = {
      ...target,
      method: 'HEAD',
      headers: ACCEPT,
      also: [404, 405],
      read: digestOfHead,
    } as const;
    const digest = await this.#ask(head, signal).catch((error: unknown) => {
      // The answer to a HEAD has no body; the one to the GET will explain the error.
      if (error instanceof DlrootfsError && !isTransient(error)) return undefined;
      throw error;
    });
    return digest && this.#storedManifest(digest, target.subject);
  }

  async #storedManifest(digest: Digest, what: string): Promise<FoundDocument | undefined> {
    const bytes = await this.#store?.get(digest);
    if (!bytes) return undefined;
    try {
      const document = parseManifest(bytes, undefined, what);
      verifyManifest(document, digest, what);
      return { document, digest };
    } catch {
      // The downloaded document replaces it.
      return undefined;
    }
  }

  async #fetchManifest(
    target: ManifestTarget,
    digest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<FoundDocument> {
    const { subject } = target;
    const read = async (response: Response) => {
      const bytes = await readDocument(response, MAX_MANIFEST_BYTES);
      this.rateLimit = describeRateLimit(response.header) ?? this.rateLimit;
      const document = parseManifest(bytes, response.header('content-type'), subject);
      const expected = digest ?? digestOfHeader(response);
      if (expected !== undefined) verifyManifest(document, expected, subject);
      return { document, digest: expected ?? digestOf(document.payload), bytes };
    };
    const { bytes, ...found } = await this.#ask({ ...target, headers: ACCEPT, read }, signal);
    await this.#store?.put(found.digest, bytes);
    return found;
  }

  /** The config of an image. */
  async config({ config: { digest, size } }: Manifest, signal: AbortSignal): Promise<ImageConfig> {
    const subject = `the config of ${this.#name}`;
    const stored = await this.#store?.get(digest);
    if (stored && digestOf(stored) === digest) return parseConfig(stored, subject);
    if (size > MAX_CONFIG_BYTES) {
      throw new IntegrityError(`${subject} has ${size} bytes, ${MAX_CONFIG_BYTES} are allowed`);
    }
    const read = async (response: Response) => {
      const bytes = await readDocument(response, size);
      verify(bytes, digest, subject);
      return bytes;
    };
    const bytes = await this.#ask({ path: `blobs/${digest}`, subject, read }, signal);
    await this.#store?.put(digest, bytes);
    return parseConfig(bytes, subject);
  }
}

/** The path of a manifest, and its name in errors. */
type ManifestTarget = Pick<Query<unknown>, 'path' | 'subject' | 'absent' | 'absentHint' | 'repository'>;

const ACCEPT = { accept: MANIFEST_ACCEPT.join(', ') };

/** The digest of the manifest in the answer's header; undefined without one, or where it cannot be checked. */
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
