import { NotFoundError, printable, UsageError } from '../errors.ts';
import { pathBytes, pathText } from '../sys/os-path.ts';
import { type BytePath, displayPath, type InodeType } from '../tar/entry.ts';
import { parentPath } from './directories.ts';
import { Glob } from './glob.ts';

/** The part of an image that is wanted. */
export interface PartOptions {
  /** Files and directories with all that is in them, from the root of the image; none: everything. */
  readonly paths: readonly string[];
  /** Patterns (`Glob`) of what is left out, with all that is in it. */
  readonly excludes: readonly string[];
}

/** Where a path of an image leads to. */
export interface ResolvedPath {
  /** Without symlinks, but perhaps one itself. */
  readonly path: BytePath;
  readonly inode: number;
  readonly type: InodeType;
  /** Of a file, in bytes. */
  readonly size: number;
  /** The symlinks on the way, themselves without symlinks. */
  readonly links: readonly BytePath[];
}

/**
 * The wanted paths of an image: each of `paths` with all below it, the symlinks on the way to it, and the directories above. A path that
 * matches a pattern is not wanted, nor is anything below it.
 */
export class Selection {
  readonly #excludes: readonly Glob[];
  readonly #wanted = new Set<BytePath>();
  /** Directories above, and symlinks on the way. */
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
   * @param find looks up a path
   * @param onAbsent gets each path that does not exist
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
   * Whether a path is wanted: with all below it, or itself alone, as a directory on the way to what is wanted.
   *
   * @param above what was answered for the directory that it is in
   */
  of(path: BytePath, isDirectory: boolean, above: 'whole' | 'way'): 'whole' | 'way' | undefined {
    if (this.#isExcluded(path, isDirectory)) return undefined;
    if (above === 'whole' || this.#wanted.has(path)) return 'whole';
    return this.#ways.has(path) ? 'way' : undefined;
  }

  /** The answer for the root. */
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

  /** The existing directories above a path that does not exist. */
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

/** The error for a path that an image does not have. */
export function noSuchPath(path: string, name: string): NotFoundError {
  return new NotFoundError(`${printable(name)} has no ${shown(path)}`, {
    code: 'PATH_NOT_FOUND',
    hint: `list what it has: dlrootfs ls ${printable(name)}`,
  });
}

function contradiction(path: string, left: BytePath): UsageError {
  const what = `/${displayPath(left)}`;
  return new UsageError(`cannot take ${shown(path)}: a pattern of --exclude leaves out ${what}`, {
    hint: 'leave out that --exclude, or the path',
  });
}

function shown(path: string): string {
  return printable(path.startsWith('/') ? path : `/${path}`);
}
