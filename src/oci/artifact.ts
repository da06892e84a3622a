import { IntegrityError } from '../errors.ts';
import { algorithmOf, type Digest, hexOf } from './digest.ts';
import { isObject, listOf, parseJsonObject, textOf } from './json.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, parseDescriptor } from './manifest.ts';
import { manifestKind, mediaTypeOf } from './media-types.ts';

/**
 * A manifest of documents about an image, such as signatures (OCI manifest.md, "Guidelines for Artifact
 * Usage").
 */
export interface Artifact {
  /** `artifactType`, else the media type of its config. */
  readonly type: string;
  /** The manifest that the documents are about, if the artifact names one. */
  readonly subject: Digest | undefined;
  readonly layers: readonly Descriptor[];
}

/** Limit on the bytes of one document, such as a signature or a bundle. */
export const MAX_DOCUMENT_BYTES = 1024 * 1024;
/** Limit on the documents of one artifact. */
const MAX_DOCUMENTS = 10_000;

/**
 * Parses the manifest of an artifact, whose digest is verified already.
 *
 * @throws IntegrityError
 */
export function parseArtifact(bytes: Uint8Array, what: string): Artifact {
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw new IntegrityError(`${what} has ${bytes.length} bytes, ${MAX_MANIFEST_BYTES} are allowed`);
  const document = parseJsonObject(bytes, what);
  const kind = manifestKind(mediaTypeOf(textOf(document['mediaType']) ?? ''));
  if ((kind !== undefined && kind !== 'manifest') || document['manifests'] !== undefined)
    throw new IntegrityError(`${what} is no manifest of documents`);
  const { config, subject } = document;
  const configType = isObject(config) ? textOf(config['mediaType']) : undefined;
  return {
    type: mediaTypeOf(textOf(document['artifactType']) ?? configType ?? ''),
    subject:
      subject === undefined || subject === null
        ? undefined
        : parseDescriptor(subject, `the subject of ${what}`).digest,
    layers: listOf(document['layers'] ?? [], 'layers', what, MAX_DOCUMENTS).map((entry, place) =>
      parseDescriptor(entry, `layers[${place}] of ${what}`),
    ),
  };
}

/** The artifacts that refer to a manifest, in the registry's order. */
export interface Referrers {
  readonly descriptors: readonly Descriptor[];
  /** True if more exist than were read. */
  readonly isCut: boolean;
}

/**
 * Reads documents beside the images of a repository or layout, such as signatures. All bytes that have a
 * digest are verified.
 */
export interface Attachments {
  /**
   * Lists artifacts whose subject is this manifest (distribution specification, "Listing Referrers").
   *
   * @param types of the wanted artifacts; others may be omitted
   */
  referrers(digest: Digest, types: readonly string[]): Promise<Referrers>;
  /** Reads a manifest; undefined if it does not exist. */
  manifest(digest: Digest): Promise<Uint8Array | undefined>;
  /** Reads the manifest that a tag names, with documents about `subject`; undefined if it does not exist. */
  taggedManifest(tag: string, subject: Digest): Promise<Uint8Array | undefined>;
  /**
   * Reads a small blob.
   *
   * @throws NotFoundError if it does not exist
   */
  blob(blob: Pick<Descriptor, 'digest' | 'size'>): Promise<Uint8Array>;
  /**
   * Reads a small document about `subject` at another address, without credentials; undefined if it does not
   * exist. Layouts lack this method.
   */
  elsewhere?(url: URL, subject: Digest): Promise<Uint8Array | undefined>;
}

/**
 * Returns the tag that lists the referrers of a manifest in a registry without that API: "Referrers Tag
 * Schema".
 */
export function referrersTag(digest: Digest): string {
  return `${algorithmOf(digest)}-${hexOf(digest).slice(0, 64)}`;
}

/** A valid signature by a demanded signer. */
export interface Signer {
  /** The signed manifest or index. */
  readonly signed: Digest;
  /** The place of the signature: `referrer sha256:…`, or `signature 1 of the tag sha256-….sig`. */
  readonly place: string;
  /** The file of the key. */
  readonly key?: string | undefined;
  /** The subject of the certificate, and the provider that issued the identity. */
  readonly identity?: string | undefined;
  readonly issuer?: string | undefined;
  /** The name that the signer gave the image; absent in forms without one. */
  readonly reference?: string | undefined;
}
