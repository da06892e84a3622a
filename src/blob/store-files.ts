import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, readdir, rm, utimes, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { algorithmOf, digestOf, hexOf, type Digest, type DigestAlgorithm } from '../oci/digest.ts';
import type { StoredFile } from './eviction.ts';
import { openTrusted, trustedDirectory, trustedSubdirectory } from './trust.ts';

const ALGORITHMS: readonly DigestAlgorithm[] = ['sha256', 'sha512'];

/**
 * Where things lie in the store's directory: `blobs/<algorithm>/<hex>` whole, `partial/<algorithm>-<hex>` on their way, and in
 * `tags/<sha256 of the reference>` the digest that a tag had last.
 */
export class StoreFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Makes what is missing. Throws an Error that says why the directory cannot be used. */
  async prepare(): Promise<void> {
    await trustedDirectory(this.directory);
    await trustedSubdirectory(this.blobs);
    for (const algorithm of ALGORITHMS) {
      await trustedSubdirectory(path.join(this.blobs, algorithm));
    }
    await trustedSubdirectory(this.partials);
    await trustedSubdirectory(this.#tags);
  }

  get blobs(): string {
    return path.join(this.directory, 'blobs');
  }

  get partials(): string {
    return path.join(this.directory, 'partial');
  }

  blob(digest: Digest): string {
    return path.join(this.blobs, algorithmOf(digest), hexOf(digest));
  }

  /** What another run, or the next one, goes on with. */
  partial(digest: Digest): string {
    return path.join(this.partials, `${algorithmOf(digest)}-${hexOf(digest)}`);
  }

  get #tags(): string {
    return path.join(this.directory, 'tags');
  }

  /** Where the digest of a tag is noted; `reference` is `name:tag`. */
  tag(reference: string): string {
    return path.join(this.#tags, hexOf(digestOf(Buffer.from(reference))));
  }

  /** A name that nobody else uses. */
  private(): string {
    return path.join(this.partials, `private-${randomBytes(12).toString('hex')}`);
  }

  /** Opens a whole blob for reading and marks it as used; what stands there but cannot be trusted is removed. */
  async openBlob(digest: Digest): Promise<FileHandle | undefined> {
    const name = this.blob(digest);
    const handle = await openTrusted(name, constants.O_RDONLY);
    if (!handle) {
      await rm(name, { recursive: true, force: true }).catch(() => undefined);
      return undefined;
    }
    const now = new Date();
    await utimes(name, now, now).catch(() => undefined);
    return handle;
  }

  /** All files, whole and partial. `pinned` names those that must stay. */
  async list(pinned: ReadonlySet<string> = new Set()): Promise<StoredFile[]> {
    const directories = [...ALGORITHMS.map((name) => path.join(this.blobs, name)), this.partials, this.#tags];
    const files = directories.map(async (directory) => {
      const names = await readdir(directory).catch(() => []);
      return Promise.all(names.map((name) => describe(path.join(directory, name), pinned)));
    });
    return (await Promise.all(files)).flat().filter((file) => file !== undefined);
  }
}

async function describe(name: string, pinned: ReadonlySet<string>): Promise<StoredFile | undefined> {
  const stats = await lstat(name).catch(() => undefined);
  // A partial file may have holes: what counts is what lies on the disk, in blocks of 512 bytes.
  return (
    stats && {
      path: name,
      bytes: stats.blocks * 512,
      lastUsed: stats.mtimeMs,
      pinned: pinned.has(name),
    }
  );
}
