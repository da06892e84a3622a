/** Name of a git object: 40 hex digits, SHA-1 of its type, size and content. */
export type ObjectID = string & { readonly objectID: unique symbol };

/** The same as bytes: so many. */
export const ID_SIZE = 20;

/** What git calls the kind of a file in a tree. It keeps one bit of the mode: whether the owner may execute the file. */
export type TreeMode = '100644' | '100755' | '120000';

/** The mode of a directory in a tree. */
export const DIRECTORY = '40000';

/**
 * Whether git can hold a path at all. It refuses a component `.git` in upper or lower case (verify_path in its read-cache.c), and
 * a symlink `.gitmodules`, which could make it read configuration from anywhere. It cannot check out a path longer than PATH_MAX. With
 * core.protectHFS and core.protectNTFS off it takes all others.
 */
export function isHoldable(path: string, type: 'file' | 'symlink'): boolean {
  if (path.length > LONGEST_FOR_GIT) return false;
  if (!path.includes('.')) return true;
  return !/(?:^|\/)\.git(?:\/|$)/i.test(path) && !(type === 'symlink' && /(?:^|\/)\.gitmodules$/i.test(path));
}

/** In bytes, with the NUL: the longest path that a system call takes (PATH_MAX). */
export const LONGEST_FOR_GIT = 4095;
