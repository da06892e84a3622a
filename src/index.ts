import { versions } from 'node:process';
import { UsageError } from './errors.ts';
import type { Writable } from 'node:stream';
import type { CacheAddition } from './commands/cache.ts';
import type { ImageDifferences } from './commands/diff.ts';
import type { Preview } from './commands/inspect.ts';
import type { StoreSize } from './blob/store.ts';
import type { StoredImage } from './blob/stored-images.ts';
import type { Inspection, ListedEntry } from './report/text.ts';
import type {
  CacheRequest,
  DiffRequest,
  ExportRequest,
  ImagesRequest,
  PullRequest,
  TagsRequest,
  VerifyRequest,
} from './requests.ts';
import type { PullOptions } from './options.ts';
import type { PullSummary } from './commands/summary.ts';
import type { Verification } from './commands/verify.ts';
import { leastNodes, runsOn } from './version.ts';

export {
  DestinationError,
  DlrootfsError,
  ExitCode,
  GitError,
  IntegrityError,
  InterruptedError,
  NetworkError,
  NotFoundError,
  RateLimitError,
  UnauthorizedError,
  UntrustedError,
  UsageError,
} from './errors.ts';
export type { Change, Difference } from './comparison/differences.ts';
export type { ComparedImage, ImageDifferences } from './commands/diff.ts';
export type { StoreSize } from './blob/store.ts';
export type { CacheAddition } from './commands/cache.ts';
export type { Preview } from './commands/inspect.ts';
export type { StoredImage } from './blob/stored-images.ts';
export type { Inspection, ListedEntry } from './report/text.ts';
export type {
  CacheRequest,
  DiffRequest,
  ExportRequest,
  ImagesRequest,
  PullRequest,
  TagsRequest,
  VerifyRequest,
} from './requests.ts';
export type { Signer } from './oci/artifact.ts';
export type { Layer } from './oci/image.ts';
export type { Platform } from './oci/platform.ts';
export type { PullEvent, Report } from './report/event.ts';
export { Secrets } from './sys/secrets.ts';
export type { SignerRequest } from './trust/signers.ts';
export type { LayerSummary, PullSummary } from './commands/summary.ts';
export type { Verification } from './commands/verify.ts';
export { version } from './version.ts';

// This file, and everything that is loaded before this line, uses the syntax of Node 12: an older Node throws
// this error, not a syntax error.
if (!runsOn(versions.node)) {
  throw new UsageError(`dlrootfs needs Node ${leastNodes.join('+, ')}+, and this is ${versions.node}`, {
    hint: 'install a newer Node',
  });
}

type Resolve = typeof import('./options.ts').resolveOptions;

/**
 * Loads the options and a command, and runs it. Reports, results and errors have no secret of the run.
 *
 * @param open texts that the caller writes openly, besides those in the options
 */
async function run<Library, Result>(
  loading: Promise<Library>,
  request: PullRequest,
  command: (library: Library, options: PullOptions, resolve: Resolve) => Promise<Result>,
  open: readonly string[] = [],
): Promise<Result> {
  const [{ resolveOptions }, { refuseUnknownOptions }, library] = await Promise.all([
    import('./options.ts'),
    import('./requests.ts'),
    loading,
  ]);
  refuseUnknownOptions(request);
  const options = resolveOptions(request);
  const { secrets } = options;
  for (const text of open) secrets.expose(text);
  try {
    return secrets.maskIn(await command(library, options, resolveOptions));
  } catch (error) {
    throw secrets.maskError(error);
  }
}

/**
 * Turns an image into a root file system directory; returns a summary. Environment variables have an effect
 * only in `options.environment` (pass `process.env`).
 *
 * @param image `ubuntu:14.04`, `host:5000/path@sha256:…`, or a local source such as `oci:DIR`
 * @throws a DlrootfsError, or the reason of `options.signal`
 */
export async function pull(image: string, options: Omit<PullRequest, 'image'> = {}): Promise<PullSummary> {
  return await run(import('./commands/pull.ts'), { ...options, image }, (library, resolved) =>
    library.pull(resolved),
  );
}

/**
 * Compares a directory with an image and changes nothing, as `dlrootfs verify` does.
 *
 * @param image as for `pull`
 * @throws as `pull`, but not for differences
 */
export async function verify(image: string, options: VerifyRequest = {}): Promise<Verification> {
  const { contents = false, ...request } = options;
  return await run(import('./commands/verify.ts'), { ...request, image }, (library, resolved) =>
    library.verify(resolved, contents),
  );
}

/**
 * Compares the root file systems of two images, without a directory, as `dlrootfs diff` does.
 *
 * @param first as for `pull`
 * @param second likewise
 * @param options `layers` may be a pair: those of the first image and of the second
 * @throws as `pull`, but not for differences
 */
export async function diff(
  first: string,
  second: string,
  options: ImagesRequest = {},
): Promise<ImageDifferences> {
  const { layers } = options;
  const [one, other] = [first, second].map((image, index) => ({
    ...options,
    layers: Array.isArray(layers) ? layers[index] : layers,
    image,
  }));
  return await run(import('./commands/diff.ts'), one!, (library, resolved, resolve) =>
    library.diff(resolved, resolve({ ...other!, secrets: resolved.secrets })),
  );
}

/**
 * Writes the root file system of an image as one file, as `-o` does.
 *
 * @param image as for `pull`
 * @param output a file, whose ending selects an archive, its compression or a disk image; or a stream, which
 * gets a tar and stays open
 * @throws as `pull`; a file appears complete or not at all
 */
export async function exportArchive(
  image: string,
  output: string | Writable,
  options: ExportRequest = {},
): Promise<PullSummary> {
  const { PassThrough } = await import('node:stream');
  if (output === '-') throw new UsageError('"-" is no file', { hint: 'pass a stream, or ./-' });
  const [name, stream] = typeof output === 'string' ? [output, new PassThrough()] : ['-', output];
  return await run(
    import('./commands/export.ts'),
    { ...options, image },
    (library, resolved) => library.exportArchive(resolved, name, stream),
    [name],
  );
}

/**
 * Writes the content of a file of an image to a stream, which stays open, as `dlrootfs cat` does.
 *
 * @param image as for `pull`
 * @param file its path from the root of the image
 * @throws as `pull`; NotFoundError for a path that is not a file
 */
export async function cat(
  image: string,
  file: string,
  output: Writable,
  options: DiffRequest = {},
): Promise<void> {
  await run(
    import('./commands/cat.ts'),
    { ...options, image },
    (library, resolved) => library.cat(resolved, file, output),
    [file],
  );
}

/**
 * Lists a directory of an image, or another path itself, as `dlrootfs ls` does.
 *
 * @param image as for `pull`
 * @param path from the root of the image; symlinks are followed inside it
 * @throws as `pull`; NotFoundError for a path that the image does not have
 */
export async function list(image: string, path = '/', options: DiffRequest = {}): Promise<ListedEntry[]> {
  return await run(
    import('./commands/cat.ts'),
    { ...options, image },
    (library, resolved) => library.list(resolved, path),
    [path],
  );
}

/**
 * Describes an image without downloading its layers, as `dlrootfs inspect` does.
 *
 * @param image as for `pull`
 * @throws as `pull`
 */
export async function inspect(image: string, options: DiffRequest = {}): Promise<Inspection> {
  return await run(import('./commands/inspect.ts'), { ...options, image }, (library, resolved) =>
    library.inspect(resolved),
  );
}

/**
 * Reports what `pull` with `replace` would do to the destination, and changes nothing, as `--replace
 * --dry-run` does.
 *
 * @param image as for `pull`
 * @throws as `pull`, also for a destination that it would not replace
 */
export async function preview(image: string, options: Omit<PullRequest, 'image'> = {}): Promise<Preview> {
  const request = { replace: true, ...options, image };
  return await run(import('./commands/inspect.ts'), request, (library, resolved) =>
    library.preview(resolved),
  );
}

/**
 * Returns all tags of a repository, in the registry's order.
 *
 * @param repository `ubuntu`, `host:5000/path`
 * @throws as `pull`
 */
export async function listTags(repository: string, options: TagsRequest = {}): Promise<string[]> {
  const { onTag, ...request } = options;
  return await run(
    import('./commands/inspect.ts'),
    { ...request, image: repository },
    async (library, resolved) => {
      const tags: string[] = [];
      await library.listTags(resolved, (tag) => {
        tags.push(tag);
        if (onTag) onTag(resolved.secrets.mask(tag));
      });
      return tags;
    },
  );
}

/** The functions of `dlrootfs cache`. All throw as `pull`. */
export const cache = {
  /** Returns the size of the cache. */
  async size(options: CacheRequest = {}): Promise<StoreSize> {
    const [library, { storeSize }] = await Promise.all([
      import('./commands/cache.ts'),
      import('./blob/store.ts'),
    ]);
    return await storeSize(library.cacheDirectoryOf(options));
  },

  /**
   * Removes the least recently used blobs, down to `cacheSize` bytes (default: 0); returns the size of what
   * was removed.
   */
  async prune(options: CacheRequest = {}): Promise<StoreSize> {
    const [library, { pruneStore }] = await Promise.all([
      import('./commands/cache.ts'),
      import('./blob/store.ts'),
    ]);
    const { cacheSize = 0 } = options;
    return await pruneStore(library.cacheDirectoryOf(options), cacheSize);
  },

  /** Returns the images that the cache has by tag, most recently used first. */
  async list(options: CacheRequest = {}): Promise<StoredImage[]> {
    const library = await import('./commands/cache.ts');
    return await library.listCache(options);
  },

  /**
   * Removes an image, except blobs that another one needs; returns the size of what was removed.
   *
   * @throws NotFoundError if the cache does not have the tag
   */
  async remove(image: string, options: CacheRequest = {}): Promise<StoreSize> {
    const library = await import('./commands/cache.ts');
    return await library.removeFromCache(image, options);
  },

  /** Downloads everything that a pull of the image needs into the cache. */
  async add(image: string, options: DiffRequest = {}): Promise<CacheAddition> {
    return await run(import('./commands/cache.ts'), { ...options, image }, (library, resolved) =>
      library.addToCache(resolved),
    );
  },
};
