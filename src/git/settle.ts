import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Breath } from './breath.ts';
import { composeExclude } from './exclude.ts';
import { IndexFile } from './index-file.ts';
import type { RootfsState } from './rootfs-state.ts';
import { treeFiles } from './tree.ts';
import type { TreeFiles } from './tree-files.ts';

/**
 * Tells git that the rootfs on disk is `state`, so that `git status` is clean and quick: writes the index and `info/exclude`.
 */
export async function settle(
  gitDirectory: string,
  state: RootfsState,
  files: TreeFiles,
  breath: Breath,
): Promise<void> {
  const index = new IndexFile();
  for (const file of treeFiles(state)) {
    index.add(file, files.statIfAllowed(file.path));
    if (breath.isDue()) await breath.take();
  }
  writeWhole(path.join(gitDirectory, 'index'), index.finish());
  writeWhole(path.join(gitDirectory, 'info/exclude'), composeExclude(state));
}

/** Puts a file in place of what has its name, in git's way. */
export function writeWhole(name: string, content: Uint8Array): void {
  writeFileSync(`${name}.lock`, content, { flag: 'wx', mode: 0o644 });
  renameSync(`${name}.lock`, name);
}
