import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { DestinationError, printable } from './errors.ts';
import type { Layer } from './oci/image.ts';
import { parseJsonObject, textOf } from './oci/json.ts';
import type { JsonObject } from './oci/json.ts';
import { osPath } from './sys/os-path.ts';

/** The largest `json` that is read. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Members of registry v1's image JSON, of which a file with an id has at least one. */
const members = ['created', 'parent', 'container_config', 'config', 'os', 'architecture'];

/**
 * Checks a DIR with files against the image that is to be unpacked over them. A pull leaves the JSON of its top layer in DIR/json, the original's
 * does too: two images in one directory give a mixture that does not run.
 *
 * @param shown DIR in messages
 * @param layers of the image, base first
 * @returns `same`: DIR holds the image. `base`: it holds the image's first layers. undefined: it holds no image, as far as is known
 * @throws DestinationError for another image, unless `merge` is set
 */
export function compareHeldImage(
  directory: string,
  shown: string,
  layers: readonly Pick<Layer, 'info'>[],
  merge: boolean,
): 'same' | 'base' | undefined {
  const held = readHeldImage(directory);
  if (held === undefined) return undefined;
  const found = layers.findLastIndex(
    ({ info }) => info['id'] === held['id'] && textOf(info['parent']) === textOf(held['parent']),
  );
  if (found !== -1) return found === layers.length - 1 ? 'same' : 'base';
  if (merge) return undefined;
  const name = printable(shown);
  throw new DestinationError(`cannot unpack into ${name}: it holds another image, ${describe(held)}`, {
    code: 'OTHER_IMAGE',
    hint: `remove ${name}, choose another directory with -d, or add --merge to lay this image over the other one`,
  });
}

/** The image JSON in DIR, whose id is that of the top layer; undefined where there is none. */
function readHeldImage(directory: string): JsonObject | undefined {
  let file: number | undefined;
  try {
    // A rootfs is as untrusted as an image: no link is followed, and no FIFO waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    file = openSync(osPath(path.join(directory, 'json')), flags);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > MAX_BYTES) return undefined;
    const json = parseJsonObject(readFileSync(file), 'json');
    if (!/^[0-9a-f]{64}$/.test(textOf(json['id']) ?? '')) return undefined;
    return members.some((name) => json[name] !== undefined) ? json : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function describe(held: JsonObject): string {
  const created = textOf(held['created']);
  const [os, architecture] = [textOf(held['os']), textOf(held['architecture'])];
  return [
    `with the top layer ${textOf(held['id'])!.slice(0, 12)}`,
    ...(os === undefined || architecture === undefined
      ? []
      : [`for ${printable(`${os}/${architecture}`, 60)}`]),
    ...(created === undefined ? [] : [`of ${printable(created, 40)}`]),
  ].join(' ');
}
