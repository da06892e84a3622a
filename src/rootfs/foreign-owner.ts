import { IntegrityError } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { openYielder } from '../sys/yielder.ts';
import { displayPath } from '../tar/entry.ts';
import { openFilesystem } from './confined-root.ts';
import { Directories, itself, childPath } from './directories.ts';
import type { FileStat } from './filesystem.ts';
import { mountPointsBelow } from './location.ts';

/** A file or directory in a tree that does not belong to the user who runs this. */
export interface ForeignOwner {
  /** Path from the root of the tree, with a slash before it. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
}

/** The first file of each kind that the search found. */
export interface ForeignOwners {
  /** The first file whose user or group is wanted. */
  readonly wanted?: ForeignOwner | undefined;
  /**
   * A directory that belongs to an id without an account, as ids of ranges do. This user may not remove
   * anything in it.
   */
  readonly closed?: ForeignOwner | undefined;
}

/**
 * Searches a tree for owners, level by level, until it finds one that is wanted. Mount points are left out.
 * Others may change the tree during the search: no symlink is followed.
 *
 * @param accounts ids of users, including the one who runs this
 * @throws the signal's reason
 */
export async function findForeignOwners(
  directory: string,
  accounts: ReadonlySet<number>,
  isWanted: (stat: Pick<FileStat, 'uid' | 'gid'>) => boolean,
  signal: AbortSignal,
): Promise<ForeignOwners> {
  const filesystem = openFilesystem(pathBytes(directory));
  if (typeof filesystem === 'number') return {};
  const directories = new Directories(filesystem);
  const yielder = openYielder(signal);
  let closed: ForeignOwner | undefined;
  try {
    const root = itself(filesystem.root);
    const own = filesystem.stat(root.parent, root.name);
    if (typeof own !== 'number' && isWanted(own))
      return { wanted: { path: '/', uid: own.uid, gid: own.gid } };
    const mounts = mountPointsBelow(directory);
    const queue = [''];
    for (const path of queue) {
      directories.trim();
      const parent = entered(() => directories.findExact(path));
      const names = parent && filesystem.list(parent);
      if (!parent || typeof names === 'number') continue;
      for (const name of names!) {
        if (yielder.isDue()) await yielder.pause();
        const stat = filesystem.stat(parent, name);
        const below = childPath(path, name);
        if (typeof stat === 'number' || mounts.has(below)) continue;
        const found = { path: `/${displayPath(below)}`, uid: stat.uid, gid: stat.gid };
        if (isWanted(stat)) return { wanted: found };
        if (stat.type !== 'directory') continue;
        if (!accounts.has(stat.uid) && (stat.mode & 0o022) === 0) closed ??= found;
        queue.push(below);
      }
    }
    return { closed };
  } finally {
    directories.close();
    filesystem.close();
  }
}

/** Returns undefined for a directory that cannot be entered, has too long a path, or was removed. */
function entered<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch (error) {
    if (error instanceof SyscallError || error instanceof IntegrityError) return undefined;
    throw error;
  }
}
