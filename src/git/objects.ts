/** Name of a git object: 40 hex digits, SHA-1 of its type, size and content. */
export type ObjectID = string & { readonly objectID: unique symbol };

/** The same as bytes: so many. */
export const ID_SIZE = 20;

/** What git calls the kind of a file in a tree. */
export type TreeMode = '100644' | '100755' | '120000';

/** A file of a commit. */
export interface TreeFile {
  readonly path: string;
  readonly mode: TreeMode;
  readonly id: ObjectID;
}

/** What a tree holds under a name of one component, one character a byte. */
export interface TreeEntry {
  readonly name: string;
  readonly mode: TreeMode | '40000';
  readonly id: ObjectID;
}

export interface Commit {
  readonly tree: ObjectID;
  readonly parents: readonly ObjectID[];
  /** Seconds since 1970. */
  readonly time: number;
  readonly message: string;
}

const author = 'dlrootfs <mail@mail.com>';

/** A tree object (gitformat-pack(5) has no word on it; base_name_compare in git's read-cache.c says how it is sorted). */
export function composeTree(entries: readonly TreeEntry[]): Buffer {
  const sorted = areSorted(entries)
    ? entries
    : entries.toSorted((one, other) => (sortedBy(one) < sortedBy(other) ? -1 : 1));
  const size = entries.reduce((sum, { mode, name }) => sum + mode.length + 1 + name.length + 1 + ID_SIZE, 0);
  const tree = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { mode, name, id } of sorted) {
    at += tree.write(`${mode} ${name}\0`, at, 'latin1');
    at += tree.write(id, at, 'hex');
  }
  return tree;
}

function areSorted(entries: readonly TreeEntry[]): boolean {
  let before = '';
  return entries.every((entry) => {
    const name = sortedBy(entry);
    const isNext = before < name;
    before = name;
    return isNext;
  });
}

function sortedBy({ mode, name }: TreeEntry): string {
  return mode === '40000' ? `${name}/` : name;
}

/** A commit object, by us. */
export function composeCommit({ tree, parents, time, message }: Commit): Buffer {
  const head = [`tree ${tree}`, ...parents.map((parent) => `parent ${parent}`)];
  const people = ['author', 'committer'].map((role) => `${role} ${author} ${time} +0000`);
  return Buffer.from(`${[...head, ...people].join('\n')}\n\n${message}`, 'latin1');
}
