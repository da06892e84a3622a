import { constants } from 'node:os';
import type { IntegrityError } from '../errors.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { type ByteName, type Directory, type Filesystem, type Place, impossible } from './filesystem.ts';
import { openFilesFor } from '../sys/open-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { MAX_SYMLINKS } from '../sys/os-path.ts';

const { EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR } = constants.errno;

/** Longer paths are an attack on time and memory. The kernel takes up to 4095 bytes at once. */
const MAX_PATH_BYTES = 16_384;
/**
 * The most directories above an entry: as many as a path of PATH_MAX can name. Landlock checks each of them in
 * each call, so the time of a chain of directories grows with the square of its length.
 */
const MAX_LEVELS = 2047;
/**
 * Directories that stay open between two entries, if the limit of open files allows it. A pull with -g has
 * two such sets.
 */
const MAX_OPEN = 256;
const SHARE = 0.3;
/**
 * Directories with a path of up to KEPT_BYTES stay open while those below them are used. Below them, a
 * directory stays open if its path is the first past a multiple of KEPT_SPACING bytes. So a deep path needs
 * few descriptors, and every later path is near an open directory.
 */
const KEPT_BYTES = 256;
const KEPT_SPACING = 128;
/** The most components of one path, including those in targets of symlinks. */
const MAX_STEPS = 20_000;

/**
 * An open directory. `trim`, `drop` and `close` close it if it is `kept`; else the walk closes it on leaving.
 */
interface HeldDirectory extends Directory {
  kept: boolean;
  /** The number of directories from the root down to this one; the root has 0. */
  readonly level: number;
}

/** The calls of a file system that a walk makes. */
type Walkable = Pick<Filesystem, 'root' | 'openDirectory' | 'closeDirectory' | 'readLink'>;

/** Helps a walk where a directory of a path is missing, is something else, or is not accessible. */
export interface Pathfinder {
  /** Makes the missing directory. */
  make(parent: Directory, name: ByteName): void;
  /** Removes an entry that is not a directory; false if it must stay. */
  clear(parent: Directory, name: ByteName): boolean;
  /** Gives this process access to a directory that it owns; false if it cannot. */
  unlock(directory: Directory): boolean;
}

/**
 * Finds the directory of a path as the kernel would after chroot(2). Absolute symlinks and `..` stay inside
 * the root. Each directory is opened from its parent's descriptor, without following symlinks. So no path
 * leaves the root, even if other processes change the tree. Recently used directories stay open. Layers, `-g`
 * and ConfinedRoot (`--for`) use it.
 */
export class Directories {
  readonly #filesystem: Walkable;
  readonly #pathfinder: Pathfinder | undefined;
  readonly #open = new Map<string, HeldDirectory>();
  readonly #most = openFilesFor(SHARE, MAX_OPEN);
  readonly #root: HeldDirectory;

  /** @param pathfinder left out: nothing is made, removed or unlocked */
  constructor(filesystem: Walkable, pathfinder?: Pathfinder) {
    this.#filesystem = filesystem;
    this.#pathfinder = pathfinder;
    this.#root = { ...filesystem.root, kept: true, level: 0 };
  }

  /**
   * Returns the directory at a normalised path, following symlinks inside the root. It is valid until the
   * next `trim` or `drop`.
   *
   * @param create make missing directories, also the target of a dangling symlink (as containerd and umoci
   * do). Replace any other file, unless the path goes through a symlink (as umoci and overlayfs do)
   * @returns undefined if it is missing, or (without `create`) if something else has its name
   * @throws IntegrityError for a loop of symlinks or a path that is too long; with `create`, also for a file
   * used as a directory
   * @throws SyscallError
   */
  find(path: string, create: boolean): Directory | undefined {
    return this.#open.get(path) ?? this.#walk(path, create);
  }

  /**
   * Returns the directory at `path` without following symlinks; undefined if a component is no directory.
   *
   * @throws as `find`
   */
  findExact(path: string): Directory | undefined {
    return this.#open.get(path) ?? this.#walk(path, false, false);
  }

  /**
   * Returns the place of a path's last name in the directory that `find` or `findExact` returns. Undefined if
   * that directory does not exist.
   *
   * @throws as `find`
   */
  place(path: string, how: 'find' | 'findExact'): Place | undefined {
    const above = parentPath(path);
    const parent = how === 'find' ? this.find(above, false) : this.findExact(above);
    return parent && placeIn(parent, nameOf(path));
  }

  /**
   * Returns the directory and name that a process would reach by a path. All symlinks are followed, also at
   * the last name. The name is `.` for a path that can only be a directory. Valid until the next `trim` or
   * `drop`.
   *
   * @returns undefined where a directory is missing or is something else
   * @throws SyscallError (ELOOP) for a loop of symlinks at the last name; else as `find`
   */
  follow(path: BytePath): Place | undefined {
    let rest: string = path;
    for (let links = 0; links <= MAX_SYMLINKS; links += 1) {
      while (rest.endsWith('/')) rest = rest.slice(0, -1);
      const name = nameOf(rest);
      const isDirectory = name === '' || name === '.' || name === '..';
      const parent = this.find(isDirectory ? rest : parentPath(rest), false);
      if (!parent) return undefined;
      if (isDirectory) return itself(parent);
      const target = this.#filesystem.readLink(parent, name);
      if (typeof target === 'number') return placeIn(parent, name);
      rest = target.startsWith('/') ? target : `${parent.path}/${target}`;
    }
    throw new SyscallError(ELOOP, `follow the symlinks of ${displayPath(path)}`);
  }

  /** Closes the directories opened first, if many are open. Call it between two entries. */
  trim(): void {
    if (this.#open.size <= this.#most) return;
    for (const [path, directory] of this.#open) {
      this.#filesystem.closeDirectory(directory);
      this.#open.delete(path);
      if (this.#open.size <= this.#most / 2) break;
    }
  }

  /** Closes the directory at `path`, which is about to be removed or replaced, and all below it. */
  drop(path: string): void {
    const below = `${path}/`;
    for (const [key, directory] of this.#open) {
      if (key !== path && !key.startsWith(below)) continue;
      this.#filesystem.closeDirectory(directory);
      this.#open.delete(key);
    }
  }

  close(): void {
    for (const directory of this.#open.values()) this.#filesystem.closeDirectory(directory);
    this.#open.clear();
  }

  #walk(path: string, create: boolean, follow = true): HeldDirectory | undefined {
    if (path.length > MAX_PATH_BYTES) throw impossible(ENAMETOOLONG, `find ${displayPath(path)}`);
    let [current, rest] = this.#start(path);
    let links = 0;
    for (let steps = 0; rest !== '';) {
      const cut = rest.indexOf('/');
      const name = cut < 0 ? rest : rest.slice(0, cut);
      rest = cut < 0 ? '' : rest.slice(cut + 1);
      if (name === '' || name === '.') continue;
      steps += 1;
      if (steps > MAX_STEPS) throw tooManyLinks(path);
      if (name === '..') {
        [current, rest] = this.#climb(current, rest);
        continue;
      }
      const next = this.#step(current, name, create, links === 0);
      if (typeof next === 'string' && follow) {
        links += 1;
        if (links > MAX_SYMLINKS) throw tooManyLinks(path);
        rest = rest === '' ? next : `${next}/${rest}`;
        // The target of a relative symlink starts from the same directory.
        if (!next.startsWith('/')) continue;
      }
      this.#leave(current);
      if (next === undefined || (typeof next === 'string' && !follow)) return undefined;
      current = typeof next === 'string' ? this.#root : next;
    }
    return this.#keep(current);
  }

  /**
   * Returns the directory above, and `rest` without its leading `..` components. It does not open `..`, which
   * leads elsewhere if another process has moved the directory.
   */
  #climb(directory: HeldDirectory, rest: string): [HeldDirectory, string] {
    let above = parentPath(directory.path);
    let left = rest;
    for (; left === '..' || left.startsWith('../'); left = left.slice(3)) above = parentPath(above);
    this.#leave(directory);
    const [start, way] = this.#start(`${above}/`);
    return [start, way + left];
  }

  /** Returns the nearest open directory above `path`, and the rest of the path. */
  #start(path: string): [HeldDirectory, string] {
    const end = path.lastIndexOf('/');
    for (let cut = end; cut > 0; cut = path.lastIndexOf('/', cut - 1)) {
      if (cut !== end && !isSpaced(path, cut)) continue;
      const known = this.#open.get(path.slice(0, cut));
      if (known) return [known, path.slice(cut + 1)];
    }
    return [this.#root, path];
  }

  /**
   * Takes one component: returns the directory, or the target of a symlink. Undefined if it does not exist
   * and is not to be made.
   */
  #step(
    parent: HeldDirectory,
    name: ByteName,
    create: boolean,
    direct: boolean,
  ): HeldDirectory | BytePath | undefined {
    const path = childPath(parent.path, name);
    if (path.length > MAX_PATH_BYTES || parent.level >= MAX_LEVELS)
      throw impossible(ENAMETOOLONG, `find ${displayPath(path)}`);
    const spaced = isSpaced(path, path.length);
    const known = spaced ? this.#open.get(path) : undefined;
    if (known) return known;

    const open = (): number => this.#filesystem.openDirectory(parent, name);
    let handle = open();
    if (handle === -EACCES && this.#pathfinder?.unlock(parent)) handle = open();
    const isOther = handle === -ENOTDIR || handle === -ELOOP;
    const target = isOther ? this.#filesystem.readLink(parent, name) : undefined;
    if (typeof target === 'string') return target;
    if (isOther || handle === -ENOENT) {
      if (!create || !this.#pathfinder) return undefined;
      if (isOther && !(direct && this.#pathfinder.clear(parent, name)))
        throw impossible(ENOTDIR, `use ${displayPath(path)} as a directory`);
      this.#pathfinder.make(parent, name);
      handle = open();
    }
    if (handle < 0) throw new SyscallError(handle, `open the directory ${displayPath(path)}`);
    const directory = { path, handle, kept: false, level: parent.level + 1 };
    // `#walk` keeps the last directory of a path in any case.
    return spaced && this.#open.size < this.#most ? this.#keep(directory) : directory;
  }

  #leave(directory: HeldDirectory): void {
    if (!directory.kept) this.#filesystem.closeDirectory(directory);
  }

  #keep(directory: HeldDirectory): HeldDirectory {
    if (directory.kept) return directory;
    const known = this.#open.get(directory.path);
    if (known) {
      this.#filesystem.closeDirectory(directory);
      return known;
    }
    directory.kept = true;
    this.#open.set(directory.path, directory);
    return directory;
  }
}

/** Returns true if the directory at the first `length` bytes of `path` stays open: see `KEPT_SPACING`. */
function isSpaced(path: string, length: number): boolean {
  if (length <= KEPT_BYTES) return true;
  const above = path.lastIndexOf('/', length - 1);
  return Math.floor(length / KEPT_SPACING) > Math.floor(above / KEPT_SPACING);
}

function tooManyLinks(path: string): IntegrityError {
  return impossible(ELOOP, `follow the symlinks of ${displayPath(path)}`);
}

/** Returns the place of `name` in `parent`. */
export function placeIn(parent: Directory, name: ByteName): Place {
  return { parent, name, file: -1, path: childPath(parent.path, name) };
}

/** Returns the place of a directory itself. */
export function itself(directory: Directory): Place {
  return { parent: directory, name: '.', file: -1, path: directory.path };
}

/** Returns the path of `name` in the directory `path`. */
export function childPath(path: string, name: ByteName): BytePath {
  return (path === '' ? name : `${path}/${name}`) as BytePath;
}

/** Returns the path of the directory above; empty for the root. */
export function parentPath(path: string): BytePath {
  return path.slice(0, Math.max(0, path.lastIndexOf('/'))) as BytePath;
}

/** Returns the last component of `path`. */
export function nameOf(path: string): ByteName {
  return path.slice(path.lastIndexOf('/') + 1);
}
