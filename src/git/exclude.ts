import { treeFiles } from './tree.ts';
import type { RootfsState } from './rootfs-state.ts';
import { isHoldable } from './tree-path.ts';

/**
 * `.git/info/exclude` for a rootfs: what git cannot hold should not show up in `git status` as untracked either. A folder with a
 * repository of its own and nothing of ours git would show as a whole.
 */
export function composeExclude(state: RootfsState): Buffer {
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
