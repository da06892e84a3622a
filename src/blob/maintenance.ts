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
  const below = (folder: string) => files.filter((file) => file.path.startsWith(`${folder}/`)).length;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return { blobs: below(store.blobs), partials: below(store.partials), bytes };
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
  const left = new Set((await store.list()).map((file) => file.path));
  const gone = before.filter((file) => !left.has(file.path));
  return { files: gone.length, bytes: gone.reduce((sum, file) => sum + file.bytes, 0) };
}
