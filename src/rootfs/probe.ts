import { randomBytes } from 'node:crypto';
import { accessList, defaultAccessList } from '../tar/access-list.ts';
import type { BytePath } from '../tar/entry.ts';
import type { Filesystem } from './filesystem.ts';
import { granted } from './refusal.ts';
import type { Creator } from './run.ts';

/** For a tree that others made: nothing is taken for granted. */
export const carefulCreator: Creator = {
  uid: -1,
  gid: -1,
  umask: 0o777,
  careful: true,
  caseInsensitive: false,
  fixedModes: false,
};

/**
 * Learns what the file system of an empty root gives to new files: from two directories, one in the other, that are removed at once.
 * A group may come from the directory (setgid, mount option grpid), access lists too.
 *
 * @throws SyscallError when they cannot be removed
 */
export function probe(filesystem: Filesystem, mode: 'stage' | 'empty'): Creator {
  const { root } = filesystem;
  if (mode === 'stage') {
    // What a new directory has inherited goes, so that nothing inherits it from there.
    const rootNode = { parent: root, name: '.', file: -1 };
    filesystem.removeXattr(rootNode, accessList);
    filesystem.removeXattr(rootNode, defaultAccessList);
  }
  const name = `.dlrootfs-probe-${randomBytes(6).toString('hex')}`;
  const outerNode = { parent: root, name, file: -1 };
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
    // Where groups are inherited, what is made in a directory of another group has that one.
    filesystem.setOwner(outerNode, outer.uid, (outer.gid + 1) % 0xffff);
    filesystem.makeDirectory(directory, 'a', 0o777);
    const inner = filesystem.stat(directory, 'a');
    removed = filesystem.removeDirectory(directory, 'a');
    filesystem.closeDirectory(directory);
    if (typeof inner === 'number') return carefulCreator;
    const asAsked = inner.gid === outer.gid && inner.mode === outer.mode && (outer.mode & ~0o777) === 0;
    const inheritsList = filesystem.hasXattr(outerNode, defaultAccessList);
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
