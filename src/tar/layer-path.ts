import { IntegrityError } from '../errors.ts';
import type { BytePath } from './entry.ts';

/**
 * The meaning of an entry's path in a layer. All paths are normalised: no leading, trailing or double slash,
 * no dot segments; the root is empty.
 */
export type LayerPath =
  /** Puts the entry at the path. */
  | { readonly kind: 'entry'; readonly path: BytePath }
  /** `.wh.x`: hides `x` of lower layers in the same directory. */
  | { readonly kind: 'whiteout'; readonly path: BytePath }
  /** `.wh..wh.opq`: hides all entries of lower layers in this directory. */
  | { readonly kind: 'opaque'; readonly path: BytePath }
  /** `.wh..wh.*` and paths below: files of aufs, not part of the rootfs (but see `isPseudoLink`). */
  | { readonly kind: 'aufs'; readonly path: BytePath };

const slash = 0x2f;
const dot = 0x2e;
const whiteoutPrefix = '.wh.';
const aufsPrefix = '.wh..wh.';
const opaqueMarker = '.wh..wh..opq';
/**
 * Directory in which aufs kept files with several names; hard links of the same layer refer to them. They
 * stay here until the layer ends, as with docker: no other entry can have such a path.
 */
export const pseudoLinks = '.wh..wh.plnk';

/**
 * Normalises a path as the kernel would after chroot(2), before it follows links. The result is relative to
 * the root, without `.` and empty segments. `..` is resolved lexically and stops at the root, as containerd
 * and umoci clean `"/" + name`.
 */
export function normalize(path: BytePath): BytePath {
  if (isNormal(path)) return path;
  const segments: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.') continue;
    if (segment === '..') segments.pop();
    else segments.push(segment);
  }
  return segments.join('/') as BytePath;
}

/**
 * Returns the meaning of an entry's path by OCI's layer rules: `etc/.wh.foo` is `{kind: 'whiteout', path:
 * 'etc/foo'}`. The entry's type does not matter (containerd, umoci).
 *
 * Only the last name is a whiteout: a directory `.wh.foo` with files in it is an ordinary one (containerd,
 * docker, umoci).
 *
 * @throws IntegrityError, without the path, for a whiteout without a name, of `.` or `..`
 */
export function classify(entryPath: BytePath): LayerPath {
  const path = normalize(entryPath);
  if (!path.includes(whiteoutPrefix)) return { kind: 'entry', path };

  let start = 0;
  for (let end = path.indexOf('/'); end !== -1; start = end + 1, end = path.indexOf('/', start)) {
    if (path.startsWith(aufsPrefix, start)) return { kind: 'aufs', path };
  }
  const name = path.slice(start);
  const parent = path.slice(0, Math.max(0, start - 1)) as BytePath;
  if (name === opaqueMarker) return { kind: 'opaque', path: parent };
  if (name.startsWith(aufsPrefix)) return { kind: 'aufs', path };
  if (!name.startsWith(whiteoutPrefix)) return { kind: 'entry', path };

  const hidden = name.slice(whiteoutPrefix.length);
  if (hidden === '' || hidden === '.' || hidden === '..') {
    throw new IntegrityError('its whiteout names no file that could be removed', {
      code: 'BAD_WHITEOUT',
      hint: 'report the malformed layer to the publisher of the image',
    });
  }
  return { kind: 'whiteout', path: (path.slice(0, start) + hidden) as BytePath };
}

/**
 * Returns true if aufs kept a file with several names at this normalised path. Hard links of the same layer
 * may refer to it.
 */
export function isPseudoLink(path: BytePath): boolean {
  return path.startsWith(`${pseudoLinks}/`);
}

/** Returns true for a path without empty, `.` or `..` segments, as nearly all are. It allocates nothing. */
function isNormal(path: string): boolean {
  let segmentStart = 0;
  const { length } = path;
  for (let end = path.indexOf('/'); ; end = path.indexOf('/', segmentStart)) {
    const segmentEnd = end === -1 ? length : end;
    const segmentLength = segmentEnd - segmentStart;
    if (segmentLength === 0) return length === 0;
    if (segmentLength <= 2 && path.charCodeAt(segmentStart) === dot) {
      if (segmentLength === 1 || path.charCodeAt(segmentStart + 1) === dot) return false;
    }
    if (end === -1) return path.charCodeAt(0) !== slash;
    segmentStart = end + 1;
  }
}
