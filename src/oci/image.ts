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
  /** The offset of the first wanted byte. */
  readonly start: number;
  /** The offset after the last wanted byte; default: the end of the blob. */
  readonly end?: number | undefined;
  /** The entity tag of the part that was received: with another one, the server sends the whole blob. */
  readonly etag?: string | undefined;
}

/** The response to a blob request. */
export interface BlobResponse {
  /**
   * The bytes as stored in the registry, not decoded by the transport. The receiver owns each chunk and may
   * detach its buffer. It throws if the connection breaks or stalls.
   */
  readonly body: AsyncIterable<Uint8Array>;
  /** Offset of the body's first byte: 0 if the server ignored the range. */
  readonly start: number;
  /** Size of the whole blob in bytes, if the server sends it. */
  readonly size?: number | undefined;
  readonly etag?: string | undefined;
  /** True if the server accepts byte ranges for this blob. */
  readonly ranges: boolean;
}

/** The checksum of a blob: the digest of `prefix` (registry v1 only) followed by the blob. */
export interface Checksum {
  readonly digest: Digest;
  readonly prefix?: Uint8Array | undefined;
}

/** A blob in a file on this machine. */
export interface LocalBlob {
  /** Size in bytes. */
  readonly size: number;
  /** Reads bytes from a position on; returns their number, 0 at the end. */
  read(into: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

/** The description of a layer in its image. */
interface LayerFacts {
  /**
   * 64 hex digits: of the blob's digest; with schema 1 and registry v1 the v1 id. The git branch is named
   * after it.
   */
  readonly id: string;
  readonly mediaType: string;
  /**
   * Digest of the compressed blob; absent in registry v1, whose layers cannot be shared through the store.
   */
  readonly digest?: Digest | undefined;
  /** Absent if the blob cannot be verified, which a notice says. */
  readonly checksum?: Checksum | undefined;
  /** Compressed size in bytes; absent if it is unknown before the download. */
  readonly size?: number | undefined;
  /** Digest of the uncompressed tar; absent with schema 1 and v1. */
  readonly diffID?: DiffID | undefined;
  /** This layer's image JSON in the form of registry v1: the content of `json` in the rootfs. */
  readonly info: Readonly<Record<string, unknown>>;
  /** The command that made the layer, for people. */
  readonly createdBy?: string | undefined;
}

/** A layer whose blob is downloaded. */
export interface RemoteLayer extends LayerFacts {
  /** Requests the blob or a part of it once, following redirects. The caller retries if the body breaks. */
  open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse>;
  readonly openLocal?: undefined;
}

/** A layer whose blob is on this machine, where it is read in place. */
export interface LocalLayer extends LayerFacts {
  openLocal(): Promise<LocalBlob>;
}

/** One layer of an image. */
export type Layer = RemoteLayer | LocalLayer;

/** One image for one platform, verified down to its config. */
export interface Image<L extends Layer = Layer> {
  /** 64 hex digits: of the config's digest; with schema 1 and v1 the top layer's id. */
  readonly id: string;
  /** Digest of the chosen manifest; absent in registry v1. */
  readonly digest?: Digest | undefined;
  /**
   * Digests of the indexes that lead to the manifest, outermost first; each contains the digest of the next.
   */
  readonly indexes?: readonly Digest[] | undefined;
  readonly mediaType?: string | undefined;
  readonly platform: Platform;
  /** All platforms of the reference; absent if it names a single image. */
  readonly platforms?: readonly Platform[] | undefined;
  /** The rate limit in the registry's answer: `20 of 100 requests left in 6 hours`. */
  readonly rateLimit?: string | undefined;
  readonly config: ImageConfig;
  /** Base layer first. */
  readonly layers: readonly L[];
  /** All layers, if `layers` has only the first ones. */
  readonly allLayers?: readonly L[] | undefined;
}

/**
 * A session with one repository of a registry, or with a local source. The signal that it was opened with
 * aborts it.
 */
export interface Session<L extends Layer = Layer> {
  /**
   * Resolves tag or digest, chooses the platform, and verifies manifest and config.
   *
   * @param onDocument called with the digest of the manifest and of each index on the way to it, as soon as
   * known
   */
  image(platform: Platform, onDocument?: (digest: Digest) => void): Promise<Image<L>>;
  /** Undefined if manifests have no digests: registry v1, archives of `docker save`. */
  attachments(): Promise<Attachments | undefined>;
  /** Yields all tags of the repository, page by page. */
  tags(): AsyncIterable<string>;
  close(): Promise<void>;
}

/** A layer without a method to open its blob. */
export type LayerDescription = LayerFacts & {
  readonly digest: Digest;
  /** Other places to download the blob from (foreign layers). */
  readonly urls?: readonly string[] | undefined;
};

/** An image whose layers cannot be opened yet. */
export type ImageDescription = Omit<Image, 'layers' | 'allLayers'> & {
  readonly layers: readonly LayerDescription[];
};

/**
 * Combines manifest and config: the layers, base first, each with its diffID, its step of the build and its
 * `json`.
 *
 * @throws IntegrityError if their numbers of layers differ
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
 * Returns the step of the build that made each layer, base first. If the number of steps that made a layer is
 * not `layerCount`, all are undefined.
 */
export function pairHistory(
  history: readonly HistoryEntry[],
  layerCount: number,
): readonly (HistoryEntry | undefined)[] {
  const steps = history.filter((entry) => !entry.emptyLayer);
  return steps.length === layerCount ? steps : Array.from({ length: layerCount }, () => undefined);
}

/**
 * Makes the image JSON of a layer as Docker does for schema 1 (distribution, config_builder.go). The top
 * layer gets the image's own members.
 */
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
 * Describes the image of a schema 1 manifest, without empty layers. The last remaining layer gets the JSON of
 * the image, so that `json` in the rootfs describes the image.
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

/** Returns the step of the build in an image JSON of registry v1. */
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
