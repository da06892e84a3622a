import { NotFoundError, printable } from '../errors.ts';
import type { Image, Layer } from './image.ts';

/** The wanted number of layers, base first, or the first hex digits of the last wanted layer's id. */
export type WantedLayers = number | string;

/**
 * Returns the image with only its first layers. Its config is still that of the whole image.
 *
 * @param wanted undefined: all
 * @param reference of the image, for messages
 * @throws NotFoundError if the image has fewer layers, or not exactly one with that id
 */
export function firstLayers(image: Image, wanted: WantedLayers | undefined, reference: string): Image {
  if (wanted === undefined) return image;
  const { layers } = image;
  const count = typeof wanted === 'number' ? wanted : countUpTo(layers, wanted, reference);
  if (count > layers.length) {
    throw noSuchLayer(`${printable(reference)} has ${counted(layers.length)}, not ${count}`, layers);
  }
  return count === layers.length ? image : { ...image, layers: layers.slice(0, count), allLayers: layers };
}

function countUpTo(layers: readonly Layer[], start: string, reference: string): number {
  const found = layers.flatMap(({ id }, index) => (id.startsWith(start) ? [index + 1] : []));
  if (found.length === 1) return found[0]!;
  const shown = printable(start);
  if (found.length === 0)
    throw noSuchLayer(`no layer of ${printable(reference)} has an id that begins with ${shown}`, layers);
  throw new NotFoundError(
    `${found.length} layers of ${printable(reference)} have ids that begin with ${shown}`,
    {
      code: 'NO_SUCH_LAYER',
      hint: `write one of ${found.map((count) => `--layers ${count}`).join(', ')}, or more digits`,
    },
  );
}

function noSuchLayer(message: string, { length }: readonly Layer[]): NotFoundError {
  return new NotFoundError(message, {
    code: 'NO_SUCH_LAYER',
    hint: `write --layers with a number from 0 to ${length}; dlrootfs inspect IMAGE lists the layers`,
  });
}

const counted = (count: number): string => (count === 1 ? '1 layer' : `${count} layers`);

/**
 * Returns how many of the layers end with `top`; undefined if it is none of them.
 *
 * @param top the JSON of a layer, as in `Layer.info`
 */
export function countWithTop(
  layers: readonly Pick<Layer, 'info'>[],
  top: Readonly<Record<string, unknown>>,
): number | undefined {
  const found = layers.findLastIndex(
    ({ info }) => info['id'] === top['id'] && info['parent'] === top['parent'],
  );
  return found === -1 ? undefined : found + 1;
}
