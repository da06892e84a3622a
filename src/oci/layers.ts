import { IntegrityError } from '../errors.ts';
import { configOf, type HistoryEntry, type ImageConfig } from './config.ts';
import { hexOf } from './digest.ts';
import type { Image, Layer } from './image.ts';
import { isObject, textOf, textsOf, type JsonObject } from './json.ts';
import { pairHistory } from './layer-info.ts';
import type { Manifest } from './manifest.ts';
import { MediaType } from './media-types.ts';
import type { Schema1, Schema1Entry } from './schema1.ts';

/** A layer without the way to open its blob. */
export type LayerDescription = Omit<Layer, 'open'> & {
  readonly digest: NonNullable<Layer['digest']>;
  /** Other places to download the blob from (foreign layers). */
  readonly urls?: readonly string[] | undefined;
};

/** An image whose layers are not yet connected to their source. */
export type ImageDescription = Omit<Image, 'layers' | 'digest'> & {
  readonly layers: readonly LayerDescription[];
};

/**
 * Combines manifest and config.
 *
 * @throws IntegrityError when they name different numbers of layers
 */
export function describeImage(manifest: Manifest, config: ImageConfig, what = 'the image'): ImageDescription {
  return {
    id: hexOf(manifest.config.digest),
    mediaType: manifest.mediaType,
    platform: config.platform,
    config,
    layers: layersOf(manifest, config, what),
  };
}

/** The layers of a manifest, base first, each with its diffID, its history and its `json` in the shape of registry v1. */
function layersOf(manifest: Manifest, config: ImageConfig, what = 'the image'): readonly LayerDescription[] {
  const { layers } = manifest;
  const { diffIDs } = config;
  if (layers.length !== diffIDs.length) {
    throw new IntegrityError(
      `the manifest of ${what} lists ${layers.length} layers, but its config has ${diffIDs.length} diff_ids`,
    );
  }
  const steps = pairHistory(config.history, layers.length);
  return layers.map(({ mediaType, digest, size, urls }, index) => {
    const id = hexOf(digest);
    const parent = index === 0 ? undefined : hexOf(layers[index - 1]!.digest);
    const top = index === layers.length - 1;
    return {
      id,
      mediaType,
      digest,
      checksum: { digest },
      size,
      diffID: diffIDs[index],
      info: layerInfo({ id, parent }, steps[index], config, top),
      createdBy: steps[index]?.createdBy,
      urls,
    };
  });
}

/** As Docker converts an image to schema 1 (distribution, config_builder.go), with what belongs to the image on the top layer. */
function layerInfo(
  ids: { readonly id: string; readonly parent: string | undefined },
  step: HistoryEntry | undefined,
  config: ImageConfig,
  top: boolean,
): JsonObject {
  const { os, architecture, variant } = config.platform;
  return defined({
    ...ids,
    created: step?.created ?? (top ? config.created : undefined),
    container_config: step?.createdBy === undefined ? undefined : { Cmd: [step.createdBy] },
    author: step?.author ?? (top ? config.author : undefined),
    comment: step?.comment,
    architecture: textOf(architecture),
    variant,
    os: textOf(os),
    config: top ? config.raw['config'] : undefined,
  });
}

function defined(members: JsonObject): JsonObject {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  );
}

/**
 * The image of a schema 1 manifest: as registry v1 would describe it, without empty layers. The last layer
 * that is left carries the image's own JSON, so that `json` in the rootfs describes the image.
 */
export function describeSchema1(manifest: Schema1): ImageDescription {
  const top = manifest.entries.at(-1)!;
  const kept = manifest.entries.filter((entry) => !entry.empty);
  const config = { ...configOf(top.json), history: manifest.entries.map(historyOf) };
  return {
    id: top.id,
    mediaType: manifest.mediaType,
    platform: config.platform,
    config,
    layers: kept.map((entry) => ({
      id: entry.id,
      mediaType: MediaType.dockerLayerGzip,
      digest: entry.blob,
      checksum: { digest: entry.blob },
      info: entry === kept.at(-1) ? top.json : entry.json,
      createdBy: historyOf(entry).createdBy,
    })),
  };
}

/** The step of the build in an image JSON of registry v1. */
export function historyOf({ json, empty }: Pick<Schema1Entry, 'json' | 'empty'>): HistoryEntry {
  const command = isObject(json['container_config']) ? textsOf(json['container_config']['Cmd']) : undefined;
  return {
    created: textOf(json['created']),
    createdBy: textOf(command?.join(' ')),
    author: textOf(json['author']),
    comment: textOf(json['comment']),
    emptyLayer: empty,
  };
}
