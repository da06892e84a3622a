import type { Inode, Node } from './node.ts';

/** One entry of the flattened archive. */
export interface Placed {
  /** Without a slash at the ends; empty for the root. */
  readonly path: string;
  readonly inode: Inode;
  /** The path that has the inode's content already: this is one more name of it. */
  readonly linkTo: string | undefined;
}

/**
 * All names in the order of the archive: each directory before what is in it, all of that before anything else, names by their
 * bytes. So readers can finish a directory when they leave it, and the order does not depend on the layers. The root comes only if an
 * entry made it.
 */
export function* inOrder(root: Node): Generator<Placed, void, void> {
  const firstNames = new Map<Inode, string>();
  if (root.inode.layer >= 0) yield { path: '', inode: root.inode, linkTo: undefined };
  const pending: [node: Node, path: string][] = [];
  const enter = (node: Node, prefix: string): void => {
    const names = [...node.children!.keys()].toSorted(byBytes);
    for (const name of names.toReversed()) pending.push([node.children!.get(name)!, prefix + name]);
  };
  enter(root, '');
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [node, path] = next;
    const { inode } = node;
    const linkTo = inode.linked ? firstNames.get(inode) : undefined;
    yield { path, inode, linkTo };
    if (node.children !== undefined) enter(node, `${path}/`);
    else if (inode.linked && linkTo === undefined) firstNames.set(inode, path);
  }
}

/** Byte strings have one character per byte, so that comparing characters compares bytes. */
function byBytes(one: string, other: string): number {
  return one < other ? -1 : 1;
}
