import type { Written } from '../tar/mtree.ts';
import type { TreeFile } from './tree-file.ts';
import { chainOf, type History, type LayerRecord } from './history.ts';
import { loadState, readTree, type Records } from './record.ts';
import type { RootfsState } from './rootfs-state.ts';
import { treeFile, treeFiles } from './tree.ts';
import type { Repository } from './repository.ts';

const plain: Omit<Written, 'type' | 'path'> = {
  linkPath: '',
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: undefined,
};

/**
 * What the rootfs is at a commit: a layer's, or a user's on top of one. Files that the user changed keep owner and mode, new ones are
 * root's, as far as git's own means go.
 */
export async function stateAt(
  repository: Repository,
  commit: string,
  history: History,
  records: Records,
): Promise<RootfsState> {
  const layer = await nearestLayer(repository, commit, history);
  const state = await loadState(repository, records, layer ? chainOf(history, layer) : []);
  if (layer?.commit !== commit) replaceFiles(state, await readTree(repository, commit));
  return state;
}

/** The layer that a commit is, or stands on. */
async function nearestLayer(
  repository: Repository,
  commit: string,
  history: History,
): Promise<LayerRecord | undefined> {
  const layers = new Map([...history.values()].map((layer) => [layer.commit as string, layer]));
  const known = layers.get(commit);
  if (known) return known;
  const ancestors = await repository.run(['rev-list', commit, '--']);
  return ancestors
    .split('\n')
    .map((ancestor) => layers.get(ancestor))
    .find((layer) => layer !== undefined);
}

/** Makes `tree` all that git holds of `state`. */
function replaceFiles(state: RootfsState, tree: readonly TreeFile[]): void {
  const wanted = new Set(tree.map(({ path }) => path));
  for (const { path } of treeFiles(state)) {
    if (!wanted.has(path)) state.apply({ type: 'removed', path });
  }
  for (const file of tree) {
    const before = state.find(file.path)?.inode;
    const held = before && treeFile(file.path, before);
    if (held && held.id === file.id && held.mode === file.mode) continue;
    makeAbove(state, file.path);
    const type = file.mode === '120000' ? 'symlink' : 'file';
    const kept = before?.type === type ? before : { ...plain, mode: 0o644 };
    const mode = file.mode === '100755' ? kept.mode | 0o111 : kept.mode & ~0o111;
    state.apply({ ...plain, uid: kept.uid, gid: kept.gid, mode, type, path: file.path });
    Object.assign(state.find(file.path)!.inode, { id: file.id, timeless: true });
  }
}

/** Makes the directories above a path that are missing. */
function makeAbove(state: RootfsState, path: string): void {
  for (let end = path.indexOf('/'); end !== -1; end = path.indexOf('/', end + 1)) {
    const above = path.slice(0, end);
    if (state.find(above)?.children) continue;
    state.apply({ ...plain, type: 'directory', path: above });
    Object.assign(state.find(above)!.inode, { timeless: true });
  }
}
