import { GitError, printable } from '../errors.ts';
import type { Inode } from './inodes.ts';
import type { Inspection } from './inspection.ts';
import type { ObjectID } from './objects.ts';
import type { Repository } from './repository.ts';
import { PULL_AGAIN, type RootfsFiles } from './rootfs-files.ts';
import type { RootfsState } from './rootfs-state.ts';
import { isHoldable } from './trees.ts';
import type { WorkTree } from '../rootfs/work-tree.ts';

/** What there is of the rootfs already. */
export interface OnDisk extends Pick<Inspection, 'verified' | 'attributes'> {
  /** Undefined: the rootfs is empty. */
  readonly files?: RootfsFiles;
}

/** Makes a rootfs what `state` says: git hands out the contents that are not on disk yet, and this program writes them. */
export async function restoreState(
  repository: Repository,
  workTree: WorkTree,
  state: RootfsState,
  { files, verified, attributes }: OnDisk,
): Promise<void> {
  const missing = missingContents(files, state, verified);
  const objects = repository.objects([...missing.values()]);
  const contents = {
    has: (path: string) => missing.has(path),
    async *read(path: string): AsyncGenerator<Uint8Array, void, void> {
      const { value: object } = await objects.next();
      if (!object || object.type !== 'blob') throw withoutContent(path);
      yield* object.content;
    },
  };
  try {
    await workTree.restore(state, contents, attributes, () => repository.yielder.pause());
  } finally {
    await objects.return();
  }
}

/** Paths of files whose content is not on disk → what gitrevisions(7) calls it; in the order of `state`, each inode once. */
function missingContents(
  files: RootfsFiles | undefined,
  state: RootfsState,
  verified: ReadonlyMap<string, ObjectID>,
): Map<string, string> {
  const missing = new Map<string, string>();
  const seen = new Set<Inode>();
  for (const [path, inode] of state) {
    // Of a symlink in a commit of the user's, only the blob says where it points.
    const hasContent = inode.type === 'file' || (inode.type === 'symlink' && inode.timeless);
    if (!hasContent || seen.has(inode)) continue;
    seen.add(inode);
    if (inode.id !== undefined && verified.get(path) === inode.id) continue;
    if (files && !isHoldable(path, 'file') && isOnDisk(files, path, inode)) continue;
    const name = inode.id ?? inode.contents;
    if (name === undefined) throw withoutContent(path);
    missing.set(path, name);
  }
  return missing;
}

/** Whether a file that git cannot hold is there, as far as its size and time tell. */
function isOnDisk(files: RootfsFiles, path: string, { size, mtimeSeconds }: Inode): boolean {
  const stat = files.stat(path);
  return stat?.type === 'file' && stat.size === size && stat.mtimeSeconds === mtimeSeconds;
}

function withoutContent(path: string): GitError {
  return new GitError(`the repository has no content for ${printable(path)}`, {
    code: 'GIT_DAMAGED',
    hint: PULL_AGAIN,
  });
}
