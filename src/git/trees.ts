import type { Inode } from './inodes.ts';

/** Name of a git object: 40 hex digits, SHA-1 of its type, size and content. */
export type ObjectID = string & { readonly objectID: unique symbol };

/** The same as bytes: so many. */
export const ID_SIZE = 20;

/** What git calls the kind of a file in a tree. */
export type TreeMode = '100644' | '100755' | '120000';

/** The mode of a directory in a tree. */
export const DIRECTORY = '40000';

/** A file of a commit. */
export interface TreeFile {
  readonly path: string;
  readonly mode: TreeMode;
  readonly id: ObjectID;
}

/** What a tree holds under a name of one component, one character a byte. */
export interface TreeEntry {
  readonly name: string;
  readonly mode: TreeMode | typeof DIRECTORY;
  readonly id: ObjectID;
}

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
/** In bytes: the longest path of a rootfs. */
const LONGEST_PATH = 16_384;

/** Whether a path stays below the root, and outside of the repository. */
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

/** Decodes a path that git has printed with core.quotePath: one character for each byte. */
export function unquotePath(text: string): string {
  if (!text.startsWith('"')) return text;
  return text
    .slice(1, -1)
    .replaceAll(/\\(?:([0-7]{3})|(.))/g, (_, octal: string | undefined, letter: string) =>
      octal === undefined ? (escapes[letter] ?? letter) : String.fromCharCode(Number.parseInt(octal, 8)),
    );
}

/** The mode of an inode at a path in git; undefined where git cannot hold it, or its content is not stored. */
export function treeMode(path: string, inode: Inode): TreeMode | undefined {
  const { type } = inode;
  if ((type !== 'file' && type !== 'symlink') || !inode.hasId || !isHoldable(path, type)) return undefined;
  if (type === 'symlink') return '120000';
  // git keeps one bit: whether the owner may execute the file.
  return (inode.mode & 0o100) === 0 ? '100644' : '100755';
}

/** How git shows an inode at a path; undefined as `treeMode`. */
export function treeFile(path: string, inode: Inode): TreeFile | undefined {
  const mode = treeMode(path, inode);
  return mode && { path, mode, id: inode.id! };
}
