import type { Breath } from './breath.ts';
import { IndexFile } from './index-file.ts';
import { branchRef } from './names.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import type { RootfsState } from './rootfs-state.ts';
import { treeFiles } from './tree.ts';
import { isHoldable } from './tree-path.ts';

/**
 * Tells git that the rootfs on disk is `state`, and that `branch` is checked out, so that `git status` is clean and quick: writes the
 * index, `info/exclude` and `HEAD`.
 *
 * @throws GitError
 */
export async function settle(
  files: RootfsFiles,
  state: RootfsState,
  branch: string,
  breath: Breath,
): Promise<void> {
  files.forget();
  const index = new IndexFile();
  for (const file of treeFiles(state)) {
    index.add(file, files.stat(file.path));
    if (breath.isDue()) await breath.take();
  }
  files.replace('.git/index', index.finish());
  files.makeDirectory('.git/info');
  files.replace('.git/info/exclude', composeExclude(state));
  files.replace('.git/HEAD', Buffer.from(`ref: ${branchRef(branch)}\n`));
}

/**
 * `.git/info/exclude` for a rootfs: what git cannot hold should not show up in `git status` as untracked either. A folder with a
 * repository of its own and nothing of ours git would show as a whole.
 */
function composeExclude(state: RootfsState): Buffer {
  const patterns: string[] = [];
  let files: readonly string[] | undefined;
  for (const [path, { inode }] of state) {
    const slash = path.lastIndexOf('/');
    const above = path.slice(0, Math.max(0, slash));
    if (isHoldable(path, inode.type === 'symlink' ? 'symlink' : 'file') || !isHoldable(above, 'file'))
      continue;
    patterns.push(pattern(path));
    if (path.slice(slash + 1) !== '.git') continue;
    files ??= [...treeFiles(state)].map((file) => file.path);
    if (!files.some((file) => file.startsWith(`${above}/`))) patterns.push(pattern(above));
  }
  return Buffer.from(patterns.join(''), 'latin1');
}

/** A line that means this path alone; a pattern has no way to name a newline. */
function pattern(path: string): string {
  return path.includes('\n') ? '' : `/${path.replaceAll(/[\\*?[\] ]/g, String.raw`\$&`)}\n`;
}
