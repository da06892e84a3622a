import type { TreeFile, TreeMode } from './tree-file.ts';
import type { Inode, RootfsState } from './rootfs-state.ts';
import { isHoldable } from './tree-path.ts';

/** Whether git has files of this type. */
function isTreeType(type: Inode['type']): type is 'file' | 'symlink' {
  return type === 'file' || type === 'symlink';
}

/** How git shows an inode at a path, undefined where it cannot hold it. Its content must be stored. */
export function treeFile(path: string, { type, mode, id }: Inode): TreeFile | undefined {
  if (!isTreeType(type) || id === undefined || !isHoldable(path, type)) return undefined;
  return { path, mode: treeMode(type, mode), id };
}

/** All that git holds of a rootfs, in the order of the paths' bytes. */
export function* treeFiles(state: RootfsState): Generator<TreeFile, void, void> {
  for (const [path, { inode }] of state) {
    const file = treeFile(path, inode);
    if (file) yield file;
  }
}

/** Of a file's mode git keeps whether its owner may run it. */
function treeMode(type: 'file' | 'symlink', mode: number): TreeMode {
  if (type === 'symlink') return '120000';
  return (mode & 0o100) === 0 ? '100644' : '100755';
}
