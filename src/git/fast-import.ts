import type { ObjectID } from './object-id.ts';
import { quotePath } from './tree-path.ts';

/** What git calls the kind of a file in a tree. */
export type TreeMode = '100644' | '100755' | '120000';

/** A file of a tree. */
export interface TreeFile {
  readonly path: string;
  readonly mode: TreeMode;
  readonly id: ObjectID;
}

export interface Commit {
  /** Full name of the ref that is to point at it. */
  readonly ref: string;
  readonly message: string;
  /** Seconds since 1970. */
  readonly time: number;
  /** Refs or marks; the first is the one whose tree this one changes, unless `fresh`. */
  readonly parents: readonly string[];
  /** Begin with an empty tree. */
  readonly fresh?: boolean;
  /** `:1` and so on: what the commit is called in later commands. */
  readonly mark: string;
  /** Files and folders that go, before `files` come. */
  readonly deletions: Iterable<string>;
  readonly files: Iterable<TreeFile>;
}

const author = 'dlrootfs <mail@mail.com>';

/** A commit in the language of `git fast-import` (git-fast-import(1)), one character a byte. All blobs must be in the repository. */
export function* composeCommit(commit: Commit): Generator<string, void, void> {
  const [from, ...others] = commit.parents;
  yield `commit ${commit.ref}\n`;
  yield `mark ${commit.mark}\n`;
  yield `author ${author} ${commit.time} +0000\ncommitter ${author} ${commit.time} +0000\n`;
  yield `data ${commit.message.length}\n${commit.message}\n`;
  if (from !== undefined) yield `from ${from}\n`;
  for (const other of others) yield `merge ${other}\n`;
  if (commit.fresh === true) yield 'deleteall\n';
  for (const path of commit.deletions) yield `D ${quotePath(path)}\n`;
  for (const { mode, id, path } of commit.files) yield `M ${mode} ${id} ${quotePath(path)}\n`;
  yield '\n';
}
