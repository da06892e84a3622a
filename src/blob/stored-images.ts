import { constants } from 'node:fs';
import { type Digest, digestFault } from '../oci/digest.ts';
import { parseManifest } from '../oci/manifest.ts';
import { removeFiles, type StoredFile, StoreFiles, totalBytes } from './store-files.ts';

/** An image of a registry that the cache knows by its tag. */
export interface StoredImage {
  /** `library/ubuntu:14.04` */
  readonly reference: string;
  /** What the tag meant last: of a manifest or an index. */
  readonly digest: Digest;
  /** Of its files on disk; files that it shares with another image count for both. */
  readonly bytes: number;
  /** ISO 8601. */
  readonly lastUsed: string;
}

/** A tag, and the files of its image that the cache has. */
interface Known extends Omit<StoredImage, 'bytes' | 'lastUsed'> {
  readonly note: StoredFile;
  readonly files: readonly StoredFile[];
}

/** The largest note and the largest document that are read, in bytes. */
const MAX_NOTE_BYTES = 64 * 1024;
const MAX_DOCUMENT_BYTES = 8 * 2 ** 20;
/** Real indexes nest once at most. */
const MAX_DEPTH = 4;

/**
 * The images whose tags the cache knows, the one that was used last first. Notes of earlier versions have no name, and are left out.
 *
 * @throws what `StoreFiles.find` throws
 */
export async function storedImages(directory: string): Promise<StoredImage[]> {
  const store = await StoreFiles.find(directory);
  if (!store) return [];
  try {
    const all = await knownImages(store);
    return all
      .toSorted((one, other) => other.note.lastUsed - one.note.lastUsed)
      .map(({ reference, digest, files, note }) => ({
        reference,
        digest,
        bytes: totalBytes(files),
        lastUsed: new Date(note.lastUsed).toISOString(),
      }));
  } finally {
    store.close();
  }
}

/**
 * Removes an image from the cache: its tag, and what no other tag needs.
 *
 * @returns what was removed; undefined where the cache does not know the tag
 * @throws what `StoreFiles.find` throws
 */
export async function removeStoredImage(
  directory: string,
  reference: string,
): Promise<readonly StoredFile[] | undefined> {
  const store = await StoreFiles.find(directory);
  if (!store) return undefined;
  try {
    const all = await knownImages(store);
    const found = all.find((image) => image.reference === reference);
    if (!found) return undefined;
    const others = all.filter((image) => image !== found).flatMap(({ files }) => files);
    const needed = new Set(others.map(({ name }) => name));
    return await removeFiles(store, [found.note, ...found.files.filter(({ name }) => !needed.has(name))]);
  } finally {
    store.close();
  }
}

async function knownImages(store: StoreFiles): Promise<Known[]> {
  const files = new Map((await store.list()).map((file) => [file.name as string, file]));
  const known: Known[] = [];
  for (const [name, note] of files) {
    if (!name.startsWith('tags/')) continue;
    const [text = '', reference = ''] = ((await read(store, note, MAX_NOTE_BYTES)) ?? '')
      .toString()
      .split('\n');
    // Notes of trees are among those of tags.
    if (reference === '' || /\s/.test(reference) || digestFault(text) !== undefined) continue;
    const digest = text as Digest;
    const digests = new Set<Digest>();
    await collect(store, files, { digest, digests, depth: 0 });
    const own = [...digests].flatMap((each) => [store.blob(each), store.partial(each), store.ranges(each)]);
    known.push({ reference, digest, note, files: own.flatMap((each) => files.get(each) ?? []) });
  }
  return known;
}

/** Adds the digests of a document, and of all that it names and the cache has. */
async function collect(
  store: StoreFiles,
  files: ReadonlyMap<string, StoredFile>,
  {
    digest,
    digests,
    depth,
  }: { readonly digest: Digest; readonly digests: Set<Digest>; readonly depth: number },
): Promise<void> {
  if (digests.has(digest)) return;
  digests.add(digest);
  const file = files.get(store.blob(digest));
  const bytes = file && depth <= MAX_DEPTH ? await read(store, file, MAX_DOCUMENT_BYTES) : undefined;
  const document = bytes && documentOf(bytes, digest);
  if (document?.kind === 'index') {
    for (const entry of document.manifests)
      await collect(store, files, { digest: entry.digest, digests, depth: depth + 1 });
  } else if (document?.kind === 'manifest') {
    for (const blob of [document.config, ...document.layers]) digests.add(blob.digest);
  } else if (document?.kind === 'schema1') {
    for (const entry of document.entries) digests.add(entry.blob);
  }
}

function documentOf(bytes: Buffer, digest: Digest): ReturnType<typeof parseManifest> | undefined {
  try {
    return parseManifest(bytes, undefined, digest, digest);
  } catch {
    return undefined;
  }
}

/** The content of a file; undefined where it is too large or cannot be trusted. It does not count as used. */
async function read(store: StoreFiles, file: StoredFile, limit: number): Promise<Buffer | undefined> {
  const handle = await store.open(file.name, constants.O_RDONLY).catch(() => undefined);
  if (typeof handle !== 'object') return undefined;
  try {
    return (await handle.stat()).size <= limit ? await handle.readFile() : undefined;
  } finally {
    await handle.close();
  }
}
