import { constants } from 'node:os';
import { accessList, defaultAccessList, textKeys } from '../tar/access-list.ts';
import { type Entry, type BytePath, displayPath } from '../tar/entry.ts';
import { join } from './directories.ts';
import { type ByteName, type Directory, type FileStat, type Node, granted } from './filesystem.ts';
import {
  isModeDoubtful,
  newOwner,
  removeInherited,
  restoreOwner,
  restoreXattrs,
  restoreTimes,
} from './metadata.ts';
import { SyscallError } from '../sys/os-error.ts';
import { markWritten, refuseReserved, type Run } from './run.ts';
import { type RootMetadata } from './messages.ts';

const { EACCES, ENODATA } = constants.errno;

/** The owner needs all three to fill a directory. */
const OWNER_BITS = 0o700;
/** Inherited by new files in the directory, so set last. Setuid has no meaning there but is kept. */
const SET_ID_BITS = 0o6000;

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

/** Records the time that a directory gets at the end, and its mode if it has or had another one in this run. */
export function noteDirectory(
  run: Run,
  path: string,
  mode: number,
  seconds: number,
  nanoseconds: number,
): void {
  const late = mode !== fillingMode(run, mode);
  if (late) run.lateModes.add(path);
  run.log.add(path, late || run.lateModes.has(path) ? mode : undefined, seconds, nanoseconds);
}

/** Metadata of a directory that `makeDirectory` has just made with `fillingMode`; returns the mode that it is to have. */
export function applyDirectoryMetadata(run: Run, parent: Directory, name: ByteName, entry: Entry): number {
  const node = { parent, name, file: -1 };
  settleMode(run, node, fillingMode(run, entry.mode));
  restoreOwner(run, node, entry, newOwner(run));
  return restoreDirectoryXattrs(run, node, entry);
}

/** Metadata of a directory that was there: lower layers' and the user's are merged with what comes. Returns as `applyDirectoryMetadata`. */
export function mergeDirectoryMetadata(
  run: Run,
  parent: Directory,
  name: ByteName,
  entry: Entry,
  stat: FileStat,
): number {
  const node = { parent, name, file: -1 };
  restoreOwner(run, node, entry, stat);
  removeStaleXattrs(run, node, entry);
  const ownMode = restoreDirectoryXattrs(run, node, entry);
  const mode = fillingMode(run, ownMode);
  if (stat.mode !== mode || entry.xattrs) granted(run.filesystem.setMode(node, mode), 'set the mode');
  return ownMode;
}

/** Sets the mode of a new directory again where the system may have changed it. */
function settleMode(run: Run, node: Node, mode: number): void {
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

/** Removes attributes that an earlier layer has set and this entry has not. */
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

/** Makes a directory of an entry's path that has no entry: mode 0755, owner root, the time of that entry. */
export function makeMissing(run: Run, parent: Directory, name: ByteName): void {
  const path = join(parent.path, name);
  refuseReserved(run, path);
  run.namedLists.delete(path);
  const { filesystem, mtimeSeconds, mtimeNanoseconds } = run;
  let made = filesystem.makeDirectory(parent, name, 0o755);
  if (made === -EACCES && unlock(run, parent)) made = filesystem.makeDirectory(parent, name, 0o755);
  granted(made, `make the directory ${displayPath(path)}`);
  const node = { parent, name, file: -1 };
  settleMode(run, node, 0o755);
  const owner = newOwner(run);
  if (owner?.uid !== 0 || owner.gid !== 0) filesystem.setOwner(node, 0, 0);
  run.changes?.made(path, 0o755, mtimeSeconds, mtimeNanoseconds);
  markWritten(run, parent, path, true);
  noteDirectory(run, path, 0o755, mtimeSeconds, mtimeNanoseconds);
}

/**
 * Gives this process access to a directory that it owns; the directory's mode is restored at the end. False if that is not the reason, or
 * not possible.
 */
export function unlock(run: Run, directory: Directory): boolean {
  const stat = run.filesystem.stat(directory, '.');
  if (typeof stat === 'number' || (stat.mode & OWNER_BITS) === OWNER_BITS) return false;
  const node = { parent: directory, name: '.', file: -1 };
  if (run.filesystem.setMode(node, stat.mode | OWNER_BITS) < 0) return false;
  run.lateModes.add(directory.path);
  run.log.add(directory.path, stat.mode, stat.mtimeSeconds, stat.mtimeNanoseconds);
  return true;
}

/**
 * Sets the directories' modes and times, now that nothing more is written into them, and the root's last of all.
 *
 * @param root for the root when no layer has an entry for it, undefined: it stays as it is
 */
export function finishRun(run: Run, root: RootMetadata | undefined): void {
  /** Modes that keep their owner out: set after all others, the deepest first. */
  const barring = new Map<BytePath, number>();
  let gone: string | undefined;
  for (const { path, mode, mtimeSeconds, mtimeNanoseconds } of run.log) {
    // A whole tree of directories may be gone: the way to each of them need not be tried.
    if (gone !== undefined && path.startsWith(gone)) continue;
    run.directories.trim();
    const directory = run.directories.findExact(path);
    gone = directory ? gone : `${path}/`;
    if (!directory) continue;
    const node = { parent: directory, name: '.', file: -1 };
    if (mode !== undefined) {
      const open = mode | ownerBits(run);
      if (mode === open) barring.delete(path);
      else barring.set(path, mode);
      granted(run.filesystem.setMode(node, open), `set the mode of ${displayPath(path)}`);
    }
    restoreTimes(run, node, mtimeSeconds, mtimeNanoseconds);
  }
  const deepestFirst = [...barring.keys()].toSorted((one, other) => other.length - one.length);
  for (const path of deepestFirst) {
    run.directories.trim();
    const directory = run.directories.findExact(path);
    if (!directory) continue;
    const node = { parent: directory, name: '.', file: -1 };
    granted(run.filesystem.setMode(node, barring.get(path)!), `set the mode of ${displayPath(path)}`);
  }
  finishRoot(run, root);
}

function finishRoot(run: Run, root: RootMetadata | undefined): void {
  const node = { parent: run.filesystem.root, name: '.', file: -1 };
  const entry = run.rootEntry;
  if (entry) {
    restoreOwner(run, node, entry, undefined);
    const mode = restoreXattrs(run, node, entry);
    // Its own mode may keep its owner out.
    restoreTimes(run, node, entry.mtimeSeconds, entry.mtimeNanoseconds);
    granted(run.filesystem.setMode(node, mode), 'set the mode of the root');
  } else if (root) {
    if (root.uid !== undefined && root.gid !== undefined) {
      granted(run.filesystem.setOwner(node, root.uid, root.gid), 'set the owner of the root');
    }
    granted(run.filesystem.setMode(node, root.mode), 'set the mode of the root');
  }
}
