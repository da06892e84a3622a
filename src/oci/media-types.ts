/**
 * Media types of manifests, configs and layers: OCI media-types.md, and Docker's image manifest v2, schema 1
 * and 2.
 */
export const MediaType = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  schema1: 'application/vnd.docker.distribution.manifest.v1+json',
  schema1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
} as const;

/** The `Accept` header of a manifest request, best first. */
export const MANIFEST_ACCEPT: readonly string[] = [
  MediaType.ociIndex,
  MediaType.ociManifest,
  MediaType.dockerList,
  MediaType.dockerManifest,
  MediaType.schema1Signed,
  MediaType.schema1,
];

/** The kinds of documents that a registry sends for a manifest request. */
export type ManifestKind = 'index' | 'manifest' | 'schema1';

const MANIFEST_KINDS: ReadonlyMap<string, ManifestKind> = new Map([
  [MediaType.ociIndex, 'index'],
  [MediaType.dockerList, 'index'],
  [MediaType.ociManifest, 'manifest'],
  [MediaType.dockerManifest, 'manifest'],
  [MediaType.schema1, 'schema1'],
  [MediaType.schema1Signed, 'schema1'],
]);

/** Returns the kind that a media type names; undefined for other types. */
export function manifestKind(mediaType: string): ManifestKind | undefined {
  return MANIFEST_KINDS.get(mediaType);
}

/**
 * Registries stored image configs under these types as well (docker/distribution issue 1621); Docker accepts
 * them.
 */
const CONFIG_TYPES: ReadonlySet<string> = new Set([
  MediaType.ociConfig,
  MediaType.dockerConfig,
  'application/octet-stream',
  'application/json',
  'text/html',
  '',
]);

/**
 * Returns the type in lower case without parameters: `application/json` for `Application/JSON;
 * charset=utf-8`.
 */
export function mediaTypeOf(contentType: string): string {
  return contentType.split(';', 1)[0]!.trim().toLowerCase();
}

/** True if a config of this type makes the manifest an image; others make it an artifact. */
export function isConfigType(mediaType: string): boolean {
  return CONFIG_TYPES.has(mediaType);
}

/**
 * True if a layer of this type is a tar; its first bytes tell the compression. Unspecific types are accepted,
 * since digest and diffID are verified; encrypted layers and other formats are not.
 */
export function isLayerType(mediaType: string): boolean {
  if (mediaType === '' || mediaType === 'application/octet-stream') return true;
  return /[./-](?:tar|tgz)(?:[.+-][a-z0-9]+)?$/.test(mediaType) && !mediaType.endsWith('encrypted');
}
