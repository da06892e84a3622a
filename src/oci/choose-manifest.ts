import { DlrootfsError, IntegrityError } from '../errors.ts';
import type { ImageConfig } from './config.ts';
import type { Descriptor } from './descriptor.ts';
import type { Digest } from './digest.ts';
import { noPlatform, pickPlatform, platformsOf } from './image-index.ts';
import type { ImageIndex } from './image-index.ts';
import type { ManifestDocument } from './manifest-document.ts';
import type { Manifest } from './manifest.ts';
import { platformRank } from './platform.ts';
import type { Platform } from './platform.ts';
import type { Schema1 } from './schema1.ts';

/** Where the documents that an index lists come from; both must have been verified against their digests. */
export interface DocumentSource {
  manifest(descriptor: Descriptor): Promise<ManifestDocument>;
  config(manifest: Manifest): Promise<ImageConfig>;
}

/** The image of an index that is for the platform. */
export interface Choice {
  readonly digest: Digest;
  readonly manifest: Manifest | Schema1;
  /** Where it was needed to judge the image. */
  readonly config?: ImageConfig | undefined;
}

type Ranked = Choice & { readonly rank: number };

/** An index in an index in an index is odd already. */
const MAX_DEPTH = 4;

/** Each costs requests; indexes name their platforms, nearly always. */
const MAX_FETCHES = 64;

/**
 * The image of `index` that fits `wanted` best, through nested indexes. Entries without a platform are judged by their configs. Throws
 * NotFoundError that lists the platforms there are, IntegrityError where indexes nest too deep, and what `source` throws.
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
  /** Every platform met that does not fit. */
  readonly present: Platform[];
  fetches: number;
}

async function bestOf(index: ImageIndex, search: Search, depth: number): Promise<Ranked | undefined> {
  if (depth > MAX_DEPTH) {
    throw new IntegrityError(`${search.what} has indexes nested more than ${MAX_DEPTH} levels deep`);
  }
  search.present.push(...platformsOf(index));
  let best: Ranked | undefined;
  for (const descriptor of pickPlatform(index, search.wanted)) {
    const found = await judge(descriptor, search, depth);
    if (found !== undefined && (best === undefined || found.rank < best.rank)) best = found;
    if (best !== undefined && (best.rank === 0 || descriptor.platform !== undefined)) break;
  }
  return best;
}

async function judge(descriptor: Descriptor, search: Search, depth: number): Promise<Ranked | undefined> {
  const { wanted, source } = search;
  const document = await fetchDocument(descriptor, search);
  if (document === undefined) return undefined;
  if (document.kind === 'index') return bestOf(document, search, depth + 1);
  const { digest } = descriptor;
  if (descriptor.platform !== undefined) {
    return { digest, manifest: document, rank: platformRank(descriptor.platform, wanted)! };
  }
  if (document.kind === 'schema1') return undefined;
  const config = await source.config(document);
  const rank = platformRank(config.platform, wanted);
  if (rank !== undefined) return { digest, manifest: document, config, rank };
  search.present.push(config.platform);
  return undefined;
}

/** An entry that names no platform may well be no image: it is passed over. */
async function fetchDocument(descriptor: Descriptor, search: Search): Promise<ManifestDocument | undefined> {
  search.fetches++;
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
