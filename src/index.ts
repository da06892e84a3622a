import type { PullRequest } from './options.ts';
import { resolveOptions } from './options.ts';
import { pull as pullImage } from './pull.ts';
import type { PullSummary } from './summary.ts';

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

/**
 * Turns an image into a root file system directory. Answers what came; throws a DlrootfsError, or the reason of
 * `options.signal`. Environment variables count only where `options.environment` brings them (pass `process.env`).
 *
 * @param image `ubuntu:14.04`, `host:5000/path@sha256:…`, or a local source as `oci:DIR`
 */
export async function pull(image: string, options: Omit<PullRequest, 'image'> = {}): Promise<PullSummary> {
  return await pullImage(resolveOptions({ ...options, image }));
}
