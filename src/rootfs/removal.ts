import { constants } from 'node:os';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { unlock } from './directory-metadata.ts';
import { join } from './directories.ts';
import { type ByteName, type Directory, granted } from './filesystem.ts';
import { SyscallError } from '../sys/os-error.ts';
import { isReserved, refuseReserved, type Run } from './run.ts';
import { randomName } from '../sys/temp-file.ts';

const { EACCES, EEXIST, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM } = constants.errno;

/** Directories in directories that are held open while a tree is removed; what is deeper is moved up first. */
const DEEPEST = 100;

/** Whether unlink(2) failed as it does for a directory: Linux the first, POSIX the second. */
function maybeDirectory(result: number): boolean {
  return result === -EISDIR || result === -EPERM;
}

/**
 * After `path` could not be made: removes the entry there, or unlocks its directory, so that a second try can succeed. False where neither
 * is the reason.
 */
export function clearObstacle(
  run: Run,
  failure: number,
  parent: Directory,
  path: BytePath,
  name: ByteName,
): boolean {
  if (failure === -EEXIST) clear(run, parent, name, path);
  return failure === -EEXIST || (failure === -EACCES && unlock(run, parent));
}

/** Whether the entry at `path` has another name for this run, in other letters. */
function isOtherName(run: Run, path: BytePath): boolean {
  return run.creator.caseInsensitive && run.made?.has(path) === false;
}

/** Removes the entry of this name; in overlay mode no directory that has files of the user. */
export function clear(run: Run, parent: Directory, name: ByteName, path: BytePath): void {
  const isOther = isOtherName(run, path);
  const removeDirectory = run.options.mode === 'overlay' ? removeOurDirectory : removeTree;
  if (removeAny(run, 'replace', parent, name, path, removeDirectory) && isOther) run.counts.collisions += 1;
}

/** Removes a file where a later entry needs a directory; false for a file of the user. */
export function clearForDirectory(run: Run, parent: Directory, name: ByteName): boolean {
  const path = join(parent.path, name);
  refuseReserved(run, path);
  if (run.options.mode === 'overlay' && run.made?.has(path) !== true) return false;
  clear(run, parent, name, path);
  return true;
}

/** Removes the entry that lower layers have at `path`: entries of this layer stay, and in overlay mode all that this run did not make. */
export function hide(run: Run, parent: Directory, name: ByteName, path: BytePath): void {
  if (isReserved(run, path) || path === run.pseudoLinks?.path || isOtherName(run, path)) return;
  const isOfThisLayer = run.layer.has(path);
  const isOfTheUser = run.options.mode === 'overlay' && run.made?.has(path) !== true;
  if (!isOfThisLayer && run.options.mode !== 'overlay') {
    removeAny(run, 'remove', parent, name, path, removeTree);
    return;
  }
  withDirectory(run, parent, name, path, (directory) => hideContent(run, directory));
  if (!isOfThisLayer && !isOfTheUser) removeAny(run, 'remove', parent, name, path, removeIfEmpty);
}

/** Hides all entries of lower layers in `directory`. Once per layer is enough: later entries are the layer's own. */
export function hideContent(run: Run, directory: Directory): void {
  if (!run.hidden.add(directory.path)) return;
  for (const name of list(run, directory)) hide(run, directory, name, join(directory.path, name));
}

/** Removes a directory of that name. Returns 0, 1 where it may stay, a negated errno; -ENOTDIR: it is not a directory. */
type RemoveDirectory = (run: Run, parent: Directory, name: ByteName, path: BytePath) => number;

/** Removes the entry of that name, a directory by `removeDirectory`. Returns whether there was one. */
function removeAny(
  run: Run,
  verb: 'remove' | 'replace',
  parent: Directory,
  name: ByteName,
  path: BytePath,
  removeDirectory: RemoveDirectory,
): boolean {
  const removed = removeFile(run, parent, name);
  if (removed === -ENOENT) return false;
  run.directories.forgetLinks();
  let result = removed;
  if (maybeDirectory(removed)) {
    run.directories.drop(path);
    result = removeDirectory(run, parent, name, path);
  }
  if (result === 0) run.changes?.removed(path);
  if (result === removed || result === -ENOTDIR) granted(removed, `${verb} ${displayPath(path)}`);
  if (result < 0) throw new SyscallError(result, `${verb} the directory ${displayPath(path)}`);
  return true;
}

/** Removes a directory with all that is in it. */
function removeTree(run: Run, parent: Directory, name: ByteName, path: BytePath): number {
  const isDirectory = withDirectory(run, parent, name, path, (inner) => empty(run, inner, inner, 0));
  return isDirectory ? run.filesystem.removeDirectory(parent, name) : -ENOTDIR;
}

/** In overlay mode: removes a directory that has only files of this run, of any layer. */
function removeOurDirectory(run: Run, parent: Directory, name: ByteName, path: BytePath): number {
  const isDirectory = withDirectory(run, parent, name, path, (inner) => removeOurs(run, inner));
  return isDirectory ? run.filesystem.removeDirectory(parent, name) : -ENOTDIR;
}

function removeIfEmpty(run: Run, parent: Directory, name: ByteName): number {
  const removed = run.filesystem.removeDirectory(parent, name);
  return removed === -ENOTEMPTY || removed === -EEXIST || removed === -ENOENT ? 1 : removed;
}

/** In overlay mode: removes all that this run made in `directory`, in any layer. */
function removeOurs(run: Run, directory: Directory): void {
  for (const name of list(run, directory)) {
    const path = join(directory.path, name);
    withDirectory(run, directory, name, path, (inner) => removeOurs(run, inner));
    if (!run.made?.has(path)) continue;
    if (maybeDirectory(removeFile(run, directory, name))) run.filesystem.removeDirectory(directory, name);
  }
}

/** Removes all that is in `directory`. What is too deep is moved to `top`, to be removed from there. */
export function empty(run: Run, directory: Directory, top: Directory, depth: number): void {
  for (let names = list(run, directory); names.length > 0; names = directory === top ? list(run, top) : []) {
    for (const name of names) {
      const path = join(directory.path, name);
      const removed = unprotected(run, directory, name, () => removeFile(run, directory, name));
      if (removed === 0 || removed === -ENOENT) continue;
      if (!maybeDirectory(removed)) throw new SyscallError(removed, `remove ${displayPath(path)}`);
      if (depth >= DEEPEST) {
        moveUp(run, directory, name, top);
        continue;
      }
      const emptied = withDirectory(run, directory, name, path, (inner) => empty(run, inner, top, depth + 1));
      if (!emptied) throw new SyscallError(removed, `remove ${displayPath(path)}`);
      const result = unprotected(run, directory, name, () => run.filesystem.removeDirectory(directory, name));
      granted(result, `remove the directory ${displayPath(path)}`);
    }
  }
}

/** The result of `work`; after EPERM, once more without the attributes that protect a file and its directory. */
function unprotected(run: Run, parent: Directory, name: ByteName, work: () => number): number {
  const result = work();
  if (result !== -EPERM || !run.filesystem.unprotect) return result;
  const opened = [run.filesystem.unprotect(parent, '.'), run.filesystem.unprotect(parent, name)];
  return opened.includes(true) ? work() : result;
}

function moveUp(run: Run, directory: Directory, name: ByteName, top: Directory): void {
  const { filesystem } = run;
  const newName = randomName('.removed-');
  let moved = unprotected(run, directory, name, () => filesystem.rename(directory, name, top, newName));
  if (moved === -EACCES) {
    // Moving a directory writes its `..`, which its own mode may forbid.
    filesystem.setMode({ parent: directory, name, file: -1 }, 0o700);
    moved = filesystem.rename(directory, name, top, newName);
  }
  granted(moved, `remove ${displayPath(join(directory.path, name))}`);
}

/** As `Filesystem.remove`, in a directory that may have to be unlocked; -ENOENT also for a name that is too long to exist. */
function removeFile(run: Run, parent: Directory, name: ByteName): number {
  let removed = run.filesystem.remove(parent, name);
  if (removed === -EACCES && unlock(run, parent)) removed = run.filesystem.remove(parent, name);
  return removed === -ENAMETOOLONG ? -ENOENT : removed;
}

function list(run: Run, directory: Directory): ByteName[] {
  let names = run.filesystem.list(directory);
  if (names === -EACCES && unlock(run, directory)) names = run.filesystem.list(directory);
  if (typeof names === 'number')
    throw new SyscallError(names, `read the directory ${displayPath(directory.path)}`);
  return names;
}

/** Calls `use` with the directory of that name; false when there is none. */
function withDirectory(
  run: Run,
  parent: Directory,
  name: ByteName,
  path: BytePath,
  use: (directory: Directory) => void,
): boolean {
  let handle = run.filesystem.openDirectory(parent, name);
  if (handle === -EACCES && unlock(run, parent)) handle = run.filesystem.openDirectory(parent, name);
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
