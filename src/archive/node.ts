import type { Entry } from '../tar/entry.ts';

/** A file with all its names: what stat(2) would tell, and where in the layers its data is. */
export interface Inode {
  readonly entry: Entry;
  /** The entry's, and what hard links to it have added. */
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** Which layer's which entry it is; −1 for a directory that no entry made. */
  readonly layer: number;
  readonly ordinal: number;
  /** Whether it ever had a second name. */
  linked: boolean;
}

/** One name in the tree, and for a directory what is in it. */
export interface Node {
  inode: Inode;
  readonly parent: Node | undefined;
  readonly name: string;
  /** Of a directory. */
  readonly children: Map<string, Node> | undefined;
  /** The last layer that wrote it or something below it: no whiteout of the same layer hides it. */
  layer: number;
}
