import { IntegrityError } from '../errors.ts';
import { algorithmOf, type Digest, hexOf } from './digest.ts';
import { isObject, listOf, parseJsonObject, textOf } from './json.ts';
import { type Descriptor, MAX_MANIFEST_BYTES, parseDescriptor } from './manifest.ts';
import { manifestKind, mediaTypeOf } from './media-types.ts';

/** A manifest of documents about an image, as signatures are (OCI manifest.md, "Guidelines for Artifact Usage"). */
export interface Artifact {
  /** `artifactType`, or without one the type of its config. */
  readonly type: string;
  /** The manifest that the documents are about, where the artifact names one. */
  readonly subject: Digest | undefined;
  readonly layers: readonly Descriptor[];
}

/** Limit on documents of one artifact. */
const MAX_DOCUMENTS = 10_000;

/**
 * Reads the manifest of an artifact; its digest has been verified.
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

/** What refers to a manifest, in the order of the registry. */
export interface Referrers {
  readonly descriptors: readonly Descriptor[];
  /** There are more than were read. */
  readonly isCut: boolean;
}

/** Documents beside the images of a repository or layout: signatures among them. All bytes that come with a digest are verified. */
export interface Attachments {
  /**
   * Artifacts whose subject is this manifest (distribution specification, "Listing Referrers").
   *
   * @param types of the artifacts that are wanted; others may be left out
   */
  referrers(digest: Digest, types: readonly string[]): Promise<Referrers>;
  /** The manifest of a tag or a digest; undefined where it does not exist. */
  manifest(target: string): Promise<Uint8Array | undefined>;
  /**
   * A small blob.
   *
   * @throws NotFoundError where it does not exist
   */
  blob(blob: Pick<Descriptor, 'digest' | 'size'>): Promise<Uint8Array>;
  /** A small document at another address, without credentials; undefined where it does not exist. A layout has no such way. */
  elsewhere?(url: URL): Promise<Uint8Array | undefined>;
}

/** The tag of a repository without the API for referrers that lists those of a manifest: "Referrers Tag Schema". */
export function referrersTag(digest: Digest): string {
  return `${algorithmOf(digest)}-${hexOf(digest).slice(0, 64)}`;
}

/** A signature that counts. */
export interface Signer {
  /** The manifest or index that is signed. */
  readonly signed: Digest;
  /** The place of the signature: `referrer sha256:…`, or `signature 1 of the tag sha256-….sig`. */
  readonly place: string;
  /** The file of the key. */
  readonly key?: string | undefined;
  /** The subject of the certificate, and the provider that vouched for it. */
  readonly identity?: string | undefined;
  readonly issuer?: string | undefined;
  /** The name that the signer gave the image, in forms that have one. */
  readonly reference?: string | undefined;
}
