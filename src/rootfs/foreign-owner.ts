import { IntegrityError } from '../errors.ts';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { openYielder } from '../sys/yielder.ts';
import { displayPath } from '../tar/entry.ts';
import { openFilesystem } from './confined-root.ts';
import { Directories, itself, join } from './directories.ts';
import type { FileStat } from './filesystem.ts';
import { mountPointsBelow } from './location.ts';

/** A file or directory in a tree that does not belong to the user who looks. */
export interface ForeignOwner {
  /** From the root of the tree, with a slash before it. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
}

/** What a search for owners found: the first of each kind. */
export interface ForeignOwners {
  /** With a user or group among the wanted ids. */
  readonly wanted?: ForeignOwner | undefined;
  /** A directory of an id without an account, as those of ranges are, in which this user may not remove anything. */
  readonly closed?: ForeignOwner | undefined;
}

/**
 * Searches a tree, level by level, for owners; ends at the first one that is wanted. Mount points are left out. Others may change
 * the tree during the search: no link is followed.
 *
 * @param accounts ids of users, with the one who looks
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
        const below = join(path, name);
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

/** Undefined for a directory that cannot be entered, has too long a path, or has been removed. */
function entered<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch (error) {
    if (error instanceof SyscallError || error instanceof IntegrityError) return undefined;
    throw error;
  }
}
