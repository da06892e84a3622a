import { constants } from 'node:fs';
import { type Artifact, parseArtifact } from '../oci/artifact.ts';
import { type Digest, digestFault } from '../oci/digest.ts';
import { MAX_INDEX_DEPTH } from '../oci/image-index.ts';
import { parseManifest } from '../oci/manifest.ts';
import { removeFiles, type StoredFile, StoreFiles, totalBytes } from './store-files.ts';

/** An image of a registry whose tag is in the cache. */
export interface StoredImage {
  /** `library/ubuntu:14.04` */
  readonly reference: string;
  /** Last known digest of the tag: that of a manifest or an index. */
  readonly digest: Digest;
  /** Bytes of its files and of its signatures on disk. Files that two images share count for both. */
  readonly bytes: number;
  /** Time of the last use, in ISO 8601. */
  readonly lastUsed: string;
}

/** A tag, and the files of its image and of the signatures that the cache has. */
interface Known extends Omit<StoredImage, 'bytes' | 'lastUsed'> {
  readonly note: StoredFile;
  readonly files: readonly StoredFile[];
}

/** A file in `tags/`, see `Store.remember`. */
interface Note {
  readonly note: StoredFile;
  readonly digest: Digest;
  readonly reference: string;
  readonly subject: string | undefined;
}

/** Largest note and largest document that are read, in bytes. */
const MAX_NOTE_BYTES = 64 * 1024;
const MAX_CACHED_DOCUMENT_BYTES = 8 * 2 ** 20;

/**
 * Returns the images whose tags the cache knows, the last used first. Notes of earlier versions have no name,
 * and are left out.
 *
 * @throws the errors of `StoreFiles.find`
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
 * Removes an image from the cache: its tag, and the files that no other tag needs.
 *
 * @returns the removed files; undefined if the cache does not know the tag
 * @throws the errors of `StoreFiles.find`
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
  const notes = await notesOf(store, files);
  const attached = Map.groupBy(notes, ({ subject }) => subject);
  const known: Known[] = [];
  for (const { note, digest, reference } of attached.get(undefined) ?? []) {
    // Skips notes of trees, whose names have spaces.
    if (/\s/.test(reference)) continue;
    const digests = new Set<Digest>();
    await collectDigests(store, files, { digest, digests, depth: 0 });
    const attachments = [...digests].flatMap((each) => attached.get(each) ?? []);
    for (const attachment of attachments)
      await collectDigests(store, files, { digest: attachment.digest, digests, depth: 0 });
    const own = [...digests].flatMap((each) => [store.blob(each), store.partial(each), store.ranges(each)]);
    known.push({
      reference,
      digest,
      note,
      files: [...attachments.map((each) => each.note), ...own.flatMap((each) => files.get(each) ?? [])],
    });
  }
  return known;
}

async function notesOf(store: StoreFiles, files: ReadonlyMap<string, StoredFile>): Promise<Note[]> {
  const notes: Note[] = [];
  for (const [name, note] of files) {
    if (!name.startsWith('tags/')) continue;
    const bytes = await read(store, note, MAX_NOTE_BYTES);
    const [digest = '', reference = '', subject = ''] = (bytes ?? '').toString().split('\n');
    if (reference === '' || digestFault(digest) !== undefined) continue;
    notes.push({ note, digest: digest as Digest, reference, subject: subject || undefined });
  }
  return notes;
}

/**
 * Adds the digest of a document, and the digests of all that it names, as far as the cache has the documents.
 */
async function collectDigests(
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
  const bytes =
    file && depth <= MAX_INDEX_DEPTH ? await read(store, file, MAX_CACHED_DOCUMENT_BYTES) : undefined;
  if (!bytes) return;
  const document = documentOf(bytes, digest);
  if (document?.kind === 'index') {
    for (const entry of document.manifests)
      await collectDigests(store, files, { digest: entry.digest, digests, depth: depth + 1 });
  } else if (document?.kind === 'manifest') {
    for (const blob of [document.config, ...document.layers]) digests.add(blob.digest);
  } else if (document?.kind === 'schema1') {
    for (const entry of document.entries) digests.add(entry.blob);
  } else if (document?.kind === 'artifact') {
    for (const blob of document.layers) digests.add(blob.digest);
  }
}

function documentOf(
  bytes: Buffer,
  digest: Digest,
): ReturnType<typeof parseManifest> | ({ readonly kind: 'artifact' } & Artifact) | undefined {
  try {
    return parseManifest(bytes, undefined, digest, digest);
  } catch {
    try {
      return { kind: 'artifact', ...parseArtifact(bytes, digest) };
    } catch {
      return undefined;
    }
  }
}

/**
 * Returns the content of a file; undefined if it is too large or cannot be trusted. It does not count as
 * used.
 */
async function read(store: StoreFiles, file: StoredFile, limit: number): Promise<Buffer | undefined> {
  const handle = await store.open(file.name, constants.O_RDONLY).catch(() => undefined);
  if (typeof handle !== 'object') return undefined;
  try {
    return (await handle.stat()).size <= limit ? await handle.readFile() : undefined;
  } finally {
    await handle.close();
  }
}
