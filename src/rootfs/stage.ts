import { randomBytes } from 'node:crypto';
import { mkdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { geteuid, pid } from 'node:process';
import { ANOTHER_DIRECTORY, DestinationError, printable } from '../errors.ts';
import type { EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { hasCode } from '../sys/os-error.ts';
import { hiddenBeside, hiddenName, isAlive } from '../sys/temp-file.ts';
import { mountWithin } from './location.ts';
import { Rootfs } from './rootfs.ts';

/** A directory beside DIR in which DIR is built. */
export interface Stage {
  /** Its name in the directory above. */
  readonly name: string;
  /** The directory, opened when it was made. */
  readonly root: OpenDirectory;
}

/** Matches the end of a stage's name, after the hidden name of DIR. With `-old` it is an earlier DIR. */
const STAGE = /^\.dlrootfs-(\d+)-[0-9a-f]{12}(?:-old\d*)?$/;
const MOVED_ASIDE = /-old\d*$/;

/** Errors of mkdir(2): this process may not write in the directory. */
const DENIED = ['EACCES', 'EPERM', 'EROFS'];

/**
 * Makes a stage, `.NAME.dlrootfs-PID-RANDOM`, for its owner alone. If the directory may not be written, it
 * returns the error's code: EACCES, EPERM or EROFS.
 *
 * @throws DestinationError if another process has put something in its place; the system's other errors
 */
export function makeStage({ directory, name: target }: EntryPlace): Stage | { readonly denied: string } {
  const name = `${hiddenName(target)}.dlrootfs-${pid}-${randomBytes(6).toString('hex')}`;
  try {
    mkdirSync(directory.at(name), 0o700);
  } catch (error) {
    if (hasCode(error, ...DENIED)) return { denied: (error as NodeJS.ErrnoException).code! };
    throw error;
  }
  let root: OpenDirectory | undefined;
  try {
    root = directory.openChild(name);
    if (isEmpty(root)) return { name, root };
    throw swapped(directory.shown(name));
  } catch (error) {
    root?.close();
    removeIfEmpty(directory, name);
    throw error;
  }
}

/** Removes an empty directory; anything else stays. */
function removeIfEmpty(directory: OpenDirectory, name: string): void {
  try {
    rmdirSync(directory.at(name));
  } catch {
    // Another process has replaced or filled it.
  }
}

/** Returns the error for a path that another process has replaced. */
export function swapped(shown: string, and = ''): DestinationError {
  return new DestinationError(`${printable(shown)} was replaced by another process${and}`, {
    code: 'SWAPPED',
    hint: `see who else writes there, or ${ANOTHER_DIRECTORY}`,
  });
}

/**
 * Removes a tree with all that is in it.
 *
 * @param root of the tree: another one with its name is not removed
 * @param mode `stage`: only if no other run uses it; `empty`: this run is known to own it
 * @throws DestinationError
 * @throws the system's errors
 * @throws Error if something is mounted in it
 */
export async function removeTree(
  { directory, name }: EntryPlace,
  root: OpenDirectory,
  mode: 'stage' | 'empty',
): Promise<void> {
  // Another run may have just made an empty stage, and not locked it yet: its lock is checked.
  if (mode === 'stage' || !isEmpty(root)) {
    const inner = mountWithin(root);
    if (inner !== undefined) throw new Error(`${printable(inner)} is mounted in it`);
    const options = { name: directory.shown(name), mode, leftover: true, expected: root.identity };
    const rootfs = await Rootfs.open(root.self, options);
    await rootfs.discard();
  }
  if (directory.identityOf(name) === root.identity) rmdirSync(directory.at(name));
}

/** Returns true if a directory is empty. One that this process may not read counts as full. */
function isEmpty(directory: OpenDirectory): boolean {
  try {
    return directory.names().length === 0;
  } catch (error) {
    if (hasCode(error, 'EACCES')) return false;
    throw error;
  }
}

/** The directory that mke2fs(8) makes in a new file system. */
const LOST_AND_FOUND = 'lost+found';

/**
 * Returns the kind of content in DIR; `nothing` if it does not exist. A directory that this process may not
 * read counts as one with files.
 */
export function contentOf(root: OpenDirectory | undefined): 'nothing' | 'lost+found' | 'files' {
  if (root === undefined || isEmpty(root)) return 'nothing';
  const found = root.stat(LOST_AND_FOUND);
  const isOfSystem = found?.isDirectory() && found.uid === 0 && (found.mode & 0o7777) === 0o700;
  return isOfSystem && root.names().length === 1 ? 'lost+found' : 'files';
}

/** Returns the error for a DIR that has files. */
export function notEmpty(directory: string): DestinationError {
  const name = printable(directory);
  return new DestinationError(`cannot unpack into ${name}: it is not empty`, {
    code: 'NOT_EMPTY',
    hint: `add --merge to lay the image over its files, --replace to remove them and make ${name} exactly the image, or choose another directory with -d`,
  });
}

/**
 * Removes the tree that was at DIR, or the file that another process has put in its place. `identity` is that
 * of the tree or file.
 */
export async function removeReplaced(place: EntryPlace, identity: string): Promise<void> {
  const { directory, name } = place;
  if (directory.identityOf(name) !== identity) throw swapped(directory.shown(name));
  if (directory.stat(name)?.isDirectory() !== true) return unlinkSync(directory.at(name));
  using root = directory.openChild(name);
  if (root.identity !== identity) throw swapped(directory.shown(name));
  await removeTree(place, root, 'empty');
}

/**
 * Removes the stages and the replaced trees that killed runs have left for `target`. Failures are ignored.
 */
export async function removeStaleStages(target: EntryPlace): Promise<void> {
  for (const name of staleStages(target)) {
    try {
      using root = target.directory.openChild(name);
      if (isOurs(root, target.directory))
        await removeTree({ directory: target.directory, name }, root, 'stage');
    } catch {
      // The next run tries again.
    }
  }
}

/**
 * Renames to `target`, which is missing, the tree that a killed run has moved aside. Returns whether there
 * was one.
 */
export function restoreMoved(target: EntryPlace): boolean {
  const { directory } = target;
  for (const name of staleStages(target)) {
    if (!MOVED_ASIDE.test(name)) continue;
    using root = directory.openChild(name);
    if (!isOurs(root, directory)) continue;
    renameSync(directory.at(name), directory.at(target.name));
    return true;
  }
  return false;
}

/**
 * Returns directories beside `target` that are named as its stages and whose process does not run here. A
 * process in another container may still use one: it holds a lock, which `removeTree` checks.
 */
function staleStages(target: EntryPlace): string[] {
  const stages = hiddenBeside(target, STAGE);
  return stages
    .filter(
      ([name, match]) => !isAlive(Number(match[1])) && target.directory.stat(name)?.isDirectory() === true,
    )
    .map(([name]) => name);
}

/**
 * Returns true if a run of this user has surely left this tree; for root, also a run of another user. For
 * root, nobody but the tree's owner or root may be able to rename in the directory above.
 */
function isOurs(root: OpenDirectory, above: OpenDirectory): boolean {
  const { uid } = root.status;
  if (geteuid!() !== 0) return uid === geteuid!();
  const { uid: owner, mode } = above.status;
  if (uid === 0) return !above.mayOthersRename(root.status);
  return (owner === 0 || owner === uid) && (mode & 0o022) === 0;
}
