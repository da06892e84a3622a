import { IntegrityError, NotFoundError, UsageError, printable } from '../errors.ts';
import { isObject, parseJson, textOf, textsOf } from '../oci/json.ts';
import { Reference } from '../oci/reference.ts';

/** An archive of thousands of images has less. */
export const MAX_LISTING_BYTES = 16 * 1024 * 1024;

/** One image of manifest.json: paths in the archive, and its names. */
export interface ListedImage {
  readonly config: string;
  /** Base layer first. */
  readonly layers: readonly string[];
  /** `name:tag`, as they were given. */
  readonly names: readonly string[];
}

/** Reads manifest.json of `docker save` (moby, image/tarexport). Throws IntegrityError. */
export function parseListing(bytes: Uint8Array, what: string): readonly ListedImage[] {
  const list = parseJson(bytes, what);
  if (!Array.isArray(list)) throw new IntegrityError(`${what} is not a list of images`);
  return list.map((entry: unknown, place) => {
    const config = isObject(entry) ? textOf(entry['Config']) : undefined;
    const layers = isObject(entry) ? (entry['Layers'] ?? []) : undefined;
    if (!isObject(entry) || config === undefined || !Array.isArray(layers)) {
      throw new IntegrityError(`image ${place} in ${what} lacks its config or its layers`);
    }
    const paths = textsOf(layers) ?? [];
    if (paths.length !== layers.length) {
      throw new IntegrityError(`a layer of image ${place} in ${what} is not a path`);
    }
    return { config, layers: paths, names: textsOf(entry['RepoTags']) ?? [] };
  });
}

/**
 * The image that is `wanted` by a reference or by `@N`; without either the only one. Names are compared once they are
 * normalised, as skopeo does. Throws NotFoundError and UsageError that list the names.
 */
export function selectImage(
  images: readonly ListedImage[],
  wanted: string | undefined,
  what: string,
): ListedImage {
  const [first] = images;
  if (first === undefined)
    throw new NotFoundError(`${what} is empty: its manifest.json lists no image`, {
      hint: 'save or copy the image again',
    });
  if (wanted === undefined) {
    if (images.length === 1) return first;
    throw new UsageError(`${what} has ${images.length} images`, {
      code: 'AMBIGUOUS_IMAGE',
      hint: namesHint(images),
    });
  }
  const place = /^@(\d{1,9})$/.exec(wanted)?.[1];
  const found = place === undefined ? findByName(images, wanted) : images[Number(place)];
  if (found !== undefined) return found;
  throw new NotFoundError(`${what} has no image "${printable(wanted, 120)}"`, { hint: namesHint(images) });
}

function findByName(images: readonly ListedImage[], wanted: string): ListedImage | undefined {
  const name = normalised(wanted) ?? wanted;
  return images.find(({ names }) => names.some((text) => (normalised(text) ?? text) === name));
}

function normalised(text: string): string | undefined {
  try {
    return Reference.format(Reference.parse(text));
  } catch {
    return undefined;
  }
}

function namesHint(images: readonly ListedImage[]): string {
  const names = images.map(({ names: [name] }, place) => printable(name ?? `@${place}`, 80));
  return `name one after a colon: ${names.join(', ')}`;
}
