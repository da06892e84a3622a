import { DlrootfsError, undefinedIfNotFound } from '../errors.ts';
import {
  type Attachments,
  MAX_DOCUMENT_BYTES,
  parseArtifact,
  type Referrers,
  referrersTag,
} from '../oci/artifact.ts';
import { type Digest, verifyDigest } from '../oci/digest.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, parseManifest } from '../oci/manifest.ts';
import { manifestKind, mediaTypeOf } from '../oci/media-types.ts';
import { blobPath, namesOf, readLayoutDocument, type LayoutFiles } from './layout-files.ts';

/** Limit on the manifests that are read to find referrers. */
const MAX_READ = 1000;

/** The annotation that `cosign save` gives to the signatures of its image. */
const KIND = 'kind';
const COSIGN_SIGNATURES = 'dev.cosignproject.cosign/sigs';

/**
 * Reads documents beside the images of a layout: entries of index.json, as oras, regctl, skopeo and `cosign
 * save` write them.
 */
export class LayoutAttachments implements Attachments {
  readonly #files: LayoutFiles;
  readonly #entries: readonly Descriptor[];

  /** @param entries of index.json */
  constructor(files: LayoutFiles, entries: readonly Descriptor[]) {
    this.#files = files;
    this.#entries = entries;
  }

  async referrers(digest: Digest, types: readonly string[]): Promise<Referrers> {
    const isWanted = (type: string | undefined): boolean =>
      type === undefined || types.includes(mediaTypeOf(type));
    const tag = referrersTag(digest);
    const listed = this.#entries.find((entry) => namesOf(entry).includes(tag));
    const descriptors = listed ? await this.#listed(listed) : [];
    const possible = this.#entries.filter(
      ({ artifactType, mediaType, platform }) =>
        isWanted(artifactType) && platform === undefined && manifestKind(mediaType) === 'manifest',
    );
    const unreadable: Descriptor[] = [];
    for (const entry of possible.slice(0, MAX_READ)) {
      try {
        const artifact = parseArtifact(await this.#manifest(entry), `manifest ${entry.digest}`);
        if (artifact.subject === digest) descriptors.push({ ...entry, artifactType: artifact.type });
      } catch (error) {
        // It may be of another image. The caller reads it after the others, and gets the error then.
        if (!(error instanceof DlrootfsError)) throw error;
        unreadable.push(entry);
      }
    }
    descriptors.push(...unreadable);
    return {
      descriptors: descriptors.filter(({ artifactType }) => isWanted(artifactType)),
      isCut: possible.length > MAX_READ,
    };
  }

  /** Returns the entries of an index that a referrers tag names. */
  async #listed(entry: Descriptor): Promise<Descriptor[]> {
    const document = parseManifest(await this.#manifest(entry), entry.mediaType, `index ${entry.digest}`);
    return document.kind === 'index' ? [...document.manifests] : [];
  }

  async manifest(digest: Digest): Promise<Uint8Array | undefined> {
    return await this.#manifest({ digest }).catch(undefinedIfNotFound);
  }

  async taggedManifest(tag: string): Promise<Uint8Array | undefined> {
    const entry = this.#entryOf(tag);
    return entry && (await this.#manifest(entry).catch(undefinedIfNotFound));
  }

  #entryOf(tag: string): Descriptor | undefined {
    return (
      this.#entries.find((entry) => namesOf(entry).includes(tag)) ??
      (tag.endsWith('.sig')
        ? this.#entries.find(({ annotations }) => annotations?.[KIND] === COSIGN_SIGNATURES)
        : undefined)
    );
  }

  async #manifest({
    digest,
    size,
  }: {
    readonly digest: Digest;
    readonly size?: number;
  }): Promise<Uint8Array> {
    const what = `manifest ${digest}`;
    const limits = { max: MAX_MANIFEST_BYTES, ...(size !== undefined && { size }) };
    const bytes = await readLayoutDocument(this.#files, blobPath(digest), what, limits);
    verifyDigest(bytes, digest, `${what} of ${this.#files.name}`);
    return bytes;
  }

  async blob({ digest, size }: Pick<Descriptor, 'digest' | 'size'>): Promise<Uint8Array> {
    const what = `signature ${digest}`;
    const bytes = await readLayoutDocument(this.#files, blobPath(digest), what, {
      max: MAX_DOCUMENT_BYTES,
      size,
    });
    verifyDigest(bytes, digest, `${what} of ${this.#files.name}`);
    return bytes;
  }
}
