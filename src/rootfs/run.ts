import { IntegrityError } from '../errors.ts';
import { accessList, defaultAccessList } from '../tar/access-list.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import type { ChangeLog } from './changes.ts';
import { Directories, itself, type Pathfinder, placeIn } from './directories.ts';
import { DirectoryNotes } from './directory-notes.ts';
import { type ByteName, type Filesystem, type Mtime, granted } from './filesystem.ts';
import { nothingLost } from './not-restored.ts';
import type { FileJobs } from './file-jobs.ts';
import { PathSet } from './path-set.ts';
import { WrittenPaths } from './written-paths.ts';
import { randomName } from '../sys/temp-file.ts';

export interface RunOptions {
  /** Name of the root in messages. */
  readonly name: string;
  /**
   * `stage`: the root is new, made by this run, and locked against other runs. `empty`: it existed, with nothing but `lost+found`. `overlay`:
   * it holds files of the user, which are kept. Only files that this run wrote are removed.
   */
  readonly mode: 'stage' | 'empty' | 'overlay';
  /** Nothing is written, so the file system is not probed. */
  readonly leftover?: boolean;
}

/** Owner and mode that the system gives a new file. */
export interface Creator {
  readonly uid: number;
  readonly gid: number;
  /** Mode bits that are removed from it. */
  readonly umask: number;
  /** Owner, mode and access lists may be inherited from the directory: all are set or removed on every file. */
  careful: boolean;
  /** Names are case-insensitive. */
  readonly caseInsensitive: boolean;
  /** Files have the modes that the file system gives them, and chmod(2) has no effect, as on FAT. */
  readonly fixedModes: boolean;
}

/**
 * The state of one pull's tree, from the first layer to the last. `startRun` begins it.
 *
 * What changes has one owner: `creator.careful` and `atEnd` metadata.ts, `mtime` and `lostDevices` place.ts, `written` its class. All add to `counts`.
 */
export class Run {
  readonly filesystem: Filesystem;
  readonly options: RunOptions;
  readonly creator: Creator;
  readonly directories: Directories;
  readonly counts = nothingLost();
  /** Names at the root of an `empty` directory: `lost+found`, which stays. */
  readonly kept: ReadonlySet<ByteName>;
  /** For -g. Then the name `.git` at the root is reserved, in any case: an entry with it is an error. */
  readonly changes: ChangeLog | undefined;
  /** Passes the writing of open files to another thread, when that thread has time. */
  readonly jobs: FileJobs | undefined;
  readonly written: WrittenPaths;
  readonly atEnd = new DirectoryNotes();
  /** Devices that could not be made: hard links to them are skipped too. */
  readonly lostDevices = new PathSet();
  /** Time of the current entry, for directories above it that have no entry. */
  mtime: Mtime = { mtimeSeconds: 0, mtimeNanoseconds: 0 };

  constructor(
    filesystem: Filesystem,
    options: RunOptions,
    pathfinder: (run: Run) => Pathfinder,
    others: Pick<Run, 'changes' | 'jobs'>,
  ) {
    const { mode, leftover } = options;
    const isUnknown = mode === 'overlay' || leftover;
    this.filesystem = filesystem;
    this.options = options;
    this.changes = others.changes;
    this.jobs = others.jobs;
    this.creator = { ...(isUnknown ? carefulCreator : probe(filesystem, mode)) };
    const names = mode === 'empty' && leftover !== true ? filesystem.list(filesystem.root) : [];
    this.kept = new Set(typeof names === 'number' ? [] : names);
    this.written = new WrittenPaths(mode === 'overlay' || this.creator.caseInsensitive);
    this.directories = new Directories(filesystem, pathfinder(this));
  }
}

/** Whether `path` is reserved or below a reserved path. */
export function isReserved({ changes }: Run, path: string): boolean {
  return changes !== undefined && /^\.git(?:\/|$)/i.test(path);
}

/** @throws IntegrityError for a path that is reserved */
export function refuseReserved(run: Run, path: string): void {
  if (!isReserved(run, path)) return;
  throw new IntegrityError(`an image may not have ${displayPath(path)} together with -g`, {
    code: 'RESERVED_NAME',
    hint: 'pull it without -g',
  });
}

/** For a tree that other programs made: nothing is assumed. */
const carefulCreator: Creator = {
  uid: -1,
  gid: -1,
  umask: 0o777,
  careful: true,
  caseInsensitive: false,
  fixedModes: false,
};

/**
 * Finds out what the file system of an empty root gives to new files, by two nested directories that are removed at once.
 * New files may inherit the group (setgid, mount option grpid) and access lists of their directory.
 *
 * @throws SyscallError when they cannot be removed
 */
function probe(filesystem: Filesystem, mode: 'stage' | 'empty'): Creator {
  const { root } = filesystem;
  if (mode === 'stage') {
    // Remove inherited access lists, so that nothing inherits them from here.
    filesystem.removeXattr(itself(root), accessList);
    filesystem.removeXattr(itself(root), defaultAccessList);
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
    // Where groups are inherited, a new directory has the group of the directory above.
    filesystem.setOwner(outerNode, outer.uid, (outer.gid + 1) % 0xffff);
    filesystem.makeDirectory(directory, 'a', 0o777);
    const inner = filesystem.stat(directory, 'a');
    removed = filesystem.removeDirectory(directory, 'a');
    filesystem.closeDirectory(directory);
    if (typeof inner === 'number') return carefulCreator;
    const asAsked = inner.gid === outer.gid && inner.mode === outer.mode && (outer.mode & ~0o777) === 0;
    const inheritsList = filesystem.xattrSize(outerNode, defaultAccessList) >= 0;
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
