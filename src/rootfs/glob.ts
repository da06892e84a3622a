import { UsageError, printable } from '../errors.ts';

/** Tests of the items of a sequence, in order; `any` matches any number of items. */
type Sequence = readonly ('any' | ((item: string) => boolean))[];

/**
 * A pattern of paths, as in gitignore(5), but without a leading `!`. `*`, `?` and `[a-z]` (`[!a-z]`) match in
 * one name. A backslash quotes the next character. `**` between slashes matches any number of names. A
 * pattern without a slash before its end matches at every level, any other from the root. One that ends in a
 * slash matches directories only.
 */
export class Glob {
  /** Tests of the names of a path. */
  readonly #levels: Sequence;
  readonly #directoriesOnly: boolean;

  /** @throws UsageError for a pattern that matches nothing */
  constructor(pattern: string) {
    const text = pattern.replace(/\/+$/, '');
    const names = text.split('/').filter((name) => name !== '' && name !== '.');
    if (names.length === 0 || names.includes('..'))
      throw new UsageError(`"${printable(pattern)}" is no pattern of paths`, {
        hint: 'write a name, as *.pyc, or a path, as usr/share/doc',
      });
    if (pattern.startsWith('!'))
      throw new UsageError(`"${printable(pattern)}" cannot include paths that other patterns exclude`, {
        hint: 'leave it out; for a name that begins with !, write a backslash before it',
      });
    // A final `**` matches the content of a directory, not the directory itself.
    if (names.at(-1) === '**') names.splice(-1, 0, '*');
    const levels = names.map((name) => (name === '**' ? 'any' : nameTest(name)));
    this.#levels = text.includes('/') ? levels : ['any', ...levels];
    this.#directoriesOnly = text !== pattern;
  }

  /** @param path without slashes at its ends */
  matches(path: string, isDirectory: boolean): boolean {
    if (this.#directoriesOnly && !isDirectory) return false;
    return isSequence(path.split('/'), this.#levels);
  }
}

function nameTest(pattern: string): (name: string) => boolean {
  // The parts are sets, characters after a backslash, and single characters.
  const parts = pattern.matchAll(/\[([!^]?)(\]?[^\]]*)\]|\\[^]|[^]/gu);
  const characters: Sequence = Array.from(parts, ([text, negation, set]) => {
    if (text === '*') return 'any';
    if (text === '?') return () => true;
    const ranges = rangesOf(set ?? (text.length > 1 && text.startsWith('\\') ? text.slice(1) : text));
    return (character) => isIn(ranges, character) !== (negation !== undefined && negation !== '');
  });
  return (name) => isSequence(Array.from(name), characters);
}

function rangesOf(set: string): [first: string, last: string][] {
  return Array.from(set.matchAll(/([^])-([^])|([^])/gu), ([, first, last, single]) =>
    single === undefined ? [first!, last!] : [single, single],
  );
}

function isIn(ranges: readonly (readonly [first: string, last: string])[], character: string): boolean {
  const point = character.codePointAt(0)!;
  return ranges.some(([first, last]) => first.codePointAt(0)! <= point && point <= last.codePointAt(0)!);
}

/** Returns true if the items match a pattern, after at most pattern length times item count steps. */
function isSequence(items: readonly string[], pattern: Sequence): boolean {
  let at = 0;
  let item = 0;
  /** Position after the last `any`, and the first item that it does not cover. */
  let again: { readonly at: number; item: number } | undefined;
  while (item < items.length) {
    const part = pattern[at];
    if (part === 'any') {
      at += 1;
      again = { at, item };
    } else if (part?.(items[item]!) === true) {
      at += 1;
      item += 1;
    } else if (again) {
      again.item += 1;
      ({ at, item } = again);
    } else return false;
  }
  return pattern.slice(at).every((part) => part === 'any');
}
