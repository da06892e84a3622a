import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { printable } from '../errors.ts';
import { shortID } from '../oci/digest.ts';
import { type JsonObject, parseJsonObject, textOf } from '../oci/json.ts';
import { osPath } from '../sys/os-path.ts';

/** The member of `json` that names the part of the image in DIR; absent for a whole image. */
export const PART = 'dlrootfs.part';

/** The largest `json` that is read, in bytes. */
const MAX_LAYER_INFO_BYTES = 4 * 1024 * 1024;

/**
 * Members of registry v1's image JSON. A file `json` that a pull wrote has an id and at least one of them.
 */
const members = ['created', 'parent', 'container_config', 'config', 'os', 'architecture'];

/**
 * Returns the image JSON in DIR, whose `id` is that of the top layer; undefined without one that a pull
 * wrote.
 */
export function readExistingImage(directory: string): JsonObject | undefined {
  let file: number | undefined;
  try {
    // A rootfs is as untrusted as an image: do not follow a symlink or wait for a FIFO.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    file = openSync(osPath(join(directory, 'json')), flags);
    const stat = fstatSync(file);
    if (!stat.isFile() || stat.size > MAX_LAYER_INFO_BYTES) return undefined;
    const json = parseJsonObject(readFileSync(file), 'json');
    if (!/^[0-9a-f]{64}$/.test(textOf(json['id']) ?? '')) return undefined;
    return members.some((name) => json[name] !== undefined) ? json : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

export function describeExistingImage(existing: JsonObject): string {
  const created = textOf(existing['created']);
  const [os, architecture] = [textOf(existing['os']), textOf(existing['architecture'])];
  return [
    `with the top layer ${shortID(textOf(existing['id'])!)}`,
    ...(os === undefined || architecture === undefined
      ? []
      : [`for ${printable(`${os}/${architecture}`, 60)}`]),
    ...(created === undefined ? [] : [`of ${printable(created, 40)}`]),
  ].join(' ');
}
