import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { access, lstat, mkdir, opendir, rename, rmdir, unlink } from 'node:fs/promises';
import path from 'node:path';
import { getegid, geteuid, pid } from 'node:process';
import { DestinationError, DlrootfsError, printable } from '../errors.ts';
import { explainOsError, hasCode, osErrorOf, reasonOf } from '../sys/os-error.ts';
import { osPath, utf8Path } from '../sys/os-path.ts';
import { hiddenBeside, hiddenName, isAlive, replaceDirectory } from '../sys/temp-file.ts';
import {
  identityOf,
  type ProtectedPath,
  locate,
  type DirectoryLocation,
  mountWithin,
  readMounts,
  refuseMounts,
  refuseReplacement,
} from './location.ts';
import type { RootMetadata } from './metadata.ts';
import { Rootfs } from './rootfs.ts';
import type { RunOptions } from './run.ts';

/** Errors of mkdir(2): this process may not write in the directory. */
const deniedCodes = new Set(['EACCES', 'EPERM', 'EROFS']);

/** Where the rootfs is built and how it gets its name: the three cases of DIR. */
export class Destination {
  /** DIR, symlinks followed. */
  readonly target: string;
  /** The directory to write into: a stage, or DIR itself. */
  readonly path: string;
  /** `stage`: a new directory beside DIR. `empty`: DIR, which cannot be replaced. `overlay`: DIR, which has content. */
  readonly mode: RunOptions['mode'];
  /** For the root when no layer has an entry for it; undefined: it keeps its own. */
  readonly root: RootMetadata | undefined;
  /** Of the directory that existed before. */
  readonly ownerBefore: number | undefined;
  readonly #levels: readonly string[];
  /** The stage replaces what is at DIR. */
  #replaces = false;

  private constructor(
    { path: target, stat }: DirectoryLocation,
    workPath: string,
    mode: RunOptions['mode'],
    root: RootMetadata | undefined,
    levels: readonly string[] = [],
  ) {
    this.target = target;
    this.path = workPath;
    this.mode = mode;
    this.root = root;
    this.ownerBefore = stat?.uid;
    this.#levels = levels;
  }

  /**
   * Prepares DIR for writing. What it makes (a stage, missing levels above a new DIR) `discard` removes.
   *
   * @param directory as the user gave it; a symlink to a directory is followed
   * @throws DestinationError when it is not a directory, or cannot be written
   */
  static async open(directory: string): Promise<Destination> {
    return await explainedAsync(directory, async () => {
      const location = await findDirectory(directory);
      const exists = location.stat !== undefined;
      if (exists && !(await isEmpty(location.path))) return await Destination.#inPlace(location, 'overlay');
      if (exists && !location.replaceable) return await Destination.#inPlace(location, 'empty');
      return await Destination.#staged(location);
    });
  }

  /**
   * Prepares a stage for a tree that will replace DIR with its content.
   *
   * @param kept files and directories that must not be in DIR; left out: the caller knows that DIR has none
   * @throws DestinationError when DIR cannot be replaced
   */
  static async replace(directory: string, kept?: readonly ProtectedPath[]): Promise<Destination> {
    return await explainedAsync(directory, async () => {
      const location = await findDirectory(directory);
      if (kept) await refuseReplacement(directory, location, kept);
      const like = kept ? 'new' : 'before';
      const destination = location.replaceable ? await Destination.#staged(location, like) : undefined;
      if (destination?.mode !== 'stage') {
        throw new DestinationError(`${printable(directory)} cannot be replaced by another directory`, {
          code: 'NOT_REPLACEABLE',
          hint: 'it is a mount point, in use, or its parent cannot be written: choose another directory with -d',
        });
      }
      destination.#replaces = kept !== undefined || location.stat !== undefined;
      return destination;
    });
  }

  /**
   * Gives the finished rootfs its name: by one rename(2), where it was built in a stage. Then it removes the earlier directory.
   *
   * @param identity of the root that was written (`Rootfs.identity`): any other directory is refused
   * @returns what could not be removed, and why
   * @throws DestinationError
   */
  async commit(identity: string): Promise<Leftover | undefined> {
    const replaced = this.mode === 'stage' ? await this.#place(identity) : [];
    let leftover: Leftover | undefined;
    for (const old of replaced) {
      await removeReplaced(old).catch((error: unknown) => {
        leftover = { path: old, reason: reasonOf(error) };
      });
    }
    // Once more: a program that a killed run had started may have written on while its stage was removed at the beginning.
    await removeStaleStages(this.target);
    return leftover;
  }

  /**
   * Refuses a DIR that `replace` would refuse, before anything is done.
   *
   * @throws DestinationError
   */
  static async requireReplaceable(directory: string, kept: readonly ProtectedPath[]): Promise<void> {
    await explainedAsync(directory, async () => {
      await refuseReplacement(directory, await findDirectory(directory), kept);
    });
  }

  /** Removes what killed runs have left beside a DIR that this run does not use. A failure is ignored. */
  static async tidy(directory: string): Promise<void> {
    const location = await findDirectory(directory).catch(() => undefined);
    if (location) await removeStaleStages(location.path);
  }

  /** Device and inode of DIR, as `DEVICE:INODE`; undefined where it is not a directory. */
  static async identity(directory: string): Promise<string | undefined> {
    const location = await locate(directory).catch(() => undefined);
    return location?.stat && identityOf(location.path);
  }

  /** Returns where the earlier trees are now. */
  async #place(identity: string): Promise<readonly string[]> {
    return await explainedAsync(this.target, async () => {
      const stat = await lstat(osPath(this.path), { bigint: true });
      if (`${stat.dev}:${stat.ino}` !== identity) {
        throw new DestinationError(`${printable(this.path)} was replaced while it was written`, {
          code: 'SWAPPED',
          hint: 'see who else writes there, or choose another directory with -d',
        });
      }
      if (!this.#replaces) {
        await rename(osPath(this.path), osPath(this.target));
        return [];
      }
      refuseMounts(this.target);
      return replaceDirectory(this.path, this.target, `${this.path}-old`);
    });
  }

  /** Removes the stage and the levels that were made for it. To be called after the Rootfs was discarded. */
  async discard(): Promise<void> {
    if (this.mode === 'stage') await removeStage(this.path, 'empty');
    await removeLevels(this.#levels);
  }

  static async #inPlace(location: DirectoryLocation, mode: 'empty' | 'overlay'): Promise<Destination> {
    await access(osPath(location.path), constants.W_OK | constants.X_OK).catch((error: unknown) => {
      // The owner may enter with any mode.
      if (!hasCode(error, 'EACCES') || location.stat?.uid !== geteuid!()) throw error;
    });
    const root = mode === 'empty' && location.stat ? rootOf(location.stat) : undefined;
    return new Destination(location, location.path, mode, root);
  }

  /** @param like which mode and owner the root has where the image has no entry for it: those of a new directory, or of the one before */
  static async #staged(location: DirectoryLocation, like: 'new' | 'before' = 'before'): Promise<Destination> {
    const { path: target, stat } = location;
    const levels = await makeLevels(path.dirname(target));
    try {
      await removeStaleStages(target);
      const stage = await makeStage(target);
      if (typeof stage !== 'string') {
        if (stat) return await Destination.#inPlace(location, 'empty');
        const above = printable(path.dirname(target));
        const why = stage.denied === 'EROFS' ? `${above} is read-only` : `no right to write in ${above}`;
        throw new DestinationError(`${printable(target)} cannot be made: ${why}`, { code: stage.denied });
      }
      const root = stat && like === 'before' ? rootOf(stat) : { mode: 0o755, uid: undefined, gid: undefined };
      return new Destination(location, stage, 'stage', root, levels);
    } catch (error) {
      await removeLevels(levels);
      throw error;
    }
  }
}

/** A tree that could not be removed. */
export interface Leftover {
  readonly path: string;
  readonly reason: string;
}

/** Finds DIR, and renames it back if a killed run has moved it aside. */
async function findDirectory(directory: string): Promise<DirectoryLocation> {
  const location = await locate(directory);
  if (location.stat !== undefined || !(await isRestored(location.path))) return location;
  return await locate(directory);
}

/**
 * Makes the directory beside `target` in which it is built: `.NAME.dlrootfs-PID-RANDOM`, for its owner alone. Returns why
 * not (EACCES, EPERM, EROFS) where the directory above may not be written.
 *
 * @throws the system's other errors
 */
export async function makeStage(target: string): Promise<string | { readonly denied: string }> {
  const name = `${hiddenName(target)}.dlrootfs-${pid}-${randomBytes(6).toString('hex')}`;
  const stage = path.join(path.dirname(target), name);
  try {
    await mkdir(osPath(stage), 0o700);
    return stage;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (deniedCodes.has(code)) return { denied: code };
    throw error;
  }
}

/**
 * Removes a stage with all that is in it.
 *
 * @param mode `stage`: only when no other run has it; `empty`: this run is known to have made it
 * @throws DestinationError, the system's errors, an Error where something is mounted in it
 */
async function removeStage(stage: string, mode: 'stage' | 'empty'): Promise<void> {
  if (mode === 'empty' && (await isRemoved(stage))) return;
  const { dev, ino } = await lstat(osPath(stage), { bigint: true });
  const inner = mountWithin(stage, readMounts());
  if (inner !== undefined) throw new Error(`${printable(inner)} is mounted in it`);
  const rootfs = await Rootfs.open(stage, { mode, leftover: true, expected: `${dev}:${ino}` });
  await rootfs.discard();
  await rmdir(osPath(stage));
}

/** Removes what was at DIR. Another process may have replaced the directory by another kind of file. */
async function removeReplaced(old: string): Promise<void> {
  const stat = await lstat(osPath(old));
  if (stat.isDirectory()) await removeStage(old, 'empty');
  else await unlink(osPath(old));
}

/** Removes the stage if it is empty; returns whether it no longer exists. */
async function isRemoved(stage: string): Promise<boolean> {
  try {
    await rmdir(osPath(stage));
    return true;
  } catch (error) {
    if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) return false;
    if (hasCode(error, 'ENOENT')) return true;
    throw error;
  }
}

/** Removes the stages and the replaced trees that killed runs have left for `target`. Failures are ignored. */
export async function removeStaleStages(target: string): Promise<void> {
  for (const stage of await staleStages(target)) await removeStage(stage, 'stage').catch(() => undefined);
}

/** Gives `target`, which is missing, to the tree that a killed run has moved aside to put a new one there; returns whether there was one. */
async function isRestored(target: string): Promise<boolean> {
  for (const stage of await staleStages(target)) {
    if (!/-old\d*$/.test(stage)) continue;
    await rename(osPath(stage), osPath(target));
    return true;
  }
  return false;
}

/**
 * Directories beside `target` that are named as stages of it, of processes that are no more (also in another container: a living one holds
 * a lock): this user's, and for root also others' where nobody else can have put them there.
 */
async function staleStages(target: string): Promise<string[]> {
  const stages: string[] = [];
  const pattern = /^\.dlrootfs-(\d+)-[0-9a-f]{12}(?:-old\d*)?$/;
  for (const [stage, [, owner]] of await hiddenBeside(target, pattern)) {
    if (isAlive(Number(owner))) continue;
    const stat = await lstat(osPath(stage)).catch(() => undefined);
    if (stat?.isDirectory() && (await isOurs(stat, path.dirname(target)))) stages.push(stage);
  }
  return stages;
}

/** A replaced tree may belong to any user. A user who may rename in the directory above could give the name of a stage to another directory. */
async function isOurs({ uid }: Stats, above: string): Promise<boolean> {
  if (uid === geteuid!()) return true;
  const { uid: owner, mode } = await lstat(osPath(above));
  return geteuid!() === 0 && (owner === 0 || owner === uid) && (mode & 0o022) === 0;
}

/**
 * The metadata of a root without an entry, when it replaces an empty directory: that directory's mode, and its owner if that is
 * the caller. Otherwise the caller owns it: the root of a system must not belong to one of its users.
 */
function rootOf({ mode, uid, gid }: Stats): RootMetadata {
  const permissions = mode & 0o7777;
  if (uid === geteuid!()) return { mode: permissions, uid, gid };
  // Only root can give a directory away.
  if (geteuid!() !== 0) return { mode: permissions, uid: undefined, gid: undefined };
  return { mode: permissions, uid: geteuid!(), gid: getegid!() };
}

/** Whether a directory has no content, as far as this process may see. A directory that it may not read counts as full. */
async function isEmpty(directory: string): Promise<boolean> {
  try {
    await using handle = await opendir(osPath(directory));
    return (await handle.read()) === null;
  } catch (error) {
    if (hasCode(error, 'EACCES')) return false;
    throw error;
  }
}

/** Makes a directory with all missing ones above it, and returns which, the uppermost first. */
async function makeLevels(directory: string): Promise<string[]> {
  // One by one: Node's recursive mkdir calls a read-only or failing disk ENOENT.
  const missing: string[] = [];
  for (let level = directory; await isMissing(level); level = path.dirname(level)) missing.unshift(level);
  const levels: string[] = [];
  try {
    for (const level of missing) {
      await mkdir(osPath(level));
      levels.push(level);
    }
    return levels;
  } catch (error) {
    await removeLevels(levels);
    // Another run made it first.
    if (hasCode(error, 'EEXIST')) return makeLevels(directory);
    throw error;
  }
}

async function isMissing(directory: string): Promise<boolean> {
  return hasCode(await lstat(osPath(directory)).catch((error: unknown) => error), 'ENOENT');
}

/** Removes directories that are still empty. */
async function removeLevels(levels: readonly string[]): Promise<void> {
  for (const level of levels.toReversed()) await rmdir(osPath(level)).catch(() => undefined);
}

/** By code: why the wanted name is not available. */
const REASONS: Readonly<Record<string, string>> = {
  ENOTEMPTY: 'it was filled by another process in the meantime',
  EEXIST: 'it was made by another process in the meantime',
  ERR_INVALID_ARG_VALUE: 'its name has a zero byte',
  EXDEV: 'its file system does not rename it (EXDEV)',
};

/** Runs `work` on a DIR. @throws DestinationError that explains what the system refuses */
async function explainedAsync<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DlrootfsError) throw error;
    const action = `write ${printable(directory)}`;
    const hint = 'choose another directory with -d';
    const { code = '' } = osErrorOf(error) ?? (error as NodeJS.ErrnoException);
    const reason = REASONS[code];
    if (reason === undefined) throw explainOsError(error, action, hint);
    throw new DestinationError(`cannot ${action}: ${reason}`, { code, hint, cause: error });
  }
}

/**
 * The directory for temporary blobs while DIR is built: on the same disk, beside DIR if that can be written, else in DIR.
 *
 * @throws DestinationError where DIR or its parent is not a directory
 */
export async function spoolPlace(directory: string): Promise<string> {
  const location = await explainedAsync(directory, () => locate(directory));
  let beside = path.dirname(location.path);
  while (!(await canAccess(beside, constants.F_OK)) && beside !== path.dirname(beside))
    beside = path.dirname(beside);
  return utf8Path(location.stat === undefined || (await isWritable(beside)) ? beside : location.path);
}

/** Whether this process can make files in a directory. */
export function isWritable(directory: string): Promise<boolean> {
  return canAccess(directory, constants.W_OK | constants.X_OK);
}

function canAccess(directory: string, mode: number): Promise<boolean> {
  return access(osPath(directory), mode).then(
    () => true,
    () => false,
  );
}
