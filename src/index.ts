import { versions } from 'node:process';
import { UsageError } from './errors.ts';
import type { PullRequest } from './options.ts';
import type { PullSummary } from './summary.ts';
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
export type { PullRequest } from './options.ts';
export type { Layer } from './oci/image.ts';
export type { Platform } from './oci/platform.ts';
export type { PullEvent, Report } from './report/event.ts';
export type { LayerSummary, PullSummary } from './summary.ts';
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
