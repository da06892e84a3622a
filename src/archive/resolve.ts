import { IntegrityError } from '../errors.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import type { Node } from './node.ts';

/** As many as the kernel follows: path_resolution(7). */
const mostLinks = 40;
/** The rootfs on disk has the same limit; a longer path is an attack on time and memory. */
const longestPath = 16_384;

/**
 * The directory at `path` as the kernel would find it after chroot: symlinks are followed, the last one too, and neither they nor
 * `..` lead out of the root.
 *
 * @param make called for a directory that is missing, also where a dangling symlink points, or that a file is in the place of, unless
 * the way there goes through a symlink; left out: the answer is undefined
 * @returns undefined also where something else is in the way, unless missing directories are to be made
 * @throws IntegrityError for a loop, a path without end, and with `make` for a file in the way behind a symlink
 */
export function findDirectory(
  root: Node,
  path: string,
  make?: (parent: Node, name: string) => Node,
): Node | undefined {
  let current = root;
  let rest = path;
  let links = 0;
  while (rest !== '') {
    if (rest.length > longestPath) throw unusable(path, 'the path is too long');
    const cut = rest.indexOf('/');
    const name = cut === -1 ? rest : rest.slice(0, cut);
    rest = cut === -1 ? '' : rest.slice(cut + 1);
    if (name === '' || name === '.') continue;
    if (name === '..') {
      current = current.parent ?? root;
      continue;
    }
    const next: Node | undefined = current.children!.get(name) ?? make?.(current, name);
    if (next === undefined) return undefined;
    if (next.children !== undefined) {
      current = next;
      continue;
    }
    const { type, linkPath } = next.inode.entry;
    if (type !== 'symlink') {
      if (make === undefined) return undefined;
      if (links > 0) throw unusable(path, 'a file is in the way');
      current = make(current, name);
      continue;
    }
    links += 1;
    if (links > mostLinks) throw unusable(path, 'too many symlinks, or a loop of them');
    if (linkPath.startsWith('/')) current = root;
    rest = rest === '' ? linkPath : `${linkPath}/${rest}`;
  }
  return current;
}

function unusable(path: string, why: string): IntegrityError {
  return new IntegrityError(`cannot use ${displayPath(path as BytePath)} as a directory: ${why}`, {
    code: 'NO_DIRECTORY',
    hint: 'the layer is malformed or hostile',
  });
}
