import { IntegrityError } from '../errors.ts';
import type { Attachments } from './artifact.ts';
import { configOf, type HistoryEntry, type ImageConfig } from './config.ts';
import { type DiffID, type Digest, hexOf } from './digest.ts';
import { isObject, type JsonObject, textOf, textsOf } from './json.ts';
import type { Manifest } from './manifest.ts';
import { MediaType } from './media-types.ts';
import type { Platform } from './platform.ts';
import type { Schema1, Schema1Entry } from './schema1.ts';

/** The part of a blob to request. */
export interface BlobRange {
  /** First byte wanted. */
  readonly start: number;
  /** First byte not wanted; left out: to the end. */
  readonly end?: number | undefined;
  /** The entity tag of the part that is already here: another one means the whole blob again. */
  readonly etag?: string | undefined;
}

/** The response to a blob request. */
export interface BlobResponse {
  /**
   * Bytes as stored in the registry, never decoded by the transport. Each chunk is the receiver's, who may detach its buffer. Errors on
   * a broken or stalled connection.
   */
  readonly body: AsyncIterable<Uint8Array>;
  /** Offset of the body's first byte: 0 where the server ignored the range. */
  readonly start: number;
  /** Size of the whole blob in bytes, when the server says so. */
  readonly size?: number | undefined;
  readonly etag?: string | undefined;
  /** The server takes byte ranges for this blob. */
  readonly ranges: boolean;
}

/** The checksum of a blob: the digest of `prefix` (registry v1 only) followed by the blob. */
export interface Checksum {
  readonly digest: Digest;
  readonly prefix?: Uint8Array | undefined;
}

/** A blob in a file on this machine. */
export interface LocalBlob {
  /** In bytes. */
  readonly size: number;
  /** Reads bytes from a position on; returns how many, 0 at the end. */
  read(into: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

/** What an image says of one of its layers. */
interface LayerFacts {
  /** 64 hex digits: the blob digest's, with schema 1 and registry v1 the v1 id. Names the git branch. */
  readonly id: string;
  readonly mediaType: string;
  /** Digest of the compressed blob; absent in registry v1, whose layers cannot be shared through the store. */
  readonly digest?: Digest | undefined;
  /** Absent: nothing is known to check the blob against, and a notice says so. */
  readonly checksum?: Checksum | undefined;
  /** Compressed size in bytes, when it is known before the download. */
  readonly size?: number | undefined;
  /** Digest of the uncompressed tar, where the image names it (not with schema 1 and v1). */
  readonly diffID?: DiffID | undefined;
  /** This layer's image JSON in the shape of registry v1: what `json` in the rootfs says. */
  readonly info: Readonly<Record<string, unknown>>;
  /** The command that made the layer, for people. */
  readonly createdBy?: string | undefined;
}

/** A layer whose blob is downloaded. */
export interface RemoteLayer extends LayerFacts {
  /** Requests the blob or a part of it: one request, redirects followed; retries of the body are the caller's. */
  open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse>;
  readonly openLocal?: undefined;
}

/** A layer whose blob is on this machine: it is read where it is. */
export interface LocalLayer extends LayerFacts {
  openLocal(): Promise<LocalBlob>;
}

/** One layer of an image. */
export type Layer = RemoteLayer | LocalLayer;

/** One image for one platform, verified down to its config. */
export interface Image<L extends Layer = Layer> {
  /** 64 hex digits: the config's digest, with schema 1 and v1 the top layer's id. */
  readonly id: string;
  /** Digest of the manifest that was chosen; absent in registry v1. */
  readonly digest?: Digest | undefined;
  /** Digests of the indexes that lead to that manifest, the outermost one first; each binds the next by its digest. */
  readonly indexes?: readonly Digest[] | undefined;
  readonly mediaType?: string | undefined;
  readonly platform: Platform;
  /** All platforms that the reference has images for; absent where it names one image. */
  readonly platforms?: readonly Platform[] | undefined;
  /** The rate limit that the registry reported, as `20 of 100 requests left in 6 hours`. */
  readonly rateLimit?: string | undefined;
  readonly config: ImageConfig;
  /** Base layer first. */
  readonly layers: readonly L[];
  /** Where `layers` are only the first ones: all of them. */
  readonly allLayers?: readonly L[] | undefined;
}

/** A session with one repository of one registry, or with a local source of images; the signal that it was opened with aborts it. */
export interface Session<L extends Layer = Layer> {
  /**
   * Resolves tag or digest, chooses the platform, and verifies manifest and config.
   *
   * @param onDocument is called with the digest of the manifest and of each index on the way to it, as soon as it is known
   */
  image(platform: Platform, onDocument?: (digest: Digest) => void): Promise<Image<L>>;
  /** Undefined where manifests have no digests: registry v1, archives of `docker save`. */
  attachments(): Promise<Attachments | undefined>;
  /** All tags of the repository, page by page. */
  tags(): AsyncIterable<string>;
  close(): Promise<void>;
}

/** A layer without the way to open its blob. */
export type LayerDescription = LayerFacts & {
  readonly digest: Digest;
  /** Other places to download the blob from (foreign layers). */
  readonly urls?: readonly string[] | undefined;
};

/** An image whose layers are not yet connected to their source. */
export type ImageDescription = Omit<Image, 'layers' | 'allLayers'> & {
  readonly layers: readonly LayerDescription[];
};

/**
 * Combines manifest and config: the layers base first, each with its diffID, its step of the build and its `json` in the shape of registry v1.
 *
 * @throws IntegrityError when they name different numbers of layers
 */
export function describeImage(manifest: Manifest, config: ImageConfig, what = 'the image'): ImageDescription {
  const { layers } = manifest;
  const { diffIDs, platform } = config;
  if (layers.length !== diffIDs.length) {
    throw new IntegrityError(
      `the manifest of ${what} lists ${layers.length} layers, but its config has ${diffIDs.length} diff_ids`,
    );
  }
  const steps = pairHistory(config.history, layers.length);
  const described = layers.map(({ mediaType, digest, size, urls }, index) => {
    const id = hexOf(digest);
    const parent = index === 0 ? undefined : hexOf(layers[index - 1]!.digest);
    const info = layerInfo({ id, parent }, steps[index], config, index === layers.length - 1);
    const createdBy = steps[index]?.createdBy;
    return {
      id,
      mediaType,
      digest,
      checksum: { digest },
      size,
      diffID: diffIDs[index],
      info,
      createdBy,
      urls,
    };
  });
  const id = hexOf(manifest.config.digest);
  return { id, mediaType: manifest.mediaType, platform, config, layers: described };
}

/**
 * The step that made each layer, base first: the steps that made one, in order. When their number is not `layerCount`, they cannot be
 * assigned, and all are undefined.
 */
export function pairHistory(
  history: readonly HistoryEntry[],
  layerCount: number,
): readonly (HistoryEntry | undefined)[] {
  const steps = history.filter((entry) => !entry.emptyLayer);
  return steps.length === layerCount ? steps : Array.from({ length: layerCount }, () => undefined);
}

/** As Docker converts an image to schema 1 (distribution, config_builder.go), with what belongs to the image on the top layer. */
function layerInfo(
  ids: { readonly id: string; readonly parent: string | undefined },
  step: HistoryEntry | undefined,
  config: ImageConfig,
  top: boolean,
): JsonObject {
  const { os, architecture, variant } = config.platform;
  const info = {
    ...ids,
    created: step?.created ?? (top ? config.created : undefined),
    container_config: step?.createdBy === undefined ? undefined : { Cmd: [step.createdBy] },
    author: step?.author ?? (top ? config.author : undefined),
    comment: step?.comment,
    architecture: textOf(architecture),
    variant,
    os: textOf(os),
    config: top ? config.raw['config'] : undefined,
  };
  return Object.fromEntries(
    Object.entries(info).filter(([, value]) => value !== undefined && value !== null),
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
