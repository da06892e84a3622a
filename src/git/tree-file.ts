import type { ObjectID } from './object-id.ts';

/** What git calls the kind of a file in a tree. */
export type TreeMode = '100644' | '100755' | '120000';

/** A file of a commit. */
export interface TreeFile {
  readonly path: string;
  readonly mode: TreeMode;
  readonly id: ObjectID;
}
