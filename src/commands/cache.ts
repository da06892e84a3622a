import { DestinationError, NotFoundError, printable, UsageError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import { defaultCacheDirectory, type PullOptions } from '../options.ts';
import { sizeOf, type StoreSize } from '../blob/store.ts';
import { removeStoredImage, type StoredImage, storedImages } from '../blob/stored-images.ts';
import { type CacheRequest, refuseUnknownOptions } from '../requests.ts';
import { Reference } from '../oci/reference.ts';
import { fetchAllLayers, withoutCorruptBlobs } from '../blob/queue.ts';
import { type BytesBySource, countingBytes } from './summary.ts';
import { type ImageSource, parseImage } from './image-source.ts';
import { type Opened, withImage } from './with-session.ts';

/** The result of `cache add`: the image, and the bytes that were downloaded. */
export interface CacheAddition {
  readonly directory: string;
  /** `library/ubuntu:14.04`, or `name@sha256:…`. */
  readonly reference: string;
  /** The digest of the manifest. */
  readonly digest: string;
  readonly layers: number;
  /** Sizes of the compressed layers; those under `cache` were in the cache before. */
  readonly sizes: BytesBySource;
}

/**
 * Returns the directory of the cache.
 *
 * @throws UsageError where none is known, and for an unknown option; the signal's reason
 */
export function cacheDirectoryOf(request: CacheRequest): string {
  refuseUnknownOptions(request);
  const { cacheDirectory, environment = {}, signal } = request;
  signal?.throwIfAborted();
  return requireDirectory(cacheDirectory ?? defaultCacheDirectory(environment));
}

function requireDirectory(directory: string | undefined): string {
  if (directory !== undefined) return directory;
  throw new UsageError('no home directory for the cache is known', { hint: 'use --cache-dir DIR' });
}

/**
 * Returns the images whose tags the cache knows, most recently used first.
 *
 * @throws as `cacheDirectoryOf`
 */
export async function listCache(request: CacheRequest): Promise<StoredImage[]> {
  return await storedImages(cacheDirectoryOf(request));
}

/**
 * Removes the tag of an image from the cache, and the blobs that no other tag needs; returns their size.
 *
 * @throws NotFoundError where the cache does not know the tag; as `cacheDirectoryOf`
 */
export async function removeFromCache(image: string, request: CacheRequest): Promise<StoreSize> {
  const directory = cacheDirectoryOf(request);
  const reference = Reference.format(Reference.parse(image));
  const removed = await removeStoredImage(directory, reference);
  if (removed !== undefined) return sizeOf(directory, removed);
  throw new NotFoundError(`the cache does not have ${reference}`, {
    code: 'NOT_CACHED',
    hint: 'dlrootfs cache list has its images; an image by digest is removed by dlrootfs cache prune',
  });
}

/**
 * Fills the cache with everything that a pull of the image needs: manifest, config and layers.
 *
 * @throws UsageError for an image that no cache can hold; DestinationError where the cache cannot be written;
 * as `pull` does
 */
export async function addToCache(request: PullOptions): Promise<CacheAddition> {
  const { local, name } = parseImage(request);
  if (local)
    throw new UsageError(`cannot add ${printable(name)} to the cache: it is on this machine already`, {
      hint: 'name an image of a registry',
    });
  const directory = requireDirectory(request.store.directory);
  const { report, bytes } = countingBytes(request.report);
  // Temporary files go beside the cache.
  const options = { ...request, destination: directory, report, store: { ...request.store, required: true } };
  return await withImage(options, async (opened) => {
    const { image, source, store } = opened;
    refuseUncacheable(image, source, options);
    // Fails before the layers are downloaded.
    await requireKept([image.digest], opened);
    const fetched = await withoutCorruptBlobs(report, (careful) =>
      fetchAllLayers(image.layers, { ...options, store, careful }),
    );
    await fetched.close();
    await requireKept(
      image.layers.map(({ digest }) => digest),
      opened,
    );
    const { reference } = source;
    report({ type: 'done', reference, destination: directory });
    const { layers } = image;
    return { directory, reference, digest: image.digest!, layers: layers.length, sizes: bytes(layers) };
  });
}

function refuseUncacheable(
  { layers, digest }: Image,
  { reference }: ImageSource,
  options: PullOptions,
): void {
  if (digest === undefined || layers.some((layer) => layer.digest === undefined))
    throw new UsageError(`cannot add ${reference} to the cache: its registry has no digests`, {
      hint: 'pull it into a directory: dlrootfs IMAGE -d DIR',
    });
  const sizes = new Map(layers.map((layer) => [layer.digest, layer.size ?? 0]));
  const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const { maxBytes } = options.store;
  if (bytes <= maxBytes) return;
  const reason = `its layers have ${bytes} bytes, and the cache may have ${maxBytes}`;
  throw new UsageError(`cannot add ${reference} to the cache: ${reason}`, {
    hint: 'raise the limit with --cache-size',
  });
}

/** @throws DestinationError for a digest that the store does not have */
async function requireKept(
  digests: readonly (Digest | undefined)[],
  { source, store }: Opened,
): Promise<void> {
  for (const digest of digests) {
    if (digest !== undefined && (await store.has(digest))) continue;
    throw new DestinationError(`cannot add ${source.reference} to the cache: it does not keep ${digest}`, {
      code: 'NOT_KEPT',
      hint: 'see the notice above, or choose another directory with --cache-dir',
    });
  }
}
