import { NotFoundError, UsageError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image, Session } from '../oci/image.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import type { Report } from '../report/event.ts';
import { Documents, type FoundDocument } from './documents.ts';
import type { ManifestStore } from './registry-options.ts';
import { describedImage } from './v2.ts';

export interface OfflineOptions {
  readonly manifestStore: ManifestStore | undefined;
  /** For errors about what the store lacks. */
  readonly hint: string;
  readonly report: Report;
}

/** A session without a network: manifests and configs come from the store, and no layer can be opened. */
export class OfflineSession implements Session {
  readonly #reference: Reference;
  readonly #missing: Missing;
  readonly #documents: Documents;

  constructor(reference: Reference, { manifestStore, hint, report }: OfflineOptions) {
    this.#reference = reference;
    this.#missing = (subject) => notCached(subject, hint);
    this.#documents = new StoredDocuments(reference, manifestStore, this.#missing, report);
  }

  async image(platform: Platform, signal: AbortSignal): Promise<Image> {
    const image = await describedImage(this.#reference, this.#documents, platform, signal);
    const layers = image.layers.map((layer) => {
      const subject = `the layer ${layer.digest} of ${Reference.name(this.#reference)}`;
      return { ...layer, open: () => Promise.reject(this.#missing(subject)) };
    });
    return { ...image, layers };
  }

  async *tags(): AsyncGenerator<string, void> {
    yield* [];
    throw new UsageError('cannot list tags offline: the cache has no lists of tags', {
      hint: 'leave out --offline',
    });
  }

  async close(): Promise<void> {
    // It has no connections.
  }
}

type Missing = (subject: string) => NotFoundError;

function notCached(subject: string, hint: string): NotFoundError {
  return new NotFoundError(`cannot read ${subject} offline: the cache does not have it`, {
    code: 'NOT_CACHED',
    hint,
  });
}

/** The documents of the store. A tag has the digest of its last download. */
class StoredDocuments extends Documents {
  readonly #name: string;
  readonly #store: ManifestStore | undefined;
  readonly #missing: Missing;
  readonly #report: Report;

  constructor(reference: Reference, store: ManifestStore | undefined, missing: Missing, report: Report) {
    super(reference, ({ subject }) => Promise.reject(missing(subject)), store);
    this.#name = Reference.name(reference);
    this.#store = store;
    this.#missing = missing;
    this.#report = report;
  }

  override async byTag(tag: string, signal: AbortSignal): Promise<FoundDocument> {
    const reference = `${this.#name}:${tag}`;
    const known = await this.#store?.recall?.(reference);
    if (!known) throw this.#missing(`the manifest of ${reference}`);
    const found = await this.byDigest(known.digest, signal);
    this.#report({ type: 'notice', message: offlineNotice(reference, known.digest, known.at) });
    return found;
  }
}

function offlineNotice(reference: string, digest: Digest, at: Date): string {
  const time = `${at.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
  return `offline: ${reference} is ${digest}, as it was at ${time}`;
}
