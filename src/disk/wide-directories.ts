import { crc32 } from 'node:zlib';
import { nameOf, parentPath } from '../rootfs/directories.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { BytePath } from '../tar/entry.ts';
import { debugfsLine, debugfsQuoted } from './ext4.ts';
import type { GuestFile } from './format.ts';

/**
 * A directory with more names is split. mke2fs searches it from the start for every name: 2,000 names take
 * half a second, 43,000 two minutes.
 */
const MAX_NAMES = 2000;
const SLOW_NAMES = 10_000;
const PART_NAMES = 250;
/** The number of parts that stay in the directory: e2fsck indexes only directories of several blocks. */
const PARTS_THAT_STAY = 4;
const PARTS_OF_GROUP = 256;
const MAX_PATH_BYTES = 3000;

/** A directory with many names. Its parts are numbered from `first` on. */
interface WideDirectory {
  readonly parts: number;
  readonly first: number;
}

/**
 * Splits directories with so many names that mke2fs would take minutes. mke2fs gets these names in many small
 * directories; e2fsck then gives the wide ones an index, and debugfs links the names into them.
 */
export class WideDirectories {
  /** The directory of all parts. */
  readonly #root: BytePath;
  readonly #directories = new Map<string, WideDirectory>();
  #parts = 0;

  private constructor(root: BytePath) {
    this.#root = root;
  }

  /**
   * Returns undefined if no directory is so wide.
   *
   * @param onSlow gets a directory with too many names that cannot be moved, and their number
   */
  static of(
    tree: ImageTree,
    guestFiles: readonly GuestFile[],
    onSlow: (path: BytePath, names: number) => void,
  ): WideDirectories | undefined {
    const counts = new Map<BytePath, number>();
    const staying = new Map<BytePath, number>();
    for (const { path, type } of tree) {
      const above = parentPath(path);
      const kind = isMovable(path, type) ? counts : staying;
      kind.set(above, (kind.get(above) ?? 0) + 1);
    }
    for (const [path, names] of staying) if (names > SLOW_NAMES) onSlow(path, names);
    let root = '.dlrootfs-parts';
    while (tree.find(root as BytePath, false) || guestFiles.some(({ path }) => path === root)) root += '-';
    const wide = new WideDirectories(root as BytePath);
    for (const [path, count] of counts) {
      if (count <= MAX_NAMES || path.length > MAX_PATH_BYTES || debugfsQuoted(path) === undefined) continue;
      const parts = Math.ceil(count / PART_NAMES);
      wide.#directories.set(path, { parts, first: wide.#parts });
      wide.#parts += parts;
    }
    return wide.#parts > 0 ? wide : undefined;
  }

  /** Returns the path of an entry for mke2fs. */
  placeOf(path: BytePath, type: ImageTreeEntry['type']): BytePath {
    const directory = this.#directories.get(parentPath(path));
    if (directory === undefined || !isMovable(path, type)) return path;
    const name = nameOf(path);
    const part = crc32(Buffer.from(name, 'latin1')) % directory.parts;
    return part < PARTS_THAT_STAY ? path : (`${this.#part(directory.first + part)}/${name}` as BytePath);
  }

  /** Yields the directories of the parts, each before its content. */
  *directories(): Generator<BytePath, void, void> {
    yield this.#root;
    for (let part = 0; part < this.#parts; part += 1) {
      if (part % PARTS_OF_GROUP === 0) yield this.#group(part);
      yield this.#part(part);
    }
  }

  /**
   * Yields commands of debugfs(8), one per line, that move the names to their places and remove the parts.
   */
  *commands(tree: ImageTree): Generator<string, void, void> {
    for (const { path, type } of tree) {
      const place = this.placeOf(path, type);
      // Given the directory, debugfs does not search for the name in it.
      if (place !== path)
        yield debugfsLine('link', debugfsQuoted(`/${place}`), debugfsQuoted(`/${parentPath(path)}`))!;
    }
    for (let part = 0; part < this.#parts; part += 1) {
      const path = debugfsQuoted(`/${this.#part(part)}`);
      // Its names were moved: only the directory itself is removed.
      for (const command of ['kill_file', 'clri', 'unlink']) yield debugfsLine(command, path)!;
    }
    for (let part = 0; part < this.#parts; part += PARTS_OF_GROUP)
      yield debugfsLine('rmdir', debugfsQuoted(`/${this.#group(part)}`))!;
    yield debugfsLine('rmdir', debugfsQuoted(`/${this.#root}`))!;
  }

  #group(part: number): BytePath {
    return `${this.#root}/${Math.floor(part / PARTS_OF_GROUP)}` as BytePath;
  }

  #part(part: number): BytePath {
    return `${this.#group(part)}/${part % PARTS_OF_GROUP}` as BytePath;
  }
}

/**
 * True if a name can be moved: moving a directory would change more than names, and debugfs cannot take some
 * names.
 */
function isMovable(path: BytePath, type: ImageTreeEntry['type']): boolean {
  return type !== 'directory' && debugfsQuoted(nameOf(path)) !== undefined;
}
