import type { ObjectStore } from './object-store.ts';
import type { Breath } from './breath.ts';
import { composeTree, type TreeEntry } from './objects.ts';
import type { ObjectID } from './object-id.ts';
import type { Place, RootfsState } from './rootfs-state.ts';
import { contentIn } from './pack-writer.ts';
import { treeFile } from './tree.ts';
import { LONGEST_FOR_GIT, isHoldable } from './tree-path.ts';

/** Makes the trees of a rootfs: only of directories in which something changed since they were made last. */
export class TreeWriter {
  readonly #store: ObjectStore;
  readonly #breath: Breath;

  constructor(store: ObjectStore, breath: Breath) {
    this.#store = store;
    this.#breath = breath;
  }

  /** The tree of all that git holds of a rootfs. All contents must be stored. */
  async write(state: RootfsState): Promise<ObjectID> {
    const root = state.root();
    const known = state.treeOf(root);
    if (known !== undefined) return known;
    const open = [openTree('', 0, root)];
    for (;;) {
      const tree = open.at(-1)!;
      const next = tree.rest.next();
      if (next.done !== true) {
        const below = addPlace(state, tree, ...next.value);
        if (below) open.push(below);
        continue;
      }
      open.pop();
      const above = open.at(-1);
      // Git has no directory that holds nothing.
      if (tree.entries.length > 0 || !above) {
        const id = await this.add(tree.entries);
        state.setTree(tree.names, id);
        if (!above) return id;
        above.entries.push({ name: tree.name, mode: '40000', id });
      }
      if (this.#breath.isDue()) await this.#breath.take();
    }
  }

  /** The tree of some files. */
  async add(entries: readonly TreeEntry[]): Promise<ObjectID> {
    const tree = composeTree(entries);
    return this.#store.add(tree.length, contentIn(tree), 'tree');
  }
}

/** A tree in the making. */
interface OpenTree {
  readonly name: string;
  /** Of the path, with a slash after it. */
  readonly length: number;
  readonly names: ReadonlyMap<string, Place>;
  readonly rest: MapIterator<[string, Place]>;
  readonly entries: TreeEntry[];
}

function openTree(name: string, length: number, names: ReadonlyMap<string, Place>): OpenTree {
  return { name, length, names, rest: names.entries(), entries: [] };
}

/** Adds what stands at a name to the tree; answers the tree that has to be made first. */
function addPlace(state: RootfsState, tree: OpenTree, name: string, place: Place): OpenTree | undefined {
  const length = tree.length + name.length;
  if (length > LONGEST_FOR_GIT) return undefined;
  const { inode, children } = place;
  if (!children) {
    const file = treeFile(name, inode);
    if (file) tree.entries.push({ name, mode: file.mode, id: file.id });
    return undefined;
  }
  if (children.size === 0 || !isHoldable(name, 'file')) return undefined;
  const id = state.treeOf(children);
  if (id === undefined) return openTree(name, length + 1, children);
  tree.entries.push({ name, mode: '40000', id });
  return undefined;
}
