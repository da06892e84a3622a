import { abandoned, removeUnused, victims } from './eviction.ts';
import type { Native } from './native.ts';
import { StoreFiles } from './store-files.ts';

export interface StoreSize {
  /** Whole blobs, manifests and configs. */
  readonly blobs: number;
  /** Blobs that an interrupted run left, or that another run is fetching. */
  readonly partials: number;
  /** On disk. */
  readonly bytes: number;
}

/** What a store holds. A directory that is not there holds nothing. */
export async function storeSize(directory: string): Promise<StoreSize> {
  const store = new StoreFiles(directory);
  const files = await store.list();
  const partials = files.filter((file) => file.path.startsWith(`${store.partials}/`)).length;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return { blobs: files.length - partials, partials, bytes };
}

/**
 * Removes what was used longest ago until at most `maxBytes` are left; what another run is fetching stays. Answers how many files
 * and bytes are gone.
 */
export async function pruneStore(
  directory: string,
  maxBytes: number,
  native?: Native,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const store = new StoreFiles(directory);
  const before = await store.list();
  const leftovers = new Set(abandoned(before, Date.now()));
  await removeUnused([...leftovers], native);
  await removeUnused(
    victims(
      before.filter((file) => !leftovers.has(file)),
      maxBytes,
    ),
    native,
  );
  const after = await storeSize(directory);
  const bytes = before.reduce((sum, file) => sum + file.bytes, 0);
  return { files: before.length - after.blobs - after.partials, bytes: bytes - after.bytes };
}
