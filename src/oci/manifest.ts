import { IntegrityError, printable } from '../errors.ts';
import { parseDescriptor } from './descriptor.ts';
import type { Descriptor } from './descriptor.ts';
import { textOf } from './json.ts';
import type { JsonObject } from './json.ts';
import { MediaType, isConfigType, isLayerType } from './media-types.ts';

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
 * Reads the body of a manifest. Throws IntegrityError when it is malformed, and when it is an artifact (another config type than
 * an image's) or has layers that are no tar archives.
 */
export function manifestOf(document: JsonObject, mediaType: string, what: string): Manifest {
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
