import { parentPath } from '../rootfs/directories.ts';
import type { BytePath } from '../tar/entry.ts';
import {
  type Change,
  type Comparable,
  compareEntries,
  type Difference,
  type Rules,
  shownPath,
  fileTypeOf,
} from './differences.ts';

/**
 * Yields each directory right before its content, names sorted by their bytes. `next(false)` after a
 * directory skips its content.
 */
export type TreeWalk<T> = Generator<T, void, boolean | undefined>;

/** The settings of a comparison. */
export interface ComparisonOptions<First, Second, Kind extends string> {
  /** The kinds of differences for a path that only the first tree has, and that only the second has. */
  readonly kinds: readonly [onlyFirst: Kind, onlySecond: Kind];
  readonly rules: Rules;
  /** Returns true if a path of the first tree may be missing. Default: none may. */
  readonly mayLack?: (entry: First) => boolean;
  /**
   * Excludes a path of the second tree: `known`, written by the pull; `added`, written later, so the
   * directory's mtime changed too. Default: none.
   *
   * @param expected undefined if only the second tree has the path
   */
  readonly exempt?: (found: Second, expected: First | undefined) => 'known' | 'added' | undefined;
  /** Returns true if the content of a directory cannot be compared. */
  readonly isClosed?: (entry: Second) => boolean;
  /** Called with each pair of files whose contents are to be compared. */
  readonly onFiles?: (expected: First, found: Second) => void;
}

/** Changes of a file that imply a new mtime of its directory: it was made, removed, renamed or replaced. */
const renaming: ReadonlySet<Change['what']> = new Set([
  'type',
  'size',
  'content',
  'mtime',
  'target',
  'device',
  'link',
]);

/** Compares two trees path by path. */
export class TreeComparison<First extends Comparable, Second extends Comparable, Kind extends string> {
  readonly #options: ComparisonOptions<First, Second, Kind>;
  readonly #differences = new Map<BytePath, Difference<Kind> & { readonly changes: Change[] }>();
  /** Directories whose mtime another difference explains. */
  readonly #explained = new Set<BytePath>();
  /** The path of the first name of each inode with several names, per tree. */
  readonly #firstNames: readonly [Map<unknown, BytePath>, Map<unknown, BytePath>] = [new Map(), new Map()];

  constructor(options: ComparisonOptions<First, Second, Kind>) {
    this.#options = options;
  }

  /** @param pause called often; may throw */
  async compare(first: TreeWalk<First>, second: TreeWalk<Second>, pause: () => Promise<void>): Promise<void> {
    let [one, other] = [first.next(), second.next()];
    while (one.done !== true || other.done !== true) {
      await pause();
      const order =
        one.done === true ? 1 : other.done === true ? -1 : byPath(one.value.path, other.value.path);
      if (order < 0) {
        this.#onlyFirst(one.value!);
        one = first.next(false);
      } else if (order > 0) {
        this.#onlySecond(other.value!);
        other = second.next(false);
      } else {
        const descend = this.#both(one.value!, other.value!);
        one = first.next(descend);
        other = second.next(descend);
      }
    }
  }

  /** Records that the contents of a file differ. */
  noteContent(path: BytePath): void {
    this.#difference('changed', { path, type: 'file' }).changes.push({ what: 'content' });
  }

  /**
   * Returns all differences, in the order of the trees. The mtime of a directory is omitted if another
   * difference explains it.
   */
  differences(): Difference<Kind>[] {
    const differences: Difference<Kind>[] = [];
    const inOrder = [...this.#differences].toSorted(([one], [other]) => byPath(one, other));
    for (const [path, difference] of inOrder.toReversed()) {
      const { kind, type } = difference;
      const isExplained = type === 'directory' && kind === 'changed' && this.#explained.has(path);
      const changes = isExplained
        ? difference.changes.filter(({ what }) => what !== 'mtime')
        : difference.changes;
      if (kind === 'changed' && changes.length === 0) continue;
      const isDirectory = type === 'directory' && kind === 'changed' && changes[0]?.what !== 'type';
      if (kind !== 'changed' || (!isDirectory && changes.some(({ what }) => renaming.has(what))))
        this.#explained.add(parentPath(path));
      differences.push({ ...difference, changes });
    }
    return differences.toReversed();
  }

  #onlyFirst(entry: First): void {
    if (this.#options.mayLack?.(entry) !== true) this.#difference(this.#options.kinds[0], entry);
  }

  #onlySecond(entry: Second): void {
    if (!this.#isExempt(entry, undefined)) this.#difference(this.#options.kinds[1], entry);
  }

  #isExempt(found: Second, expected: First | undefined): boolean {
    const reason = this.#options.exempt?.(found, expected);
    if (reason === 'added') this.#explained.add(parentPath(found.path));
    return reason !== undefined;
  }

  /** Compares a path of both trees; returns true if its content must be compared next. */
  #both(expected: First, found: Second): boolean {
    const { rules, isClosed, onFiles } = this.#options;
    if (this.#isExempt(found, expected)) return false;
    const changes = compareEntries(expected, found, rules);
    const isSameType = expected.type === found.type;
    const isDirectory = expected.type === 'directory';
    if (isSameType && !isDirectory) changes.push(...this.#compareLinks(expected, found));
    if (changes.length > 0) this.#difference('changed', expected).changes.push(...changes);
    if (isSameType && expected.type === 'file' && expected.size === found.size && expected.size > 0)
      onFiles?.(expected, found);
    return isSameType && isDirectory && isClosed?.(found) !== true;
  }

  #compareLinks(expected: First, found: Second): Change[] {
    const [wanted, there] = [expected, found].map((entry, index) => {
      if (entry.links < 2) return undefined;
      const names = this.#firstNames[index]!;
      const first = names.get(entry.inode);
      if (first === undefined) names.set(entry.inode, entry.path);
      return first;
    });
    if (wanted === there) return [];
    return [
      {
        what: 'link',
        ...(wanted !== undefined && { expected: shownPath(wanted) }),
        ...(there !== undefined && { found: shownPath(there) }),
      },
    ];
  }

  #difference(
    kind: Kind | 'changed',
    entry: Pick<Comparable, 'path' | 'type'>,
  ): { readonly changes: Change[] } {
    const known = this.#differences.get(entry.path);
    if (known) return known;
    const difference = { path: shownPath(entry.path), kind, type: fileTypeOf(entry), changes: [] };
    this.#differences.set(entry.path, difference);
    return difference;
  }
}

/** Compares paths in the order of a walk: component by component. */
function byPath(a: BytePath, b: BytePath): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at += 1;
  if (at === length) return a.length - b.length;
  const slash = 0x2f;
  const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)];
  return x === slash ? -1 : y === slash ? 1 : x - y;
}
