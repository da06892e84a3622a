import type { DiffID, Digest } from './digest.ts';
import type { Platform } from './platform.ts';
import type { ImageConfig } from './config.ts';

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

/** One layer of an image. */
export interface Layer {
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
  /** Requests the blob or a part of it: one request, redirects followed; retries of the body are the caller's. */
  open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse>;
}

/** One image for one platform, verified down to its config. */
export interface Image {
  /** 64 hex digits: the config's digest, with schema 1 and v1 the top layer's id. */
  readonly id: string;
  /** Digest of the manifest that was chosen; absent in registry v1. */
  readonly digest?: Digest | undefined;
  readonly mediaType?: string | undefined;
  readonly platform: Platform;
  /** All platforms that the reference has images for; absent where it names one image. */
  readonly platforms?: readonly Platform[] | undefined;
  /** The rate limit that the registry reported, as `20 of 100 requests left in 6 hours`. */
  readonly rateLimit?: string | undefined;
  readonly config: ImageConfig;
  /** Base layer first. */
  readonly layers: readonly Layer[];
}

/** A session with one repository of one registry, or with a local source of images. */
export interface Session {
  /** Resolves tag or digest, chooses the platform, and verifies manifest and config. */
  image(platform: Platform, signal: AbortSignal): Promise<Image>;
  /** All tags of the repository, page by page. */
  tags(signal: AbortSignal): AsyncIterable<string>;
  close(): Promise<void>;
}
