import { UsageError, printable } from '../errors.ts';

/** One character of a name, any of them but those of `set`, or (`*`) any number of them. */
type CharacterPattern =
  | '*'
  | { readonly set: readonly (readonly [first: string, last: string])[]; readonly negated: boolean };
/** A name of a path, or (`**`) any number of them. */
type NamePattern = '**' | readonly CharacterPattern[];

/**
 * A pattern of paths, as in gitignore(5), but without a leading `!`. `*`, `?` and `[a-z]` (`[!a-z]`) match in one name. A backslash quotes
 * the next character. `**` between slashes matches any number of names. A pattern without a slash before its end matches at every level,
 * any other from the root. One that ends in a slash matches directories only.
 */
export class Glob {
  readonly #levels: readonly NamePattern[];
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
      throw new UsageError(`"${printable(pattern)}" cannot take back what other patterns leave out`, {
        hint: 'leave it out; for a name that begins with !, write a backslash before it',
      });
    const levels = names.map((name) => (name === '**' ? name : parseName(name)));
    // It matches the content of a directory, not the directory itself.
    if (levels.at(-1) === '**') levels.splice(-1, 0, ['*']);
    this.#levels = text.includes('/') ? levels : ['**', ...levels];
    this.#directoriesOnly = text !== pattern;
  }

  /** @param path without slashes at its ends */
  matches(path: string, isDirectory: boolean): boolean {
    if (this.#directoriesOnly && !isDirectory) return false;
    return isSequence<NamePattern, '**', string>(this.#levels, path.split('/'), '**', (level, name) =>
      isSequence<CharacterPattern, '*', string>(level, Array.from(name), '*', isOf),
    );
  }
}

function parseName(name: string): CharacterPattern[] {
  const parts: CharacterPattern[] = [];
  // A set, a backslash with a character, or one character.
  for (const [text, negation, set] of name.matchAll(/\[([!^]?)(\]?[^\]]*)\]|\\[^]|[^]/gu)) {
    if (text === '*') {
      if (parts.at(-1) !== '*') parts.push('*');
    } else if (text === '?') parts.push({ set: [], negated: true });
    else if (set !== undefined) parts.push({ set: rangesOf(set), negated: negation !== '' });
    else {
      const character = text.length > 1 && text.startsWith('\\') ? text.slice(1) : text;
      parts.push({ set: [[character, character]], negated: false });
    }
  }
  return parts;
}

function rangesOf(set: string): [first: string, last: string][] {
  return Array.from(set.matchAll(/([^])-([^])|([^])/gu), ([, first, last, single]) =>
    single === undefined ? [first!, last!] : [single, single],
  );
}

function isOf(part: Exclude<CharacterPattern, '*'>, character: string): boolean {
  const point = character.codePointAt(0)!;
  const isIn = part.set.some(
    ([first, last]) => first.codePointAt(0)! <= point && point <= last.codePointAt(0)!,
  );
  return isIn !== part.negated;
}

/** Whether items match a pattern; `many` means any number of items. It takes at most pattern length times item count steps. */
function isSequence<P, Many extends P, I>(
  pattern: readonly P[],
  items: readonly I[],
  many: Many,
  matches: (part: Exclude<P, Many>, item: I) => boolean,
): boolean {
  let at = 0;
  let item = 0;
  /** After the last `many`, and the item after those that it covers. */
  let again: { readonly at: number; item: number } | undefined;
  while (item < items.length) {
    const part = pattern[at];
    if (part === many) {
      at += 1;
      again = { at, item };
    } else if (at < pattern.length && matches(part as Exclude<P, Many>, items[item]!)) {
      at += 1;
      item += 1;
    } else if (again) {
      again.item += 1;
      ({ at, item } = again);
    } else return false;
  }
  return pattern.slice(at).every((part) => part === many);
}
