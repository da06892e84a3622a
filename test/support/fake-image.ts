import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** A layer to push: a blob, or a tar to compress (default: gzip). */
export type FakeLayer =
  | Uint8Array
  | {
      readonly tar: Uint8Array;
      readonly compression?: 'gzip' | 'zstd' | 'none';
      /** The compressed tar, if it is not compressed as a whole. */
      readonly blob?: Uint8Array;
      readonly urls?: readonly string[];
    };

export interface FakePlatform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface FakeImage {
  /** The base layer is first. */
  readonly layers: readonly FakeLayer[];
  /** Replaces top-level keys of the generated config; with schema 1, of the top layer's v1 JSON. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Default: `oci`. */
  readonly format?: 'oci' | 'docker' | 'schema1';
  /** Default: linux/amd64. */
  readonly platform?: FakePlatform;
}

export interface FakeDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly [key: string]: unknown;
}

export interface FakeManifest {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
  readonly digest: string;
  /** Blobs that the manifest names, by digest. */
  readonly blobs: ReadonlyMap<string, Uint8Array>;
  /** Empty with schema 1. */
  readonly configDigest: string;
  /** The base layer is first. */
  readonly layers: readonly FakeDescriptor[];
  /** The base layer is first. */
  readonly diffIDs: readonly string[];
}

export const mediaTypes = {
  oci: {
    index: 'application/vnd.oci.image.index.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    none: 'application/vnd.oci.image.layer.v1.tar',
    gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
    zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  },
  docker: {
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    none: 'application/vnd.docker.image.rootfs.diff.tar',
    gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    zstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  },
  schema1: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
} as const;

export function sha256(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

type Compression = 'gzip' | 'zstd' | 'none';

interface StoredLayer {
  readonly blob: Uint8Array;
  readonly compression: Compression;
  readonly diffID: string;
  readonly urls?: readonly string[] | undefined;
}

function compressionOf(blob: Uint8Array): Compression {
  if (blob[0] === 0x1f && blob[1] === 0x8b) return 'gzip';
  return blob[0] === 0x28 && blob[1] === 0xb5 && blob[2] === 0x2f && blob[3] === 0xfd ? 'zstd' : 'none';
}

function decompress(blob: Uint8Array, compression: Compression): Uint8Array {
  try {
    return { gzip: gunzipSync, zstd: zstdDecompressSync, none: (bytes: Uint8Array) => bytes }[compression](
      blob,
    );
  } catch {
    return blob;
  }
}

/** Compressed layers, since many tests push the same ones. */
const known = new WeakMap<object, StoredLayer>();

function store(layer: FakeLayer): StoredLayer {
  const stored = known.get(layer) ?? compress(layer);
  known.set(layer, stored);
  return stored;
}

function compress(layer: FakeLayer): StoredLayer {
  if (layer instanceof Uint8Array) {
    const compression = compressionOf(layer);
    return { blob: layer, compression, diffID: sha256(decompress(layer, compression)) };
  }
  const compression = layer.compression ?? 'gzip';
  const codec = { gzip: gzipSync, zstd: zstdCompressSync, none: (bytes: Uint8Array) => bytes }[compression];
  return { blob: layer.blob ?? codec(layer.tar), compression, diffID: sha256(layer.tar), urls: layer.urls };
}

function json(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

/**
 * Makes an image's manifest and blobs. The same input gives the same digests, except for schema 1's
 * signature.
 */
export function fakeManifest(image: FakeImage): FakeManifest {
  const stored = image.layers.map(store);
  return image.format === 'schema1' ? schema1(image, stored) : schema2(image, stored);
}

function schema2(image: FakeImage, stored: readonly StoredLayer[]): FakeManifest {
  const types = mediaTypes[image.format === 'docker' ? 'docker' : 'oci'];
  const diffIDs = stored.map((layer) => layer.diffID);
  const config = json({
    created: '2015-01-17T10:00:00Z',
    ...(image.platform ?? { os: 'linux', architecture: 'amd64' }),
    config: { Env: ['PATH=/usr/bin:/bin'], Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: diffIDs },
    history: stored.map((_, n) => ({ created: '2015-01-17T10:00:00Z', created_by: `/bin/sh -c layer ${n}` })),
    ...image.config,
  });
  const layers = stored.map(({ blob, compression, urls }) => ({
    mediaType: types[compression],
    digest: sha256(blob),
    size: blob.length,
    ...(urls && { urls }),
  }));
  const configDigest = sha256(config);
  const bytes = json({
    schemaVersion: 2,
    mediaType: types.manifest,
    config: { mediaType: types.config, digest: configDigest, size: config.length },
    layers,
  });
  const blobs = new Map(stored.map(({ blob }) => [sha256(blob), blob]));
  blobs.set(configDigest, config);
  return { mediaType: types.manifest, bytes, digest: sha256(bytes), blobs, configDigest, layers, diffIDs };
}

function schema1(image: FakeImage, stored: readonly StoredLayer[]): FakeManifest {
  const ids = stored.map((_, n) => sha256(`v1 id ${n} ${stored[n]!.diffID}`).slice(7));
  const history = stored.map((_, n) => ({
    v1Compatibility: JSON.stringify({
      id: ids[n],
      ...(n > 0 && { parent: ids[n - 1] }),
      created: '2015-01-17T10:00:00Z',
      container_config: { Cmd: ['/bin/sh', '-c', `layer ${n}`] },
      os: image.platform?.os ?? 'linux',
      architecture: image.platform?.architecture ?? 'amd64',
      ...(n === stored.length - 1 && image.config),
    }),
  }));
  const payload = JSON.stringify(
    {
      schemaVersion: 1,
      name: 'library/fake',
      tag: 'latest',
      architecture: image.platform?.architecture ?? 'amd64',
      fsLayers: stored.map(({ blob }) => ({ blobSum: sha256(blob) })).toReversed(),
      history: history.toReversed(),
    },
    undefined,
    3,
  );
  const layers = stored.map(({ blob }) => ({ mediaType: '', digest: sha256(blob), size: blob.length }));
  return {
    mediaType: mediaTypes.schema1,
    bytes: signed(payload),
    digest: sha256(payload),
    blobs: new Map(stored.map(({ blob }) => [sha256(blob), blob])),
    configDigest: '',
    layers,
    diffIDs: stored.map((layer) => layer.diffID),
  };
}

const base64url = (text: string) => Buffer.from(text).toString('base64url');

/** The format of libtrust: the payload without its end, the signatures, the end. */
function signed(payload: string): Uint8Array {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const tail = '\n}';
  const head = payload.slice(0, -tail.length);
  const header = base64url(
    JSON.stringify({
      formatLength: Buffer.byteLength(head),
      formatTail: base64url(tail),
      time: '2015-01-17T10:00:00Z',
    }),
  );
  const signature = sign('sha256', Buffer.from(`${header}.${base64url(payload)}`), {
    key: privateKey,
    dsaEncoding: 'ieee-p1363',
  });
  const signatures = [
    {
      header: { jwk: publicKey.export({ format: 'jwk' }), alg: 'ES256' },
      signature: signature.toString('base64url'),
      protected: header,
    },
  ];
  return Buffer.from(`${head},\n   "signatures": ${JSON.stringify(signatures)}${tail}`);
}

/** Makes an index of existing manifests. */
export function fakeIndex(
  entries: readonly {
    readonly manifest: FakeManifest;
    readonly platform?: FakePlatform;
    readonly annotations?: Record<string, string>;
  }[],
  format: 'oci' | 'docker' = 'oci',
): { readonly mediaType: string; readonly bytes: Uint8Array; readonly digest: string } {
  const mediaType = mediaTypes[format].index;
  const bytes = json({
    schemaVersion: 2,
    mediaType,
    manifests: entries.map(({ manifest, platform, annotations }) => ({
      mediaType: manifest.mediaType,
      digest: manifest.digest,
      size: manifest.bytes.length,
      ...(platform && { platform }),
      ...(annotations && { annotations }),
    })),
  });
  return { mediaType, bytes, digest: sha256(bytes) };
}
