import { versions } from 'node:process';
import { UsageError } from './errors.ts';
import type { ImageDifferences } from './diff.ts';
import type { DiffRequest, PullRequest, VerifyRequest } from './options.ts';
import type { PullSummary } from './summary.ts';
import type { Verification } from './verify.ts';
import { leastNode } from './version.ts';

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
  UsageError,
} from './errors.ts';
export type { Change, Difference } from './comparison/differences.ts';
export type { ComparedImage, ImageDifferences } from './diff.ts';
export type { DiffRequest, PullRequest, VerifyRequest } from './options.ts';
export type { Layer } from './oci/image.ts';
export type { Platform } from './oci/platform.ts';
export type { PullEvent, Report } from './report/event.ts';
export type { LayerSummary, PullSummary } from './summary.ts';
export type { Verification } from './verify.ts';
export { version } from './version.ts';

const [major = 0, minor = 0] = versions.node.split('.').map(Number);
// What is loaded before this line, and this file, keep to the syntax of Node 12: an older Node gets this message, no syntax error.
if (major < leastNode.major || (major === leastNode.major && minor < leastNode.minor)) {
  throw new UsageError(
    `dlrootfs needs Node ${leastNode.major}.${leastNode.minor} or newer, and this is ${versions.node}`,
    { hint: 'install a newer Node' },
  );
}

/**
 * Turns an image into a root file system directory. Answers what came; throws a DlrootfsError, or the reason of
 * `options.signal`. Environment variables count only where `options.environment` brings them (pass `process.env`).
 *
 * @param image `ubuntu:14.04`, `host:5000/path@sha256:…`, or a local source as `oci:DIR`
 */
export async function pull(image: string, options: Omit<PullRequest, 'image'> = {}): Promise<PullSummary> {
  const [{ resolveOptions }, library] = await Promise.all([import('./options.ts'), import('./pull.ts')]);
  return await library.pull(resolveOptions({ ...options, image }));
}

/**
 * Compares a directory with an image, and changes nothing: what `dlrootfs verify` tells.
 *
 * @param image as for `pull`
 * @throws as `pull`, but not for differences
 */
export async function verify(image: string, options: VerifyRequest = {}): Promise<Verification> {
  const [{ resolveOptions }, library] = await Promise.all([import('./options.ts'), import('./verify.ts')]);
  const { contents = false, ...request } = options;
  return await library.verify(resolveOptions({ ...request, image }), contents);
}

/**
 * Compares the root file systems of two images, without a directory: what `dlrootfs diff` tells.
 *
 * @param first as for `pull`
 * @param second likewise
 * @throws as `pull`, but not for differences
 */
export async function diff(
  first: string,
  second: string,
  options: DiffRequest = {},
): Promise<ImageDifferences> {
  const [{ resolveOptions }, library] = await Promise.all([import('./options.ts'), import('./diff.ts')]);
  const [one, other] = [first, second].map((image) => resolveOptions({ ...options, image }));
  return await library.diff(one!, other!);
}
