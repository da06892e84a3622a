/**
 * Whether git can hold a path at all. It refuses a component `.git` in any case (verify_path in its read-cache.c), and a symlink
 * `.gitmodules`, which could make it read configuration from anywhere. All else it takes with core.protectHFS and core.protectNTFS off.
 */
export function isHoldable(path: string, type: 'file' | 'symlink'): boolean {
  if (!path.includes('.')) return true;
  return !/(?:^|\/)\.git(?:\/|$)/i.test(path) && !(type === 'symlink' && /(?:^|\/)\.gitmodules$/i.test(path));
}

const escapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** A path as git prints it with core.quotePath, one character a byte again. */
export function unquotePath(text: string): string {
  if (!text.startsWith('"')) return text;
  return text
    .slice(1, -1)
    .replaceAll(/\\(?:([0-7]{3})|(.))/g, (_, octal: string | undefined, letter: string) =>
      octal === undefined ? (escapes[letter] ?? letter) : String.fromCharCode(Number.parseInt(octal, 8)),
    );
}
