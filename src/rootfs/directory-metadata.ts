import { constants } from 'node:os';
import { accessList, defaultAccessList, textKeys } from '../tar/access-list.ts';
import { type Entry, type BytePath, displayPath } from '../tar/entry.ts';
import { itself, placeIn } from './directories.ts';
import {
  type ByteName,
  type Directory,
  type FileStat,
  type Mtime,
  type Node,
  type Place,
  granted,
  statusOf,
} from './filesystem.ts';
import {
  isModeDoubtful,
  newOwner,
  removeInherited,
  restoreOwner,
  restoreXattrs,
  restoreTimes,
  SET_ID_BITS,
} from './metadata.ts';
import { SyscallError } from '../sys/os-error.ts';
import { markWritten, refuseReserved, type Run } from './run.ts';

/** What the root is given when no layer has an entry for it. */
export interface RootMetadata {
  readonly mode: number;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

const { EACCES, ENODATA } = constants.errno;

/** The owner needs all three to fill a directory. */
const OWNER_BITS = 0o700;
/** Inherited by new files in the directory, so set last. Setuid has no meaning there but is kept. */

/**
 * The mode of a directory while it is filled. Bits that keep its owner out, or that new files inherit, are set at the end.
 */
export function fillingMode(run: Run, mode: number): number {
  return (mode & ~SET_ID_BITS) | ownerBits(run);
}

/** Bits that the owner needs. */
function ownerBits({ filesystem }: Run): number {
  return filesystem.checksAccess ? OWNER_BITS : 0;
}

/** Records the time of a directory for the end. Records its mode too, if that has differed in this run. */
export function noteDirectory(run: Run, path: string, mode: number, mtime: Mtime): void {
  const late = mode !== fillingMode(run, mode);
  if (late) run.lateModes.add(path);
  run.log.add(path, late || run.lateModes.has(path) ? mode : undefined, mtime);
}

/** Metadata of a directory that `makeDirectory` has just made with `fillingMode`; returns the mode that it is to have. @throws SyscallError */
export function applyDirectoryMetadata(run: Run, node: Node, entry: Entry): number {
  ensureMode(run, node, fillingMode(run, entry.mode));
  restoreOwner(run, node, entry, newOwner(run));
  return restoreDirectoryXattrs(run, node, entry);
}

/**
 * Merges the metadata of a directory that exists, from a lower layer or the user, with that of `entry`.
 *
 * @returns the mode that it is to have
 * @throws SyscallError
 */
export function mergeDirectoryMetadata(run: Run, node: Node, entry: Entry, stat: FileStat): number {
  restoreOwner(run, node, entry, stat);
  removeStaleXattrs(run, node, entry);
  const ownMode = restoreDirectoryXattrs(run, node, entry);
  const mode = fillingMode(run, ownMode);
  if (stat.mode !== mode || entry.xattrs) granted(run.filesystem.setMode(node, mode), 'set the mode');
  return ownMode;
}

/** Sets the mode of a new directory again where the system may have changed it. */
function ensureMode(run: Run, node: Node, mode: number): void {
  if (run.creator.careful) removeInherited(run, node, true);
  if (isModeDoubtful(run, mode)) granted(run.filesystem.setMode(node, mode), 'set the mode');
}

function restoreDirectoryXattrs(run: Run, node: Node, entry: Entry): number {
  if (!entry.xattrs) return entry.mode;
  const mode = restoreXattrs(run, node, entry);
  for (const name of entry.xattrs.keys())
    if (!textKeys.has(name) || run.filesystem.hasXattr(node, name)) run.directoryXattrs.add(name);
  // From here on new files inherit it.
  if (entry.xattrs.has(defaultAccessList)) run.creator.careful = true;
  return mode;
}

/** Removes attributes that an earlier layer has set and this entry does not have. */
function removeStaleXattrs(run: Run, node: Node, entry: Entry): void {
  const { directoryXattrs, filesystem } = run;
  if (directoryXattrs.size === 0) return;
  const present = filesystem.readXattrs(node);
  // Some file systems do not list access lists.
  const names = typeof present === 'number' ? [] : [...present.keys(), accessList, defaultAccessList];
  for (const name of new Set(names)) {
    if (!directoryXattrs.has(name) || entry.xattrs?.has(name)) continue;
    const result = filesystem.removeXattr(node, name);
    if (result < 0 && result !== -ENODATA)
      throw new SyscallError(result, `remove the extended attribute ${displayPath(name)}`);
  }
}

/**
 * Makes a directory of an entry's path that has no entry: mode 0755, owner root, the time of that entry.
 *
 * @throws SyscallError, IntegrityError for a reserved name
 */
export function makeMissing(run: Run, parent: Directory, name: ByteName): void {
  const place = placeIn(parent, name);
  const { path } = place;
  refuseReserved(run, path);
  run.namedLists.delete(path);
  const { filesystem } = run;
  const made = retryUnlocked(run, parent, () => filesystem.makeDirectory(parent, name, 0o755));
  granted(made, `make the directory ${displayPath(path)}`);
  ensureMode(run, place, 0o755);
  const owner = newOwner(run);
  if (owner?.uid !== 0 || owner.gid !== 0) filesystem.setOwner(place, 0, 0);
  run.changes?.made(path, 0o755, run.mtime);
  markWritten(run, place, true);
  noteDirectory(run, path, 0o755, run.mtime);
}

/**
 * Gives this process access to a directory that it owns; the directory's mode is restored at the end. False if access was not the
 * problem, or if it is not possible.
 */
export function unlock(run: Run, directory: Directory): boolean {
  const place = itself(directory);
  const stat = statusOf(run.filesystem, place);
  if (!stat || (stat.mode & OWNER_BITS) === OWNER_BITS) return false;
  if (run.filesystem.setMode(place, stat.mode | OWNER_BITS) < 0) return false;
  run.lateModes.add(directory.path);
  run.log.add(directory.path, stat.mode, stat);
  return true;
}

/** The result of `work`; if the system denies it, that of a second attempt after `unlock`. */
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
  /** Modes that keep the owner out: set after all others, the deepest first. */
  const closed = new Map<BytePath, number>();
  let gone: string | undefined;
  for (const { path, mode, ...mtime } of run.log) {
    // A whole tree of directories may have been removed: it is skipped.
    if (gone !== undefined && path.startsWith(gone)) continue;
    const directory = findAgain(run, path);
    gone = directory ? gone : `${path}/`;
    if (!directory) continue;
    if (mode !== undefined) {
      const open = mode | ownerBits(run);
      if (mode === open) closed.delete(path);
      else closed.set(path, mode);
      setMode(run, directory, open);
    }
    restoreTimes(run, directory, mtime);
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

function setMode({ filesystem }: Run, place: Place, mode: number): void {
  granted(filesystem.setMode(place, mode), `set the mode of ${displayPath(place.path) || 'the root'}`);
}

function finishRoot(run: Run, root: RootMetadata | undefined): void {
  const node = itself(run.filesystem.root);
  const entry = run.rootEntry;
  if (entry) {
    restoreOwner(run, node, entry, undefined);
    const mode = restoreXattrs(run, node, entry);
    // Its own mode may keep its owner out.
    restoreTimes(run, node, entry);
    setMode(run, node, mode);
  } else if (root) {
    if (root.uid !== undefined && root.gid !== undefined) {
      granted(run.filesystem.setOwner(node, root.uid, root.gid), 'set the owner of the root');
    }
    setMode(run, node, root.mode);
  }
}
