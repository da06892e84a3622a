import { IntegrityError, printable } from '../errors.ts';
import { type Descriptor, parseDescriptor } from './descriptor.ts';
import { type Digest, verify } from './digest.ts';
import { type ImageIndex, indexOf } from './image-index.ts';
import { type JsonObject, parseJsonObject, textOf } from './json.ts';
import {
  isConfigType,
  isIndexType,
  isLayerType,
  isManifestType,
  isSchema1Type,
  MediaType,
  mediaTypeOf,
} from './media-types.ts';
import { parseSchema1, type Schema1 } from './schema1.ts';

/** Overlay file systems stop at 500 and Docker at 127; more is an attack on the caller's memory. */
const MAX_LAYERS = 4096;

/** One image: an OCI image manifest or a Docker image manifest of schema 2. */
export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Base layer first. */
  readonly layers: readonly Descriptor[];
}

/**
 * Reads the body of a manifest.
 *
 * @throws IntegrityError when it is malformed, and when it is an artifact (another config type than an image's) or has layers that are not tar archives
 */
function manifestOf(document: JsonObject, mediaType: string, what: string): Manifest {
  const version = document['schemaVersion'];
  if (version !== undefined && version !== 2) {
    throw new IntegrityError(
      `${what} has schemaVersion ${printable(JSON.stringify(version), 40)}, 2 is wanted`,
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
    hint: 'it has no root file system; fetch it with the tool that made it, or with oras',
  });
}

function layersOf(layers: unknown, what: string): readonly Descriptor[] {
  if (!Array.isArray(layers)) throw new IntegrityError(`"layers" of ${what} is not an array`);
  if (layers.length > MAX_LAYERS) {
    throw new IntegrityError(`${what} lists ${layers.length} layers, ${MAX_LAYERS} are allowed`);
  }
  return layers.map((entry: unknown, place) => {
    const layer = parseDescriptor(entry, `layers[${place}] of ${what}`);
    if (isLayerType(layer.mediaType)) return layer;
    throw new IntegrityError(
      `layers[${place}] of ${what} is no tar archive but has type ${printable(layer.mediaType, 120)}`,
      {
        code: 'NOT_AN_IMAGE',
        hint: 'encrypted layers, attestations and artifacts cannot be made a root file system',
      },
    );
  });
}

/** Documents larger than this are refused before they are read: the limit of distribution's server. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

type Kind = 'index' | 'manifest' | 'schema1';

/** The answer of a registry to `GET manifests/…`, or an entry of an index. */
export type ManifestDocument = (Manifest | ImageIndex | Schema1) & {
  /** The bytes that its digest is of: the body, but of a signed schema 1 manifest the signed part. */
  readonly payload: Uint8Array;
};

/**
 * Reads a manifest of any kind. The kind is decided by the Content-Type, then by `mediaType` in the body, then by the body's shape. A
 * body of another kind than that, or of two kinds at once, is refused (CVE-2021-41190).
 *
 * @throws IntegrityError
 */
export function parseManifest(
  bytes: Uint8Array,
  contentType: string | undefined,
  what = 'the manifest',
): ManifestDocument {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new IntegrityError(`${what} has ${bytes.length} bytes, ${MAX_MANIFEST_BYTES} are allowed`);
  }
  const document = parseJsonObject(bytes, what);
  const header = mediaTypeOf(contentType ?? '');
  const named = mediaTypeOf(textOf(document['mediaType']) ?? '');
  const kinds = new Set([kindOfType(header), kindOfType(named), ...shapesOf(document)]);
  kinds.delete(undefined);
  const [kind, other] = kinds;
  if (kind === undefined) throw unknownKind(named === '' ? header : named, what);
  if (other !== undefined) {
    throw new IntegrityError(`${what} is ambiguous: it could be read as ${[...kinds].join(' and as ')}`, {
      code: 'AMBIGUOUS_MANIFEST',
    });
  }
  const mediaType = kindOfType(header) === undefined ? named : header;
  if (kind === 'index') return { ...indexOf(document, mediaType, what), payload: bytes };
  if (kind === 'manifest') return { ...manifestOf(document, mediaType, what), payload: bytes };
  return parseSchema1(bytes, mediaType, what);
}

/** @throws IntegrityError, naming `what`, unless `document` has `digest` */
export function verifyManifest(document: ManifestDocument, digest: Digest, what: string): void {
  verify(document.payload, digest, what);
}

function kindOfType(mediaType: string): Kind | undefined {
  if (isIndexType(mediaType)) return 'index';
  if (isManifestType(mediaType)) return 'manifest';
  return isSchema1Type(mediaType) ? 'schema1' : undefined;
}

/** Every kind that a part of the body belongs to. */
function shapesOf(document: JsonObject): readonly Kind[] {
  const has = (key: string): boolean => document[key] !== undefined && document[key] !== null;
  const shapes: Kind[] = [];
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
