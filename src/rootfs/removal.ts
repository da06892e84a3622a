import { constants } from 'node:os';
import { displayPath } from '../tar/entry.ts';
import { retryUnlocked, unlock } from './directory-metadata.ts';
import { placeIn } from './directories.ts';
import { type ByteName, type Directory, type Place, granted } from './filesystem.ts';
import { openFilesFor } from '../sys/open-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { isReserved, refuseReserved, type Run } from './run.ts';
import { randomName } from '../sys/temp-file.ts';

const { EACCES, EBUSY, EEXIST, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM } =
  constants.errno;

/** Nested directories that stay open while a tree is removed. A deeper directory is moved up first. */
const DEEPEST = 100;
const SHARE = 0.2;

/** Returns true if unlink(2) may have failed because of a directory: EISDIR on Linux, EPERM in POSIX. */
function maybeDirectory(result: number): boolean {
  return result === -EISDIR || result === -EPERM;
}

/**
 * Removes the entry that prevented making `place`, or unlocks its directory, so that a second try can
 * succeed. Returns false if neither was the reason.
 */
export function clearObstacle(run: Run, failure: number, place: Place): boolean {
  if (failure === -EEXIST) clear(run, place);
  return failure === -EEXIST || (failure === -EACCES && unlock(run, place.parent));
}

/** Returns true if names are case-insensitive and this run made no entry with this spelling of `path`. */
function isOtherName(run: Run, path: string): boolean {
  return run.creator.caseInsensitive && run.written.isMade(path) === false;
}

/** Removes the entry at `place`. In overlay mode it keeps directories that have files of the user. */
export function clear(run: Run, place: Place): void {
  const isOther = isOtherName(run, place.path);
  const clearInside = run.options.mode === 'overlay' ? removeOurs : empty;
  if (removeAny(run, 'replace', place, clearInside) && isOther) run.counts.collisions += 1;
}

/** Removes a file where a later entry needs a directory; false for a file of the user. */
export function clearForDirectory(run: Run, parent: Directory, name: ByteName): boolean {
  const place = placeIn(parent, name);
  refuseReserved(run, place.path);
  if (run.options.mode === 'overlay' && run.written.isMade(place.path) !== true) return false;
  clear(run, place);
  return true;
}

/**
 * Removes the entries of lower layers at `place`. Entries of this layer stay. An overlay keeps all that this
 * run did not make.
 */
export function hide(run: Run, place: Place): void {
  const { path } = place;
  if (isReserved(run, path) || isOtherName(run, path)) return;
  if (run.written.isOfLayer(path)) hideInside(run, place);
  else if (run.options.mode !== 'overlay') removeAny(run, 'remove', place, empty);
  else {
    hideInside(run, place);
    if (run.written.isMade(path) === true) removeAny(run, 'remove', place);
  }
}

function hideInside(run: Run, place: Place): void {
  withDirectory(run, place, (directory) => hideContent(run, directory));
}

/**
 * Removes all entries of lower layers in `directory`. Once per layer is enough: later entries are its own.
 */
export function hideContent(run: Run, directory: Directory): void {
  if (!run.written.hide(directory.path)) return;
  for (const name of removableNames(run, directory)) hide(run, placeIn(directory, name));
}

/**
 * Removes the entry at `place`. Returns whether there was one.
 *
 * @param clearInside empties a directory; left out: a directory that is not empty stays
 */
function removeAny(
  run: Run,
  verb: 'remove' | 'replace',
  place: Place,
  clearInside?: (run: Run, directory: Directory) => void,
): boolean {
  const { parent, name, path } = place;
  const removed = removeFile(run, place);
  if (removed === -ENOENT) return false;
  let result = removed;
  if (maybeDirectory(removed)) {
    run.directories.drop(path);
    const isOpened = !clearInside || withDirectory(run, place, (inner) => clearInside(run, inner));
    const emptied = isOpened ? run.filesystem.removeDirectory(parent, name) : -ENOTDIR;
    if (!clearInside && [-ENOTEMPTY, -EEXIST, -ENOENT].includes(emptied)) return true;
    if (emptied !== -ENOTDIR) result = granted(emptied, `${verb} the directory ${displayPath(path)}`);
  }
  granted(result, `${verb} ${displayPath(path)}`);
  run.changes?.removed(path);
  return true;
}

/** Removes all that this run made in `directory`, in any layer. For overlay mode. */
function removeOurs(run: Run, directory: Directory): void {
  for (const name of removableNames(run, directory)) {
    const place = placeIn(directory, name);
    withDirectory(run, place, (inner) => removeOurs(run, inner));
    if (run.written.isMade(place.path) === true && maybeDirectory(removeFile(run, place)))
      run.filesystem.removeDirectory(directory, name);
  }
}

/**
 * Removes all that is in `directory`. A directory that is too deep is moved to `top`, and removed from there.
 *
 * @throws SyscallError
 */
export function empty(run: Run, directory: Directory, top = directory, depth = 0): void {
  for (
    let names = removableNames(run, directory);
    names.length > 0;
    names = directory === top ? removableNames(run, top) : []
  ) {
    for (const name of names) {
      const place = placeIn(directory, name);
      const removed = unprotected(run, place, () => removeFile(run, place));
      if (removed === 0 || removed === -ENOENT) continue;
      if (!maybeDirectory(removed)) throw new SyscallError(removed, `remove ${displayPath(place.path)}`);
      // A mount point is busy (rmdir(2)), with files or without: its content is not removed.
      const removedEmpty = run.filesystem.removeDirectory(directory, name);
      if (removedEmpty === 0) continue;
      if (removedEmpty === -EBUSY)
        throw new SyscallError(removedEmpty, `remove the directory ${displayPath(place.path)}`);
      if (depth >= openFilesFor(SHARE, DEEPEST)) {
        moveUp(run, place, top);
        continue;
      }
      const emptied = withDirectory(run, place, (inner) => empty(run, inner, top, depth + 1));
      if (!emptied) throw new SyscallError(removed, `remove ${displayPath(place.path)}`);
      const result = unprotected(run, place, () => run.filesystem.removeDirectory(directory, name));
      granted(result, `remove the directory ${displayPath(place.path)}`);
    }
  }
}

/**
 * Returns the result of `work`. After EPERM it removes the attributes that protect the file and its
 * directory, and tries again.
 */
function unprotected({ filesystem }: Run, { parent, name }: Place, work: () => number): number {
  const result = work();
  if (result !== -EPERM || !filesystem.unprotect) return result;
  const opened = [filesystem.unprotect(parent, '.'), filesystem.unprotect(parent, name)];
  return opened.includes(true) ? work() : result;
}

function moveUp(run: Run, place: Place, top: Directory): void {
  const { filesystem } = run;
  const { parent, name, path } = place;
  const newName = randomName('.removed-');
  let moved = unprotected(run, place, () => filesystem.rename(parent, name, top, newName));
  if (moved === -EACCES) {
    // Moving a directory writes its `..`, which its own mode may forbid.
    filesystem.setMode(place, 0o700);
    moved = filesystem.rename(parent, name, top, newName);
  }
  granted(moved, `remove ${displayPath(path)}`);
}

/**
 * Removes a file as `Filesystem.remove`, and unlocks its directory if necessary. -ENOENT also for a name that
 * is too long to exist.
 */
function removeFile(run: Run, { parent, name }: Place): number {
  const removed = retryUnlocked(run, parent, () => run.filesystem.remove(parent, name));
  return removed === -ENAMETOOLONG ? -ENOENT : removed;
}

/** Returns all names in a directory but those that stay. */
function removableNames(run: Run, directory: Directory): ByteName[] {
  const listed = retryUnlocked(run, directory, () => run.filesystem.list(directory));
  const names = granted(listed, `read the directory ${displayPath(directory.path)}`);
  return directory.path === '' && run.kept.size > 0 ? names.filter((name) => !run.kept.has(name)) : names;
}

/** Calls `use` with the directory at `place`; false if it does not exist. */
function withDirectory(
  run: Run,
  { parent, name, path }: Place,
  use: (directory: Directory) => void,
): boolean {
  const handle = retryUnlocked(run, parent, () => run.filesystem.openDirectory(parent, name));
  if (handle === -ENOTDIR || handle === -ELOOP || handle === -ENOENT) return false;
  if (handle < 0) throw new SyscallError(handle, `open the directory ${displayPath(path)}`);
  const directory = { path, handle };
  try {
    use(directory);
  } finally {
    run.filesystem.closeDirectory(directory);
  }
  return true;
}
