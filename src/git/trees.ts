/** The name of a git object: 40 hex digits, the SHA-1 of its type, size and content. */
export type ObjectID = string & { readonly objectID: unique symbol };

/** The number of bytes of an object's name. */
export const ID_BYTES = 20;

/** The mode of a file in a tree. Of the permissions git keeps one bit: the owner may execute the file. */
export type TreeMode = '100644' | '100755' | '120000';

/** The mode of a directory in a tree. */
export const DIRECTORY = '40000';

/**
 * True if git can hold a path. It refuses a component `.git` in upper or lower case (verify_path in its
 * read-cache.c), and a symlink `.gitmodules`, by which it could read configuration from anywhere. It cannot
 * check out a path longer than PATH_MAX. With core.protectHFS and core.protectNTFS off it accepts all others.
 */
export function isHoldable(path: string, type: 'file' | 'symlink'): boolean {
  if (path.length > MAX_GIT_PATH_BYTES) return false;
  if (!path.includes('.')) return true;
  return !/(?:^|\/)\.git(?:\/|$)/i.test(path) && !(type === 'symlink' && /(?:^|\/)\.gitmodules$/i.test(path));
}

/** The longest path that git can check out, in bytes: PATH_MAX is one more, for the NUL. */
export const MAX_GIT_PATH_BYTES = 4095;
