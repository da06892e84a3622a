import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { accessListXattr, defaultAccessListXattr } from '../tar/access-list.ts';
import { type BytePath, type Entry, displayPath } from '../tar/entry.ts';
import { itself, placeIn } from './directories.ts';
import {
  type ByteName,
  type Directory,
  type FileStat,
  type Mtime,
  type InodeName,
  type Place,
  granted,
  statusOf,
} from './filesystem.ts';
import {
  isModeDoubtful,
  newOwner,
  removeInherited,
  restoreOwner,
  restoreTimes,
  restoreXattrs,
  SET_ID_BITS,
} from './metadata.ts';
import { refuseReserved, type Run } from './run.ts';

const { EACCES, ENODATA, EPERM } = constants.errno;

/** Mode bits that the owner needs to fill a directory. */
const OWNER_BITS = 0o700;

/** Metadata of the root when no layer has an entry for it. */
export interface RootMetadata {
  readonly mode: number;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/**
 * Returns the mode of a directory while it is filled. Setuid and setgid, and modes that keep the owner out,
 * are set at the end.
 */
export function fillingMode(mode: number): number {
  return (mode & ~SET_ID_BITS) | OWNER_BITS;
}

/** Records the metadata that the root gets at the end. */
export function noteRoot(run: Run, entry: Entry): void {
  run.atEnd.rootEntry = entry;
}

/**
 * Gives a directory the metadata of its entry, and records the rest for the end. It was just made with
 * `fillingMode`, or it comes from a lower layer or the user.
 *
 * @param existing undefined: it is new
 * @throws SyscallError
 */
export function applyDirectoryMetadata(
  run: Run,
  place: Place,
  entry: Entry,
  existing: FileStat | undefined,
): void {
  if (!existing) ensureMode(run, place, fillingMode(entry.mode));
  restoreOwner(run, place, entry, existing ?? newOwner(run));
  if (existing) removeStaleXattrs(run, place, entry);
  const ownMode = restoreDirectoryXattrs(run, place, entry);
  const mode = fillingMode(ownMode);
  let isLate = ownMode !== mode;
  if (existing && (existing.mode !== mode || entry.xattrs)) {
    const set = run.filesystem.setMode(place, mode);
    // It is tried again at the end, and counted there.
    if (isAnothers(run, place, set)) isLate = true;
    else granted(set, 'set the mode');
  }
  run.atEnd.add(place.path, ownMode, isLate, entry);
}

/** Sets the mode of a new directory again if the system may have changed it. */
function ensureMode(run: Run, node: InodeName, mode: number): void {
  if (run.creator.careful) removeInherited(run, node, true);
  if (isModeDoubtful(run, mode)) granted(run.filesystem.setMode(node, mode), 'set the mode');
}

function restoreDirectoryXattrs(run: Run, node: InodeName, entry: Entry): number {
  if (!entry.xattrs) return entry.mode;
  const mode = restoreXattrs(run, node, entry);
  for (const name of entry.xattrs.keys()) run.atEnd.xattrs.add(name);
  // New files inherit it from now on.
  if (entry.xattrs.has(defaultAccessListXattr)) run.creator.careful = true;
  return mode;
}

/** Removes attributes that an earlier layer has set and this entry does not have. */
function removeStaleXattrs(run: Run, node: InodeName, entry: Entry): void {
  const { atEnd, filesystem } = run;
  if (atEnd.xattrs.size === 0) return;
  const present = filesystem.readXattrs(node);
  // Some file systems do not list access lists.
  const names =
    typeof present === 'number' ? [] : [...present.keys(), accessListXattr, defaultAccessListXattr];
  for (const name of new Set(names)) {
    if (!atEnd.xattrs.has(name) || entry.xattrs?.has(name)) continue;
    const result = filesystem.removeXattr(node, name);
    if (result < 0 && result !== -ENODATA)
      throw new SyscallError(result, `remove the extended attribute ${displayPath(name)}`);
  }
}

/**
 * Makes a directory without an entry, above an entry's path. It has mode 0755, owner root, and that entry's
 * time.
 *
 * @throws SyscallError
 * @throws IntegrityError for a reserved name
 */
export function makeMissing(run: Run, parent: Directory, name: ByteName): void {
  const place = placeIn(parent, name);
  const { path } = place;
  refuseReserved(run, path);
  const { filesystem } = run;
  const made = retryUnlocked(run, parent, () => filesystem.makeDirectory(parent, name, 0o755));
  granted(made, `make the directory ${displayPath(path)}`);
  ensureMode(run, place, 0o755);
  const owner = newOwner(run);
  if (owner?.uid !== 0 || owner.gid !== 0) filesystem.setOwner(place, 0, 0);
  run.changes?.made(path);
  run.written.add(place, true);
  run.atEnd.add(path, 0o755, false, run.mtime);
}

/**
 * Gives this process access to a directory that it owns; the directory's mode is restored at the end. Returns
 * false if access was not the problem, or cannot be given.
 */
export function unlock(run: Run, directory: Directory): boolean {
  const place = itself(directory);
  const stat = statusOf(run.filesystem, place);
  if (!stat || (stat.mode & OWNER_BITS) === OWNER_BITS) return false;
  if (run.filesystem.setMode(place, stat.mode | OWNER_BITS) < 0) return false;
  run.atEnd.add(directory.path, stat.mode, true, stat);
  return true;
}

/** Returns the result of `work`. If the system denies access, it calls `unlock` and tries again. */
export function retryUnlocked<T>(run: Run, directory: Directory, work: () => T): T {
  const result = work();
  return result === -EACCES && unlock(run, directory) ? work() : result;
}

/**
 * Sets the modes and times of all directories, after everything is written. The root is last.
 *
 * @param root for the root when no layer has an entry for it; undefined: it stays unchanged
 * @throws SyscallError
 */
export function finishRun(run: Run, root: RootMetadata | undefined): void {
  /** Modes that keep the owner out: set after all others, longer paths first. */
  const closed = new Map<BytePath, number>();
  let gone: string | undefined;
  for (const { path, mode, ...mtime } of run.atEnd) {
    // Skips the directories below one that was removed.
    if (gone !== undefined && path.startsWith(gone)) continue;
    const directory = findAgain(run, path);
    gone = directory ? gone : `${path}/`;
    if (!directory) continue;
    if (mode !== undefined) {
      const open = mode | OWNER_BITS;
      if (mode === open) closed.delete(path);
      else closed.set(path, mode);
      setMode(run, directory, open);
    }
    setTimes(run, directory, mtime);
  }
  for (const [path, mode] of [...closed].toSorted(([one], [other]) => other.length - one.length)) {
    const directory = findAgain(run, path);
    if (directory) setMode(run, directory, mode);
  }
  finishRoot(run, root);
}

function findAgain({ directories }: Run, path: BytePath): Place | undefined {
  directories.trim();
  const directory = directories.findExact(path);
  return directory && itself(directory);
}

/**
 * Returns true if a call failed since the directory is another user's: only its owner can set its mode and
 * times, chmod(2), utimensat(2).
 */
function isAnothers(run: Run, node: InodeName, result: number): boolean {
  return result === -EPERM && statusOf(run.filesystem, node)?.uid !== run.creator.uid;
}

/** Sets the mode of a directory. Counts it if the directory is another user's. */
function setMode(run: Run, place: Place, mode: number): void {
  const result = run.filesystem.setMode(place, mode);
  if (isAnothers(run, place, result)) run.counts.modes += 1;
  else granted(result, `set the mode of ${displayPath(place.path) || 'the root'}`);
}

/** Sets the times of a directory. Counts them if the directory is another user's. */
function setTimes(run: Run, place: Place, mtime: Mtime): void {
  try {
    restoreTimes(run, place, mtime);
  } catch (error) {
    if (!(error instanceof SyscallError) || !isAnothers(run, place, -error.errno)) throw error;
    run.counts.times += 1;
  }
}

function finishRoot(run: Run, root: RootMetadata | undefined): void {
  const node = itself(run.filesystem.root);
  const entry = run.atEnd.rootEntry;
  if (entry) {
    restoreOwner(run, node, entry, undefined);
    const mode = restoreXattrs(run, node, entry);
    // The times come first: the root's own mode may keep its owner out.
    setTimes(run, node, entry);
    setMode(run, node, mode);
  } else if (root) {
    if (root.uid !== undefined && root.gid !== undefined) {
      granted(run.filesystem.setOwner(node, root.uid, root.gid), 'set the owner of the root');
    }
    // Only the owner can set it, so a mode that is right already is not set.
    if (statusOf(run.filesystem, node)?.mode !== root.mode) setMode(run, node, root.mode);
  }
}
