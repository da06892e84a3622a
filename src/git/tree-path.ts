/**
 * Whether git can hold a path at all. It refuses a component `.git` in any case (verify_path in its read-cache.c), and a symlink
 * `.gitmodules`, which could make it read configuration from anywhere. What is longer than PATH_MAX it could not check out. All else it
 * takes with core.protectHFS and core.protectNTFS off.
 */
export function isHoldable(path: string, type: 'file' | 'symlink'): boolean {
  if (path.length > LONGEST_FOR_GIT) return false;
  if (!path.includes('.')) return true;
  return !/(?:^|\/)\.git(?:\/|$)/i.test(path) && !(type === 'symlink' && /(?:^|\/)\.gitmodules$/i.test(path));
}

/** In bytes: what the kernel takes of a path in one piece, its NUL counted (PATH_MAX). */
export const LONGEST_FOR_GIT = 4095;
/** In bytes: as far as a rootfs goes. */
const LONGEST_PATH = 16_384;

/** Whether a path from the root leads nowhere but down, and not into the repository. */
export function isSoundPath(path: string, root: boolean): boolean {
  if (path === '') return root;
  return path.length <= LONGEST_PATH && !/(?:^|\/)\.{0,2}(?:\/|$)|\0|^\.git(?:\/|$)/i.test(path);
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
