import { randomBytes } from 'node:crypto';
import { IntegrityError } from '../errors.ts';
import { accessList, defaultAccessList } from '../tar/access-list.ts';
import type { BytePath, Entry } from '../tar/entry.ts';
import type { ChangeLog } from './changes.ts';
import type { ContentWriter } from './contents.ts';
import type { DirectoryLog } from './directory-log.ts';
import type { Directories } from './directories.ts';
import { parentPath } from './directories.ts';
import type { Directory, Filesystem } from './filesystem.ts';
import type { NotRestored } from './not-restored.ts';
import type { PathSet } from './path-set.ts';
import { displayPath } from '../tar/entry.ts';
import { granted } from './filesystem.ts';

export interface RunOptions {
  /** What messages call the root. */
  readonly name: string;
  /**
   * `stage`: the root is new and ours. `empty`: it was there, without content. `overlay`: it holds files of the user's, which are
   * kept: only what this run wrote is ever removed.
   */
  readonly mode: 'stage' | 'empty' | 'overlay';
  /** Names at the root that no layer may use, in lower case; any case of them is meant. */
  readonly reservedNames: readonly string[];
  /** Keep a record of what each layer changed. */
  readonly recordChanges: boolean;
  /** Lower layers are there already, of an earlier run: whiteouts hide them, and all of it is ours. */
  readonly hasLayers?: boolean;
  /** Files at the root that an earlier run wrote as ours, not the image's. */
  readonly ownFiles?: readonly string[];
  /** Nothing will be written, so nothing is tried. */
  readonly leftover?: boolean;
}

/** What the system gives a new file without being asked. */
export interface Creator {
  readonly uid: number;
  readonly gid: number;
  /** Mode bits that are taken from it. */
  readonly umask: number;
  /** Owner, mode and access lists may be inherited from the directory: each is set or removed again on everything. */
  careful: boolean;
  /** Two names that differ only in case are one. */
  readonly caseInsensitive: boolean;
  /** Files have the modes that the file system gives them, and chmod(2) has no effect, as on FAT. */
  readonly fixedModes: boolean;
}

/** All that one pull knows of the tree it builds, from the first layer to the last. */
export interface Run {
  readonly filesystem: Filesystem;
  readonly directories: Directories;
  readonly options: RunOptions;
  readonly creator: Creator;
  readonly counts: NotRestored;
  /** Modes and times of directories, for the end. */
  readonly log: DirectoryLog;
  /** Directories that were given a mode for the end: later entries for them need one too. */
  readonly lateModes: PathSet;
  /** What this layer wrote, and the directories above it: whiteouts of the same layer do not touch it. */
  readonly layer: PathSet;
  /** Directories in which this layer has hidden what lower layers have. */
  readonly hidden: PathSet;
  /** What this run made; kept only where it must be told from what was there, or from names that are the same to the file system. */
  readonly made: PathSet | undefined;
  /** Devices that could not be made: hard links to them cannot either. */
  readonly lostDevices: PathSet;
  /** Names of extended attributes that were set on directories. */
  readonly directoryXattrs: Set<string>;
  readonly changes: ChangeLog | undefined;
  /** Gets a content for each file and each symlink in `changes`. */
  readonly contents: ContentWriter | undefined;
  /** Files at the root that are ours, not the image's: `json`, `layersize`. */
  readonly ownFiles: Set<string>;
  /** Files of this layer whose access lists say names: what they are in numbers is known at its end. */
  readonly namedLists: Map<BytePath, Entry>;
  /** About what `namedLists` takes in memory, in bytes. */
  namedListBytes: number;
  /** Where files that only hard links of this layer name are kept; undefined: it has none. */
  pseudoLinks: Directory | undefined;
  /** No layer was applied before this one: whiteouts have nothing to hide. */
  firstLayer: boolean;
  /** The last entry for the root itself. */
  rootEntry: Entry | undefined;
  /** Time of the entry being applied, for directories above it that no entry makes. */
  mtimeSeconds: number;
  mtimeNanoseconds: number;
  /** The directory whose path and those above it are in `layer`. */
  marked: string | undefined;
}

/**
 * Notes that this layer wrote `path` in `parent`, so that none of its whiteouts hides it, nor a directory above it.
 *
 * @param isNew whether it was made, and not only merged with what was there
 */
export function markWritten(run: Run, parent: Directory, path: string, isNew: boolean): void {
  if (isNew) run.made?.add(path);
  if (run.ownFiles.size > 0 && parent.path === '') run.ownFiles.delete(path);
  if (run.firstLayer) return;
  run.layer.add(path);
  if (parent.path === run.marked) return;
  run.marked = parent.path;
  for (let above: string = parent.path; above !== '' && run.layer.add(above);) above = parentPath(above);
}

/** Whether `path` is one that no layer may use, or lies below it. */
export function isReserved(run: Run, path: string): boolean {
  const { reservedNames } = run.options;
  if (reservedNames.length === 0) return false;
  const cut = path.indexOf('/');
  return reservedNames.includes((cut < 0 ? path : path.slice(0, cut)).toLowerCase());
}

/** @throws IntegrityError for a path that is reserved */
export function refuseReserved(run: Run, path: string): void {
  if (!isReserved(run, path)) return;
  throw new IntegrityError(`an image may not have ${displayPath(path)} together with -g`, {
    code: 'RESERVED_NAME',
    hint: 'pull it without -g',
  });
}

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
