import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { Digest, verifyDigest } from './digest.ts';
import {
  isObject,
  type JsonObject,
  listOf,
  MAX_LAYERS,
  parseJsonObject,
  textMapOf,
  textOf,
  textsOf,
} from './json.ts';
import {
  isConfigType,
  isLayerType,
  manifestKind,
  type ManifestKind,
  MediaType,
  mediaTypeOf,
} from './media-types.ts';
import { platformOf, type Platform } from './platform.ts';
import { parseSchema1, type Schema1 } from './schema1.ts';

/** The description of a blob or manifest in a manifest or index (OCI descriptor.md). */
export interface Descriptor {
  /** Lower case, without parameters; may be empty. */
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Other addresses of the blob; foreign layers have them. */
  readonly urls?: readonly string[] | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly artifactType?: string | undefined;
  /** Normalised; only in an index. */
  readonly platform?: Platform | undefined;
}

/**
 * Parses a descriptor.
 *
 * @throws IntegrityError that names `what` unless digest and size are well-formed
 */
export function parseDescriptor(value: unknown, what: string): Descriptor {
  if (!isObject(value)) throw new IntegrityError(`${what} is missing or not an object`);
  const size = value['size'];
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new IntegrityError(`the size of ${what} is not a whole number of bytes`);
  }
  const mediaType = value['mediaType'];
  if (mediaType !== undefined && mediaType !== null && typeof mediaType !== 'string') {
    throw new IntegrityError(`the media type of ${what} is not a string`);
  }
  return {
    mediaType: mediaTypeOf(mediaType ?? ''),
    digest: Digest.parse(value['digest'], `the digest of ${what}`),
    size,
    urls: textsOf(value['urls']),
    annotations: textMapOf(value['annotations']),
    artifactType: textOf(value['artifactType']),
    platform: indexPlatform(value['platform']),
  };
}

/**
 * Returns the platform of an entry; undefined without system and architecture, which only the config names
 * then.
 */
function indexPlatform(value: unknown): Platform | undefined {
  if (!isObject(value)) return undefined;
  const platform = platformOf(value);
  return platform.os === '' && platform.architecture === '' ? undefined : platform;
}

/** Limit on the entries of an index; real ones have dozens. */
const MAX_MANIFESTS = 10_000;

/** Images of one name for several platforms: an OCI image index or a Docker manifest list. */
export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  /** The entries, in the order of the document. */
  readonly manifests: readonly Descriptor[];
}

/**
 * Parses the body of an index.
 *
 * @throws IntegrityError
 */
function indexOf(document: JsonObject, mediaType: string, what: string): ImageIndex {
  const manifests = listOf(document['manifests'] ?? [], 'manifests', what, MAX_MANIFESTS);
  return {
    kind: 'index',
    mediaType: mediaType === '' ? MediaType.ociIndex : mediaType,
    manifests: manifests.map((entry, place) => parseDescriptor(entry, `manifests[${place}] of ${what}`)),
  };
}

/** True for build provenance and other attestations, which BuildKit lists among the images. */
export function isAttestation(descriptor: Descriptor): boolean {
  const { annotations, platform } = descriptor;
  if (annotations !== undefined && Object.hasOwn(annotations, 'vnd.docker.reference.type')) return true;
  return platform?.os === 'unknown' && platform.architecture === 'unknown';
}

/** One image: an OCI image manifest or a Docker image manifest of schema 2. */
export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Base layer first. */
  readonly layers: readonly Descriptor[];
}

/**
 * Parses the body of a manifest.
 *
 * @throws IntegrityError when it is malformed, and when it is an artifact (another config type than an
 * image's) or has layers that are not tar archives
 */
function manifestOf(document: JsonObject, mediaType: string, what: string): Manifest {
  const version = document['schemaVersion'];
  if (version !== undefined && version !== 2) {
    throw new IntegrityError(
      `${what} has schemaVersion ${printable(JSON.stringify(version), 40)}, expected 2`,
    );
  }
  const config = parseDescriptor(document['config'], `the config of ${what}`);
  refuseArtifact(config, textOf(document['artifactType']), what);
  return {
    kind: 'manifest',
    mediaType: mediaType === '' ? MediaType.ociManifest : mediaType,
    config,
    layers: layersOf(document['layers'] ?? [], what),
  };
}

function refuseArtifact(config: Descriptor, artifactType: string | undefined, what: string): void {
  if (isConfigType(config.mediaType)) return;
  const type = printable(artifactType ?? config.mediaType, 120);
  throw new IntegrityError(`${what} is not a container image but an artifact of type ${type}`, {
    code: 'NOT_AN_IMAGE',
    hint: 'fetch it with the tool that made it, or with oras: it has no root file system',
  });
}

function layersOf(layers: unknown, what: string): readonly Descriptor[] {
  return listOf(layers, 'layers', what, MAX_LAYERS).map((entry, place) => {
    const layer = parseDescriptor(entry, `layers[${place}] of ${what}`);
    if (isLayerType(layer.mediaType)) return layer;
    throw new IntegrityError(
      `layers[${place}] of ${what} is not a tar archive but has type ${printable(layer.mediaType, 120)}`,
      {
        code: 'NOT_AN_IMAGE',
        hint:
          'pull it with the tool that made it: ' +
          'encrypted layers, attestations and artifacts are no root file system',
      },
    );
  });
}

/** Limit on manifests and indexes, which distribution's server has too. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** The answer of a registry to `GET manifests/…`, or an entry of an index. */
export type ManifestDocument = (Manifest | ImageIndex | Schema1) & {
  /** The bytes of the digest: the body, but of a signed schema 1 manifest only the signed part. */
  readonly payload: Uint8Array;
};

/**
 * Parses a manifest of any kind. The kinds that Content-Type, `mediaType` and the members of the body belong
 * to must all be the same (CVE-2021-41190).
 *
 * @param digest that the document must have
 * @throws IntegrityError; NotFoundError for the config of an image
 */
export function parseManifest(
  bytes: Uint8Array,
  contentType: string | undefined,
  what = 'the manifest',
  digest?: Digest,
): ManifestDocument {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new IntegrityError(`${what} has ${bytes.length} bytes, ${MAX_MANIFEST_BYTES} are allowed`);
  }
  const document = parseJsonObject(bytes, what);
  if (isConfigDocument(document)) throw noManifest(what, CONFIG);
  const header = mediaTypeOf(contentType ?? '');
  const named = mediaTypeOf(textOf(document['mediaType']) ?? '');
  const kinds = new Set([manifestKind(header), manifestKind(named), ...shapesOf(document)]);
  kinds.delete(undefined);
  const [kind, other] = kinds;
  if (kind === undefined) throw unknownKind(named === '' ? header : named, what);
  if (other !== undefined) {
    throw new IntegrityError(`${what} is ambiguous: it could be read as ${[...kinds].join(' and as ')}`, {
      code: 'AMBIGUOUS_MANIFEST',
    });
  }
  const mediaType = manifestKind(header) === undefined ? named : header;
  const parsed =
    kind === 'schema1'
      ? parseSchema1(bytes, mediaType, what)
      : { ...(kind === 'index' ? indexOf : manifestOf)(document, mediaType, what), payload: bytes };
  if (digest !== undefined) verifyDigest(parsed.payload, digest, what);
  return parsed;
}

/** Names a config in `noManifest`. */
export const CONFIG = 'the config of an image (its image ID)';

/** True for a config: some registries answer `GET manifests/DIGEST` with any blob. No manifest has a rootfs. */
export function isConfigDocument(document: JsonObject): boolean {
  return isObject(document['rootfs']) && document['schemaVersion'] === undefined;
}

/**
 * Returns the error for a blob where a manifest belongs.
 *
 * @param blob the thing that has the digest
 */
export function noManifest(what: string, blob: string): NotFoundError {
  return new NotFoundError(`cannot read ${what}: that is the digest of ${blob}, not of a manifest`, {
    code: 'NOT_A_MANIFEST',
    hint: 'name the tag, or the digest of the manifest, which dlrootfs inspect -q NAME:TAG prints',
  });
}

/** Returns every kind that a member of the body belongs to. */
function shapesOf(document: JsonObject): readonly ManifestKind[] {
  const has = (key: string): boolean => document[key] !== undefined && document[key] !== null;
  const shapes: ManifestKind[] = [];
  if (has('manifests')) shapes.push('index');
  if (has('config') || has('layers')) shapes.push('manifest');
  if (has('fsLayers') || has('history') || document['schemaVersion'] === 1) shapes.push('schema1');
  return shapes;
}

function unknownKind(mediaType: string, what: string): IntegrityError {
  const type = mediaType === '' ? '' : ` (its type is ${printable(mediaType, 120)})`;
  return new IntegrityError(`${what} is neither an image manifest nor an index${type}`, {
    code: 'NOT_AN_IMAGE',
  });
}
