import { decompressor } from './blob/decode/decompress.ts';
import { nativeDecoders } from './blob/decode/native.ts';
import { Store } from './blob/store.ts';
import {
  type DlrootfsError,
  InterruptedError,
  NetworkError,
  RateLimitError,
  UnauthorizedError,
} from './errors.ts';
import { platformNotice } from './oci/image-index.ts';
import type { Image, Session } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { spoolPlace } from './rootfs/destination.ts';
import { type ImageSource, parseImage } from './source.ts';
import { namelessFile } from './sys/temp-file.ts';

export interface Opened {
  readonly source: ImageSource;
  readonly session: Session;
  readonly store: Store;
}

/**
 * Finds the image for the wanted platform, and reports it.
 *
 * @throws errors of the session, and NotFoundError without an image for the platform
 */
export async function resolveImage({ source, session }: Opened, options: PullOptions): Promise<Image> {
  const { platform, platformAsked, report, signal } = options;
  const image = await session.image(platform, signal);
  const unfit = platformNotice(image, platform, platformAsked, source.name);
  if (unfit !== undefined) report({ type: 'notice', message: unfit });
  report({ type: 'image', id: image.id, layers: image.layers });
  return image;
}

/** Failures after which the same command, run again, may succeed. */
const resumable = [InterruptedError, NetworkError, RateLimitError, UnauthorizedError];

/** Opens store and session for an image, hands them to `use`, and closes them in any case. */
export async function withSession<T>(options: PullOptions, use: (opened: Opened) => Promise<T>): Promise<T> {
  const { report, destination, signal } = options;
  const source = parseImage(options);
  const spoolDirectory = await spoolPlace(destination);
  const directory = source.local ? undefined : options.store.directory;
  const { maxBytes } = options.store;
  const store = await Store.open({ directory, maxBytes, spoolDirectory, report });
  try {
    report({ type: 'session', name: source.name });
    const session = await source.open({
      manifestStore: store,
      spoolDirectory,
      decompress: decompressor(nativeDecoders()),
      namelessFile,
    });
    try {
      return await use({ source, session, store });
    } finally {
      await session.close();
    }
  } catch (error) {
    const failure: unknown = signal.aborted ? signal.reason : error;
    if (resumable.some((kind) => failure instanceof kind)) (failure as DlrootfsError).kept = store.keeps;
    throw error;
  } finally {
    await store.close();
  }
}
