import { accessListXattr, defaultAccessListXattr } from '../tar/access-list.ts';
import type { BytePath } from '../tar/entry.ts';
import { itself, placeIn } from './directories.ts';
import { type Filesystem, granted } from './filesystem.ts';
import { randomName } from '../sys/temp-file.ts';

/** Owner and mode that the system gives a new file. */
export interface Creator {
  readonly uid: number;
  readonly gid: number;
  /** Mode bits that the system removes from the requested mode. */
  readonly umask: number;
  /**
   * Owner, mode and access lists may be inherited from the directory, so they are set or removed on every
   * file.
   */
  careful: boolean;
  /** Names are case-insensitive. */
  readonly caseInsensitive: boolean;
  /** Files have the modes that the file system gives them, and chmod(2) has no effect, as on FAT. */
  readonly fixedModes: boolean;
}

/** Assumes nothing, for a tree that other programs made. */
export const carefulCreator: Creator = {
  uid: -1,
  gid: -1,
  umask: 0o777,
  careful: true,
  caseInsensitive: false,
  fixedModes: false,
};

/**
 * Finds out what new files in an empty root inherit. It makes two nested directories and removes them. New
 * files may inherit the group (setgid, mount option grpid) and access lists of their directory.
 *
 * @throws SyscallError if they cannot be removed
 */
export function probe(filesystem: Filesystem, mode: 'stage' | 'empty'): Creator {
  const { root } = filesystem;
  if (mode === 'stage') {
    // Remove inherited access lists, so that nothing inherits them from here.
    filesystem.removeXattr(itself(root), accessListXattr);
    filesystem.removeXattr(itself(root), defaultAccessListXattr);
  }
  const name = randomName('.dlrootfs-probe-');
  const outerNode = placeIn(root, name);
  if (filesystem.makeDirectory(root, name, 0o777) < 0) return carefulCreator;
  let removed = 0;
  try {
    const outer = filesystem.stat(root, name);
    const upper = filesystem.stat(root, name.toUpperCase());
    const set = filesystem.setMode(outerNode, 0o701) >= 0;
    const changed = filesystem.stat(root, name);
    const handle = filesystem.openDirectory(root, name);
    if (typeof outer === 'number' || typeof changed === 'number' || handle < 0) return carefulCreator;
    const directory = { path: name as BytePath, handle };
    // If groups are inherited, a new directory has the group of the directory above.
    filesystem.setOwner(outerNode, outer.uid, (outer.gid + 1) % 0xffff);
    filesystem.makeDirectory(directory, 'a', 0o777);
    const inner = filesystem.stat(directory, 'a');
    removed = filesystem.removeDirectory(directory, 'a');
    filesystem.closeDirectory(directory);
    if (typeof inner === 'number') return carefulCreator;
    const asAsked = inner.gid === outer.gid && inner.mode === outer.mode && (outer.mode & ~0o777) === 0;
    const inheritsList = filesystem.xattrSize(outerNode, defaultAccessListXattr) >= 0;
    return {
      uid: inner.uid,
      gid: inner.gid,
      umask: 0o777 & ~outer.mode,
      careful: !asAsked || inheritsList,
      caseInsensitive: typeof upper !== 'number',
      fixedModes: set && changed.mode !== 0o701,
    };
  } finally {
    const outer = filesystem.removeDirectory(root, name);
    granted(removed < 0 ? removed : outer, 'remove what it was tried with');
  }
}
