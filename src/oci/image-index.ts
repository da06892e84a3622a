import { IntegrityError, NotFoundError } from '../errors.ts';
import { parseDescriptor } from './descriptor.ts';
import type { Descriptor } from './descriptor.ts';
import type { JsonObject } from './json.ts';
import { MediaType, isIndexType, isManifestType } from './media-types.ts';
import { formatPlatform, platformRank } from './platform.ts';
import type { Platform } from './platform.ts';

/** Real indexes have dozens of entries. */
const MAX_MANIFESTS = 10_000;

/** Images of one name for several platforms: an OCI image index or a Docker manifest list. */
export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  /** In the order of the document. */
  readonly manifests: readonly Descriptor[];
}

/** Reads the body of an index; throws IntegrityError. */
export function indexOf(document: JsonObject, mediaType: string, what: string): ImageIndex {
  const manifests = document['manifests'] ?? [];
  if (!Array.isArray(manifests)) throw new IntegrityError(`"manifests" of ${what} is not an array`);
  if (manifests.length > MAX_MANIFESTS) {
    throw new IntegrityError(`${what} lists ${manifests.length} manifests, ${MAX_MANIFESTS} are allowed`);
  }
  return {
    kind: 'index',
    mediaType: mediaType === '' ? MediaType.ociIndex : mediaType,
    manifests: manifests.map((entry: unknown, place) =>
      parseDescriptor(entry, `manifests[${place}] of ${what}`),
    ),
  };
}

/** Build provenance and the like, which BuildKit lists beside the images. */
export function isAttestation(descriptor: Descriptor): boolean {
  const { annotations, platform } = descriptor;
  if (annotations !== undefined && Object.hasOwn(annotations, 'vnd.docker.reference.type')) return true;
  return platform?.os === 'unknown' && platform.architecture === 'unknown';
}

/**
 * The entries to try for `wanted`, best first, as containerd orders them: by how well the platform fits, equals in the
 * order of the index, entries without a platform last. Of the latter the config (or, for a nested index, its entries)
 * must still be judged. None when nothing fits.
 */
export function pickPlatform(index: ImageIndex, wanted: Platform): readonly Descriptor[] {
  const ranked = index.manifests.flatMap((descriptor) => {
    if (isAttestation(descriptor) || !mayBeImage(descriptor)) return [];
    if (descriptor.platform === undefined) return [{ descriptor, rank: Number.POSITIVE_INFINITY }];
    const rank = platformRank(descriptor.platform, wanted);
    return rank === undefined ? [] : [{ descriptor, rank }];
  });
  ranked.sort((a, b) => (a.rank === b.rank ? 0 : a.rank - b.rank));
  return ranked.map(({ descriptor }) => descriptor);
}

/** The platforms an index names, each once, in its order. */
export function platformsOf(index: ImageIndex): readonly Platform[] {
  const named = new Map<string, Platform>();
  for (const descriptor of index.manifests) {
    const { platform } = descriptor;
    if (platform === undefined || isAttestation(descriptor) || !mayBeImage(descriptor)) continue;
    if (!named.has(formatPlatform(platform))) named.set(formatPlatform(platform), platform);
  }
  return [...named.values()];
}

/** The error for an image that is not made for `wanted`; `present` are the platforms it is made for. */
export function noPlatform(wanted: Platform, present: readonly Platform[], what: string): NotFoundError {
  const names = [...new Set(present.map((platform) => formatPlatform(platform)))];
  return new NotFoundError(`${what} has no image for ${formatPlatform(wanted)}`, {
    code: 'PLATFORM_NOT_FOUND',
    hint:
      names.length === 0
        ? 'it names no platforms at all'
        : `there is: ${names.join(', ')} (choose by --platform)`,
  });
}

/** Indexes also list other documents (signatures, artifacts) by types of their own. */
function mayBeImage({ mediaType }: Descriptor): boolean {
  return mediaType === '' || isManifestType(mediaType) || isIndexType(mediaType);
}
