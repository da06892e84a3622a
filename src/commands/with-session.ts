import { type ImageSource, parseImage } from './image-source.ts';
import { ImageTrust } from './image-trust.ts';
import { Store } from '../blob/store.ts';
import {
  type DlrootfsError,
  IntegrityError,
  InterruptedError,
  NetworkError,
  NotFoundError,
  RateLimitError,
  UnauthorizedError,
} from '../errors.ts';
import type { Signer } from '../oci/artifact.ts';
import { shortID } from '../oci/digest.ts';
import { firstLayers } from '../oci/first-layers.ts';
import { platformNotice } from '../oci/image-index.ts';
import type { Image, Layer, Session } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import { signerText } from '../report/text.ts';
import { spoolPlace } from '../rootfs/destination.ts';

export interface Opened {
  readonly source: ImageSource;
  readonly session: Session;
  readonly store: Store;
}

export interface OpenedImage extends Opened {
  readonly image: Image;
}

/** An image, and its signers if some are demanded. */
export interface FoundImage {
  readonly image: Image;
  readonly signers: readonly Signer[] | undefined;
}

/**
 * Resolves the image for the wanted platform. Reports a notice if the image is for another one, unless the
 * caller named the platform.
 *
 * @param use `read`: layers will be read; `inspect`: find all signers, and let the policy only report
 * @throws errors of the session; NotFoundError without an image for the platform; UntrustedError
 */
export async function findImage(
  opened: Opened,
  options: PullOptions,
  use: 'inspect' | 'read',
): Promise<FoundImage> {
  const { source, session, store } = opened;
  const { platform, isPlatformNamed, report } = options;
  const offline = source.local ? undefined : options.offline;
  const { reference, parsed } = source;
  const trusted = { reference, parsed, session, temporaryFile: () => store.spool() };
  const trust = await ImageTrust.open(trusted, { ...options, offline }, use);
  const image = await requestImage(opened, options, trust);
  const signers = await trust?.check(image, use);
  for (const signer of signers ?? []) report({ type: 'debug', message: `signed: ${signerText(signer)}` });
  const unfit = platformNotice(image, platform, isPlatformNamed, reference);
  if (unfit !== undefined) report({ type: 'notice', message: unfit });
  return { image, signers };
}

/** Requests the image. A network error gets another hint if the cache has the whole image. */
async function requestImage(
  { source, session, store }: Opened,
  { platform, offline }: PullOptions,
  trust: ImageTrust | undefined,
): Promise<Image> {
  try {
    return await session.image(platform, trust && ((digest) => trust.begin(digest)));
  } catch (error) {
    if (!(error instanceof NetworkError) || offline || source.local) throw error;
    const cached = await source
      .open(store, store.spoolDirectory, true)
      .then((stored) => stored.image(platform))
      .catch(() => undefined);
    if (!cached || (await missingLayers(cached, store)).length > 0) throw error;
    const hints = [error.hint, 'the cache has this image: --offline uses it'];
    throw error.withHint(hints.filter(Boolean).join('; '));
  }
}

/**
 * Opens a session as `withSession` does, resolves and reports the image.
 *
 * @throws as `findImage`; NotFoundError offline if the cache does not have all layers
 */
export async function withImage<T>(
  options: PullOptions,
  use: (opened: OpenedImage) => Promise<T>,
): Promise<T> {
  return await withSession(options, async (opened) => {
    const { offline, report } = options;
    const found = await findImage(opened, options, 'read');
    const image = firstLayers(found.image, options.layers, opened.source.reference);
    if (offline && !opened.source.local) await requireCached({ ...opened, image }, offline.hint);
    await using added = await addedTo(image, opened, options);
    const layers = [...image.layers, ...added.layers];
    report({ type: 'image', id: image.id, layers });
    try {
      return await use({ ...opened, image: { ...image, layers } });
    } catch (error) {
      throw aboutAdded(error, added.layers);
    }
  });
}

/** Returns the error, with another hint if it is about the layer of `--add`, which no publisher made. */
function aboutAdded(error: unknown, added: readonly Layer[]): unknown {
  const isAbout = added.some(({ id }) => String(error).includes(`layer ${shortID(id)}`));
  if (!isAbout || !(error instanceof IntegrityError)) return error;
  return error.withHint('this layer is what --add names: check the archive');
}

/** Returns the layer of `--add`, or none. */
export async function addedTo(
  image: Image,
  { store }: Pick<Opened, 'store'>,
  { additions, addOwner, signal }: PullOptions,
): Promise<AsyncDisposable & { readonly layers: readonly Layer[] }> {
  if (additions.length === 0) return { layers: [], [Symbol.asyncDispose]: () => Promise.resolve() };
  const { addedLayer } = await import('./added-layer.ts');
  return await addedLayer(additions, addOwner, image, store, signal);
}

/** Returns the ids of the layers that the store does not have. */
async function missingLayers({ layers }: Image, store: Store): Promise<string[]> {
  const missing: string[] = [];
  for (const { id, digest } of layers) {
    if (digest === undefined || !(await store.has(digest))) missing.push(id);
  }
  return missing;
}

/** The largest number of layers that an error names. */
const MAX_NAMED = 3;

async function requireCached({ image, source, store }: OpenedImage, hint: string): Promise<void> {
  const missing = (await missingLayers(image, store)).map((id) => shortID(id));
  if (missing.length === 0) return;
  const more = missing.length > MAX_NAMED ? ' …' : '';
  const named = `${missing.slice(0, MAX_NAMED).join(' ')}${more}`;
  const reason = `the cache does not have ${missing.length} of its ${image.layers.length} layers (${named})`;
  throw new NotFoundError(`cannot read ${source.reference} offline: ${reason}`, { code: 'NOT_CACHED', hint });
}

/** Errors after which the same command may succeed when it is run again. */
const resumable = [InterruptedError, NetworkError, RateLimitError, UnauthorizedError];

/** Opens the store and the session for an image, calls `use`, and closes both in any case. */
export async function withSession<T>(options: PullOptions, use: (opened: Opened) => Promise<T>): Promise<T> {
  const { report, destination, signal } = options;
  const source = parseImage(options);
  const spoolDirectory = spoolPlace(destination);
  const directory = source.local ? undefined : options.store.directory;
  const store = await Store.open({ ...options.store, directory, spoolDirectory, report });
  try {
    report({ type: 'session', name: source.name });
    const session = await source.open(store, spoolDirectory);
    try {
      return await use({ source, session, store });
    } finally {
      await session.close();
    }
  } catch (error) {
    const failure: unknown = signal.aborted ? signal.reason : error;
    if (resumable.some((kind) => failure instanceof kind))
      (failure as DlrootfsError).kept = store.isResumable;
    throw error;
  } finally {
    await store.close();
  }
}
