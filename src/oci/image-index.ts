import { DlrootfsError, IntegrityError, NotFoundError } from '../errors.ts';
import type { ImageConfig } from './config.ts';
import type { Digest } from './digest.ts';
import { describeImage, describeSchema1, type Image, type ImageDescription } from './image.ts';
import {
  type Descriptor,
  type ImageIndex,
  isAttestation,
  type Manifest,
  type ManifestDocument,
} from './manifest.ts';
import { manifestKind } from './media-types.ts';
import { formatPlatform, type Platform, platformRank } from './platform.ts';
import type { Schema1 } from './schema1.ts';

/**
 * Returns the entries to try for `wanted`, in containerd's order: by how well the platform fits, then as in
 * the index. Entries without a platform come last; their config, or the entries of a nested index, must still
 * be checked.
 */
function pickPlatform(index: ImageIndex, wanted: Platform): readonly Descriptor[] {
  const ranked = imagesOf(index).flatMap((descriptor) => {
    if (descriptor.platform === undefined) return [{ descriptor, rank: Number.POSITIVE_INFINITY }];
    const rank = platformRank(descriptor.platform, wanted);
    return rank === undefined ? [] : [{ descriptor, rank }];
  });
  ranked.sort((a, b) => (a.rank === b.rank ? 0 : a.rank - b.rank));
  return ranked.map(({ descriptor }) => descriptor);
}

/** Returns the platforms in an index, each once, in its order. */
function platformsOf(index: ImageIndex): readonly Platform[] {
  const named = new Map<string, Platform>();
  for (const { platform } of imagesOf(index)) {
    if (platform && !named.has(formatPlatform(platform))) named.set(formatPlatform(platform), platform);
  }
  return [...named.values()];
}

/**
 * Returns the error for an image without a manifest for `wanted`.
 *
 * @param present the platforms that it has
 */
function noPlatform(wanted: Platform, present: readonly Platform[], what: string): NotFoundError {
  const names = [...new Set(present.map((platform) => formatPlatform(platform)))];
  return new NotFoundError(`${what} has no image for ${formatPlatform(wanted)}`, {
    code: 'PLATFORM_NOT_FOUND',
    hint:
      names.length === 0
        ? 'choose another image: this one names no platforms'
        : `choose one with --platform: ${names.join(', ')}`,
  });
}

/**
 * Returns the entries that may be images. Indexes also list attestations, and other documents by types of
 * their own.
 */
function imagesOf({ manifests }: ImageIndex): readonly Descriptor[] {
  return manifests.filter(
    (entry) =>
      !isAttestation(entry) &&
      (entry.mediaType === '' || ['index', 'manifest'].includes(manifestKind(entry.mediaType) ?? '')),
  );
}

/** A manifest or index, verified, with its digest. */
export interface FoundDocument {
  readonly document: ManifestDocument;
  /** Undefined for an index made of several entries of one name in a layout. */
  readonly digest: Digest | undefined;
}

/** Reads the documents that an index lists, and verifies their digests. */
export interface DocumentSource {
  manifest(descriptor: Descriptor): Promise<ManifestDocument>;
  config(manifest: Manifest): Promise<ImageConfig>;
}

/**
 * Describes the image of a document; of an index that for the platform.
 *
 * @throws as `chooseManifest`; IntegrityError if manifest and config contradict each other
 */
export async function describeFound(
  { document, digest }: FoundDocument,
  wanted: Platform,
  source: DocumentSource,
  what: string,
): Promise<ImageDescription> {
  const platforms = document.kind === 'index' ? platformsOf(document) : undefined;
  const choice: Choice =
    document.kind === 'index'
      ? await chooseManifest(document, wanted, source, what)
      : { digest: digest!, indexes: [], manifest: document };
  const { manifest, config, digest: chosen } = choice;
  const isIndex = document.kind === 'index' && digest !== undefined;
  const found = {
    digest: chosen,
    indexes: isIndex ? [digest, ...choice.indexes] : choice.indexes,
    platforms,
  };
  if (manifest.kind === 'schema1') return { ...describeSchema1(manifest), ...found };
  const description = describeImage(manifest, config ?? (await source.config(manifest)), what);
  return { ...description, ...found };
}

/** The image in an index for the platform. */
interface Choice {
  readonly digest: Digest;
  /** Digests of the indexes between the given one and the manifest, outermost first. */
  readonly indexes: readonly Digest[];
  readonly manifest: Manifest | Schema1;
  /** Undefined if the choice did not need it. */
  readonly config?: ImageConfig | undefined;
}

type Ranked = Choice & { readonly rank: number };

/** Limit on nested indexes; real ones nest once at most. */
export const MAX_INDEX_DEPTH = 4;

/** Limit on entries that are requested; nearly all indexes name the platforms of theirs. */
const MAX_FETCHES = 64;

/**
 * Finds the image in `index` that fits `wanted` best, also in nested indexes. For entries without a platform
 * the config decides.
 *
 * @throws NotFoundError that lists the platforms there are; IntegrityError if indexes nest too deep; errors
 * of `source`
 */
export async function chooseManifest(
  index: ImageIndex,
  wanted: Platform,
  source: DocumentSource,
  what: string,
): Promise<Choice> {
  const search: Search = { wanted, source, what, present: [], fetches: 0 };
  const choice = await bestOf(index, search, 1);
  if (choice === undefined) throw noPlatform(wanted, search.present, what);
  return choice;
}

interface Search {
  readonly wanted: Platform;
  readonly source: DocumentSource;
  readonly what: string;
  /** The platforms found, for the error. */
  readonly present: Platform[];
  fetches: number;
}

async function bestOf(index: ImageIndex, search: Search, depth: number): Promise<Ranked | undefined> {
  if (depth > MAX_INDEX_DEPTH) {
    throw new IntegrityError(`${search.what} has indexes nested more than ${MAX_INDEX_DEPTH} levels deep`);
  }
  search.present.push(...platformsOf(index));
  let best: Ranked | undefined;
  for (const descriptor of pickPlatform(index, search.wanted)) {
    const found = await rankEntry(descriptor, search, depth);
    if (found !== undefined && (best === undefined || found.rank < best.rank)) best = found;
    if (best !== undefined && (best.rank === 0 || descriptor.platform !== undefined)) break;
  }
  return best;
}

async function rankEntry(descriptor: Descriptor, search: Search, depth: number): Promise<Ranked | undefined> {
  const { wanted, source } = search;
  const document = await fetchDocument(descriptor, search);
  if (document === undefined) return undefined;
  const { digest } = descriptor;
  if (document.kind === 'index') {
    const best = await bestOf(document, search, depth + 1);
    return best && { ...best, indexes: [digest, ...best.indexes] };
  }
  const found = { digest, indexes: [], manifest: document };
  if (descriptor.platform !== undefined) {
    return { ...found, rank: platformRank(descriptor.platform, wanted)! };
  }
  if (document.kind === 'schema1') return undefined;
  const config = await source.config(document);
  const rank = platformRank(config.platform, wanted);
  if (rank !== undefined) return { ...found, config, rank };
  search.present.push(config.platform);
  return undefined;
}

/** Reads an entry; undefined for one without a platform that is no image. */
async function fetchDocument(descriptor: Descriptor, search: Search): Promise<ManifestDocument | undefined> {
  search.fetches += 1;
  if (search.fetches > MAX_FETCHES) {
    throw new IntegrityError(
      `${search.what} has more than ${MAX_FETCHES} entries that do not name their platform`,
    );
  }
  try {
    return await search.source.manifest(descriptor);
  } catch (error) {
    const noImage = error instanceof DlrootfsError && error.code === 'NOT_AN_IMAGE';
    if (noImage && descriptor.platform === undefined) return undefined;
    throw error;
  }
}

/**
 * Returns the notice for an image for another platform than `wanted`; undefined if it fits.
 *
 * @param isNamed true if the caller named the platform
 * @throws NotFoundError if the caller named the platform, and the image does not run there
 */
export function platformNotice(
  image: Pick<Image, 'platform'>,
  wanted: Platform,
  isNamed: boolean,
  name: string,
): string | undefined {
  const { platform } = image;
  if (platform.os === '' || platform.architecture === '') return undefined;
  const rank = platformRank(platform, wanted);
  if (rank === undefined && isNamed) throw noPlatform(wanted, [platform], name);
  if (rank !== undefined && platform.architecture === wanted.architecture) return undefined;
  return `${name} is an image for ${formatPlatform(platform)}, not ${formatPlatform(wanted)}`;
}
