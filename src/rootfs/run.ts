import { IntegrityError } from '../errors.ts';
import { accessList, defaultAccessList } from '../tar/access-list.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import type { ChangeLog } from './changes.ts';
import { type Directories, itself, parentPath, placeIn } from './directories.ts';
import { type ByteName, type Filesystem, type Mtime, type Place, granted } from './filesystem.ts';
import { nothingLost } from './not-restored.ts';
import type { FileJobs } from './file-jobs.ts';
import { PathSet } from './path-set.ts';
import { randomName } from '../sys/temp-file.ts';

/** Of the log of directories, in bytes. */
const CHUNK_BYTES = 65_536;
const NO_MODE = 0xffff;
/** In bytes: length of the shared prefix, length of the rest, mode, seconds, nanoseconds. */
const FIXED_BYTES = 2 + 2 + 2 + 8 + 4;

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

/** The state of one pull's tree, from the first layer to the last. `startRun` begins it. */
export class Run {
  readonly filesystem: Filesystem;
  readonly options: RunOptions;
  readonly creator: Creator;
  /** Set by `startRun`. */
  directories!: Directories;
  readonly counts = nothingLost();
  /** Modes and times that directories get at the end. */
  readonly log = new DirectoryLog();
  /** Directories that were given a mode for the end: later entries for them need one too. */
  readonly lateModes = new PathSet();
  /** Paths that this layer wrote, and the directories above them: its whiteouts do not hide them. */
  readonly layer = new PathSet();
  /** Directories in which this layer has hidden what lower layers have. */
  readonly hidden = new PathSet();
  /** Names at the root of an `empty` directory: `lost+found`, which stays. */
  readonly kept: ReadonlySet<ByteName>;
  /** Paths that this run made; only for an overlay or a case-insensitive file system. */
  readonly made: PathSet | undefined;
  /** Devices that could not be made: hard links to them are skipped too. */
  readonly lostDevices = new PathSet();
  /** Names of extended attributes that were set on directories. */
  readonly directoryXattrs = new Set<string>();
  /** For -g. Then the name `.git` at the root is reserved, in any case: an entry with it is an error. */
  changes: ChangeLog | undefined;
  /** Passes the writing of open files to another thread, when that thread has time. */
  jobs: FileJobs | undefined;
  /** dlrootfs's own files at the root, not the image's: `json`, `layersize`. */
  readonly ownFiles = new Set<string>();
  /** This layer has files at `pseudoLinks`. */
  hasPseudoLinks = false;
  /** This is the first layer: whiteouts hide nothing. */
  firstLayer = true;
  /** The last entry for the root itself. */
  rootEntry: Entry | undefined;
  /** Time of the current entry, for directories above it that have no entry. */
  mtime: Mtime = { mtimeSeconds: 0, mtimeNanoseconds: 0 };
  /** A directory whose path and all paths above it are in `layer`. */
  marked: string | undefined;

  constructor(filesystem: Filesystem, options: RunOptions) {
    const { mode, leftover } = options;
    const isUnknown = mode === 'overlay' || leftover;
    this.filesystem = filesystem;
    this.options = options;
    this.creator = { ...(isUnknown ? carefulCreator : probe(filesystem, mode)) };
    const names = mode === 'empty' && leftover !== true ? filesystem.list(filesystem.root) : [];
    this.kept = new Set(typeof names === 'number' ? [] : names);
    this.made = mode === 'overlay' || this.creator.caseInsensitive ? new PathSet() : undefined;
  }
}

/**
 * Notes that this layer wrote `place`, so that none of its whiteouts hides it, nor a directory above it.
 *
 * @param isNew whether it was created, not merged with an existing directory
 */
export function markWritten(run: Run, { parent, path }: Place, isNew: boolean): void {
  if (isNew) run.made?.add(path);
  if (run.ownFiles.size > 0 && parent.path === '') run.ownFiles.delete(path);
  if (run.firstLayer) return;
  run.layer.add(path);
  if (parent.path === run.marked) return;
  run.marked = parent.path;
  for (let above: string = parent.path; above !== '' && run.layer.add(above);) above = parentPath(above);
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

/** Mode and time that a directory gets after everything is written. */
interface DirectoryRecord extends Mtime {
  readonly path: BytePath;
  /** Undefined: the directory already has its mode. */
  readonly mode: number | undefined;
}

/**
 * The directories of a run in the order of their entries, in about thirty bytes each: a path is stored without the prefix that it shares
 * with the previous one. The last record of a path applies.
 */
export class DirectoryLog {
  readonly #chunks: Buffer[] = [];
  readonly #lengths: number[] = [];
  #last = '';

  add(path: string, mode: number | undefined, { mtimeSeconds, mtimeNanoseconds }: Mtime): void {
    let shared = 0;
    const most = Math.min(path.length, this.#last.length);
    while (shared < most && path.charCodeAt(shared) === this.#last.charCodeAt(shared)) shared += 1;
    const rest = path.length - shared;
    const chunk = this.#room(FIXED_BYTES + rest);
    let at = this.#lengths.at(-1)!;
    at = chunk.writeUInt16LE(shared, at);
    at = chunk.writeUInt16LE(rest, at);
    at = chunk.writeUInt16LE(mode ?? NO_MODE, at);
    at = chunk.writeDoubleLE(mtimeSeconds, at);
    at = chunk.writeUInt32LE(mtimeNanoseconds, at);
    at += chunk.write(path.slice(shared), at, 'latin1');
    this.#lengths[this.#lengths.length - 1] = at;
    this.#last = path;
  }

  *[Symbol.iterator](): Generator<DirectoryRecord, void, void> {
    let path = '';
    for (const [index, chunk] of this.#chunks.entries()) {
      const end = this.#lengths[index]!;
      for (let at = 0; at < end;) {
        const shared = chunk.readUInt16LE(at);
        const rest = chunk.readUInt16LE(at + 2);
        const mode = chunk.readUInt16LE(at + 4);
        const start = at + FIXED_BYTES;
        path = path.slice(0, shared) + chunk.toString('latin1', start, start + rest);
        yield {
          path: path as BytePath,
          mode: mode === NO_MODE ? undefined : mode,
          mtimeSeconds: chunk.readDoubleLE(at + 6),
          mtimeNanoseconds: chunk.readUInt32LE(at + 14),
        };
        at = start + rest;
      }
    }
  }

  /** The last chunk, or a new one if fewer than `size` bytes are left in it. */
  #room(size: number): Buffer {
    const chunk = this.#chunks.at(-1);
    if (chunk && this.#lengths.at(-1)! + size <= chunk.length) return chunk;
    const next = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, size));
    this.#chunks.push(next);
    this.#lengths.push(0);
    return next;
  }
}
