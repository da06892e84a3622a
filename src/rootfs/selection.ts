import { NotFoundError, printable, UsageError } from '../errors.ts';
import { pathBytes, pathText, shellWord } from '../sys/os-path.ts';
import { type BytePath, displayPath, type InodeType } from '../tar/entry.ts';
import { parentPath } from './directories.ts';
import { Glob } from './glob.ts';

/** The wanted part of an image. */
export interface PartOptions {
  /** Files and directories, with all that is in them, from the root of the image; empty: everything. */
  readonly paths: readonly string[];
  /** Patterns (`Glob`) of paths that are left out, with all below them. */
  readonly excludes: readonly string[];
}

/** The file of an image that a path leads to. */
export interface ResolvedPath {
  /** Path without symlinks; the last name may be one. */
  readonly path: BytePath;
  readonly inode: number;
  readonly type: InodeType;
  /** Size of a file in bytes. */
  readonly size: number;
  /** Paths of the symlinks that were followed, themselves without symlinks. */
  readonly links: readonly BytePath[];
}

/**
 * The wanted paths of an image: each of `paths` with all below it, the symlinks on the way to it, and the
 * directories above. A path that matches a pattern is not wanted, nor is anything below it.
 */
export class Selection {
  readonly #excludes: readonly Glob[];
  readonly #wanted = new Set<BytePath>();
  /** Directories above the wanted paths, and symlinks on the way to them. */
  readonly #ways = new Set<BytePath>();

  private constructor({ paths, excludes }: PartOptions) {
    this.#excludes = excludes.map((pattern) => new Glob(pattern));
    if (paths.length === 0) this.#wanted.add('' as BytePath);
  }

  /** @throws UsageError for paths and patterns that no file can match */
  static check(options: PartOptions): void {
    void new Selection(options);
    const wrong = options.paths.find((path) => path === '' || path.includes('\0'));
    if (wrong !== undefined)
      throw new UsageError(`"${printable(wrong)}" is no path`, { hint: 'write a path, as etc/passwd' });
  }

  /**
   * Looks up the paths.
   *
   * @param find resolves a path
   * @param onAbsent receives each path that does not exist
   * @throws UsageError for a path that a pattern leaves out
   */
  static of(
    options: PartOptions,
    find: (path: BytePath) => ResolvedPath | undefined,
    onAbsent: (path: string) => void,
  ): Selection {
    const selection = new Selection(options);
    for (const text of options.paths) {
      const path = pathBytes(text).toString('latin1') as BytePath;
      const place = find(path);
      if (place) selection.#add(text, place);
      else {
        onAbsent(text);
        selection.#addWay(path, find);
      }
    }
    return selection;
  }

  /**
   * Returns `whole` for a path that is wanted with all below it. Returns `way` for a directory or symlink on
   * the way to a wanted path; undefined for any other.
   *
   * @param above the result for the directory that contains it
   */
  of(path: BytePath, isDirectory: boolean, above: 'whole' | 'way'): 'whole' | 'way' | undefined {
    if (this.#isExcluded(path, isDirectory)) return undefined;
    if (above === 'whole' || this.#wanted.has(path)) return 'whole';
    return this.#ways.has(path) ? 'way' : undefined;
  }

  /** Returns the result for the root. */
  get root(): 'whole' | 'way' {
    return this.#wanted.has('' as BytePath) ? 'whole' : 'way';
  }

  #add(text: string, { path, type, links }: ResolvedPath): void {
    this.#wanted.add(path);
    for (const link of links) this.#ways.add(link);
    for (const each of [path, ...links]) {
      const isDirectory = each === path && type === 'directory';
      if (this.#isExcluded(each, isDirectory)) throw contradiction(text, each);
      for (let above = parentPath(each); above !== ''; above = parentPath(above)) {
        if (this.#isExcluded(above, true)) throw contradiction(text, above);
        this.#ways.add(above);
      }
    }
  }

  /** Adds the existing directories above a path that does not exist. */
  #addWay(path: BytePath, find: (path: BytePath) => ResolvedPath | undefined): void {
    for (let above = parentPath(path); above !== ''; above = parentPath(above)) {
      const place = find(above);
      for (const each of place ? [place.path, ...place.links] : [])
        for (let way = each; way !== ''; way = parentPath(way)) this.#ways.add(way);
    }
  }

  #isExcluded(path: BytePath, isDirectory: boolean): boolean {
    if (this.#excludes.length === 0 || path === '') return false;
    const text = pathText(Buffer.from(path, 'latin1'));
    return this.#excludes.some((glob) => glob.matches(text, isDirectory));
  }
}

/**
 * Returns the error for a path that an image does not have.
 *
 * @param find resolves a path
 */
export function noSuchPath(
  path: string,
  name: string,
  find: (path: BytePath) => ResolvedPath | undefined,
): NotFoundError {
  let above = parentPath(pathBytes(path).toString('latin1'));
  while (above !== '' && find(above)?.type !== 'directory') above = parentPath(above);
  const place = above === '' ? '' : ` ${shellWord(shown(pathText(Buffer.from(above, 'latin1'))))}`;
  return new NotFoundError(`${printable(name)} has no ${shown(path)}`, {
    code: 'PATH_NOT_FOUND',
    hint: `list what it has: dlrootfs ls ${printable(name)}${place}`,
  });
}

function contradiction(path: string, left: BytePath): UsageError {
  const what = `/${displayPath(left)}`;
  return new UsageError(`cannot select ${shown(path)}: a pattern of --exclude excludes ${what}`, {
    hint: 'leave out that --exclude, or the path',
  });
}

function shown(path: string): string {
  return printable(path.startsWith('/') ? path : `/${path}`);
}
