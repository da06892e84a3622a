import type { ObjectStore } from './object-store.ts';
import type { Breath } from './breath.ts';
import { composeTree, type TreeEntry } from './objects.ts';
import type { ObjectID } from './object-id.ts';
import type { Place, RootfsState } from './rootfs-state.ts';
import { contentIn } from './tree-files.ts';
import { treeFile } from './tree.ts';
import { isHoldable } from './tree-path.ts';

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
    return state.treeOf(root) ?? this.#make(state, root, await this.#entries(state, root));
  }

  /** The tree of some files. */
  async add(entries: readonly TreeEntry[]): Promise<ObjectID> {
    const tree = composeTree(entries);
    return this.#store.add(tree.length, contentIn(tree), 'tree');
  }

  async #entries(state: RootfsState, names: ReadonlyMap<string, Place>): Promise<TreeEntry[]> {
    const entries: TreeEntry[] = [];
    for (const [name, { inode, children }] of names) {
      if (!children) {
        const file = treeFile(name, inode);
        if (file) entries.push({ name, mode: file.mode, id: file.id });
        continue;
      }
      if (children.size === 0 || !isHoldable(name, 'file')) continue;
      const known = state.treeOf(children);
      const id = known ?? (await this.#below(state, children));
      if (id !== undefined) entries.push({ name, mode: '40000', id });
    }
    if (this.#breath.isDue()) await this.#breath.take();
    return entries;
  }

  /** Git has no directory that holds nothing. */
  async #below(state: RootfsState, names: ReadonlyMap<string, Place>): Promise<ObjectID | undefined> {
    const entries = await this.#entries(state, names);
    return entries.length === 0 ? undefined : this.#make(state, names, entries);
  }

  async #make(
    state: RootfsState,
    names: ReadonlyMap<string, Place>,
    entries: readonly TreeEntry[],
  ): Promise<ObjectID> {
    const id = await this.add(entries);
    state.setTree(names, id);
    return id;
  }
}
