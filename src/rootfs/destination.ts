import { accessSync, constants, renameSync } from 'node:fs';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { ANOTHER_DIRECTORY, DestinationError, DlrootfsError, printable } from '../errors.ts';
import type { OpenOptions } from '../sys/directory-walk.ts';
import { type EntryPlace, OpenDirectory } from '../sys/open-directory.ts';
import { explainOsError, hasCode, osErrorOf, reasonOf } from '../sys/os-error.ts';
import { osPath, utf8Path } from '../sys/os-path.ts';
import { type DirectoryPlace, locate, lookAt, type ProtectedPath, refuseReplacement } from './location.ts';
import type { RootMetadata } from './directory-metadata.ts';
import { type Replaced, replaceDirectory, type Replacement } from './replacement.ts';
import type { RunOptions } from './run.ts';
import {
  contentOf,
  makeStage,
  notEmpty,
  removeReplaced,
  removeStaleStages,
  removeTree,
  restoreMoved,
  swapped,
} from './stage.ts';

/** Mode of missing directories above DIR, less the umask. */
const LEVEL_MODE = 0o777;

/** The parts of a Destination. */
interface Prepared {
  readonly root: OpenDirectory;
  readonly mode: RunOptions['mode'];
  readonly metadata: RootMetadata | undefined;
  /** The name of the stage beside DIR; undefined: DIR is written in place. */
  readonly stage?: string;
}

/**
 * The directory that the rootfs is written to: a stage, an empty DIR, or a DIR with files. DIR's parent and
 * the directory to write into are each opened once; all names are resolved from them.
 */
export class Destination implements Disposable {
  /** The directory to write into: a stage, or DIR itself. */
  readonly root: OpenDirectory;
  /**
   * `stage`: a new directory beside DIR. `empty`: DIR, which cannot be replaced. `overlay`: DIR, which has
   * files.
   */
  readonly mode: RunOptions['mode'];
  /** Metadata of the root when no layer has an entry for it; undefined: it keeps its own. */
  readonly metadata: RootMetadata | undefined;
  /** Owner of the directory that existed before. */
  readonly ownerBefore: number | undefined;
  /** DIR's parent directory, and DIR's name in it. */
  readonly #place: EntryPlace;
  readonly #stage: string | undefined;
  /** The existing DIR to replace; undefined: the stage can only replace an empty directory. */
  readonly #replacement: Replacement | undefined;

  private constructor(
    { directory, name, root: before }: DirectoryPlace,
    { root, mode, metadata, stage }: Prepared,
    replacement?: Replacement,
  ) {
    this.#place = { directory, name };
    this.ownerBefore = before?.status.uid;
    this.root = root;
    this.mode = mode;
    this.metadata = metadata;
    this.#stage = stage;
    this.#replacement = replacement;
    if (before !== root) before?.close();
  }

  /** DIR with symlinks followed, for messages. */
  get target(): string {
    return this.#place.directory.shown(this.#place.name);
  }

  /**
   * Prepares DIR for writing. It may make a stage and missing levels above a new DIR; `discard` removes them.
   *
   * @param directory as the user gave it; a symlink to a directory is followed
   * @param merge write over existing files
   * @throws DestinationError if it is not a directory, has files, or cannot be written
   */
  static async open(directory: string, merge = false): Promise<Destination> {
    return await withLocation(directory, async (location) => {
      const { root, replaceable } = location;
      const content = contentOf(root);
      if (content === 'files' && !merge) throw notEmpty(directory);
      if (root && content === 'files') return new Destination(location, inPlace(root, 'overlay'));
      const isFixed = content === 'lost+found' || !replaceable;
      if (root && isFixed) return new Destination(location, inPlace(root, 'empty'));
      return new Destination(location, await staged(location, metadataOf(root)));
    });
  }

  /**
   * Prepares a stage for a tree that will replace DIR with its content.
   *
   * @param kept files and directories that must not be in DIR
   * @throws DestinationError if DIR cannot be replaced
   */
  static async replace(directory: string, kept: readonly ProtectedPath[]): Promise<Destination> {
    return await withLocation(directory, async (location) => {
      const { root, replaceable } = location;
      refuseReplacement(location, directory, kept);
      const prepared = replaceable ? await staged(location, metadataOf(undefined)) : undefined;
      if (prepared?.mode === 'stage') {
        const replacement = { identity: root?.identity, kept };
        return new Destination(location, prepared, replacement);
      }
      throw new DestinationError(`${printable(directory)} cannot be replaced by another directory`, {
        code: 'NOT_REPLACEABLE',
        hint: 'choose another directory with -d: this one is a mount point, in use, or in a directory that you cannot write',
      });
    });
  }

  /**
   * Gives a rootfs built in a stage the name of DIR, and removes the directory that it replaces.
   *
   * @param identity of the root that was written (`Rootfs.identity`): any other directory is refused
   * @returns the tree that could not be removed, and the reason
   * @throws DestinationError
   */
  async commit(identity: string): Promise<Leftover | undefined> {
    const { directory } = this.#place;
    const stage = this.#stage;
    const replaced =
      stage === undefined ? [] : namingDirectory(this.target, () => this.#giveName(stage, identity));
    let leftover: Leftover | undefined;
    for (const { name, identity: old } of replaced) {
      await removeReplaced({ directory, name }, old).catch((error: unknown) => {
        leftover = { path: directory.shown(name), reason: reasonOf(error) };
      });
    }
    // A program that a killed run started may have written on while that run's stage was removed.
    await removeStaleStages(this.#place);
    return leftover;
  }

  /**
   * Refuses a DIR that `replace` would refuse, before anything is done.
   *
   * @throws DestinationError
   */
  static requireReplaceable(directory: string, kept: readonly ProtectedPath[]): void {
    try {
      using location = findDirectory(directory);
      refuseReplacement(location, directory, kept);
    } catch (error) {
      // Neither DIR nor its parent exists, so nothing would be replaced.
      if (!hasCode(error, 'ENOENT')) throw explanation(directory, error);
    }
  }

  /**
   * Refuses a DIR that `open` would refuse for its files, before anything is done. @throws DestinationError
   */
  static requireEmpty(directory: string): void {
    try {
      using location = findDirectory(directory);
      if (contentOf(location.root) === 'files') throw notEmpty(directory);
    } catch (error) {
      // DIR's parent does not exist either.
      if (!hasCode(error, 'ENOENT')) throw explanation(directory, error);
    }
  }

  /**
   * Removes the stages that killed runs left beside a DIR that this run does not use. Failures are ignored.
   */
  static async tidy(directory: string): Promise<void> {
    try {
      using location = findDirectory(directory);
      await removeStaleStages(location);
    } catch {
      // The next run tries again.
    }
  }

  /** Opens an existing DIR; undefined if that fails or it is not a directory. */
  static openExisting(directory: string): OpenDirectory | undefined {
    try {
      return OpenDirectory.open(directory);
    } catch {
      return undefined;
    }
  }

  /** Removes the stage and the levels made for it. Discard the Rootfs first. */
  async discard(): Promise<void> {
    const { directory } = this.#place;
    try {
      if (this.#stage !== undefined) await removeTree({ directory, name: this.#stage }, this.root, 'empty');
    } finally {
      directory.removeMade();
    }
  }

  [Symbol.dispose](): void {
    this.root.close();
    this.#place.directory.close();
  }

  /** Renames the stage to DIR, and returns the trees that were there, with their names now. */
  #giveName(stage: string, identity: string): readonly Replaced[] {
    const { directory, name } = this.#place;
    if (directory.identityOf(stage) !== identity) throw swapped(directory.shown(stage));
    if (this.#replacement) return replaceDirectory(this.#place, stage, identity, this.#replacement);
    renameSync(directory.at(stage), directory.at(name));
    return [];
  }
}

/** A tree that could not be removed. */
export interface Leftover {
  readonly path: string;
  readonly reason: string;
}

/**
 * Calls `work` with the location of DIR. If it fails, the location is closed and the missing levels that were
 * made above DIR are removed.
 */
async function withLocation<T>(
  directory: string,
  work: (location: DirectoryPlace) => Promise<T>,
): Promise<T> {
  let location: DirectoryPlace | undefined;
  try {
    location = findDirectory(directory, { make: LEVEL_MODE });
    return await work(location);
  } catch (error) {
    location?.directory.removeMade();
    location?.[Symbol.dispose]();
    throw explanation(directory, error);
  }
}

/** Finds DIR, and renames it back if a killed run has moved it aside. */
function findDirectory(directory: string, options?: OpenOptions): DirectoryPlace {
  const location = locate(directory, options);
  if (location.root !== undefined || !restoreMoved(location)) return location;
  return { ...location, ...lookAt(location, directory) };
}

function inPlace(root: OpenDirectory, mode: 'empty' | 'overlay'): Prepared {
  try {
    accessSync(osPath(root.self), constants.W_OK | constants.X_OK);
  } catch (error) {
    // The owner may enter with any mode.
    if (!hasCode(error, 'EACCES') || root.status.uid !== geteuid!()) throw error;
  }
  return { root, mode, metadata: mode === 'empty' ? metadataOf(root) : undefined };
}

/** Makes a stage with `metadata`. Where nothing can be made beside an empty DIR, DIR itself is used. */
async function staged(location: DirectoryPlace, metadata: RootMetadata): Promise<Prepared> {
  const { root, directory, name } = location;
  await removeStaleStages(location);
  const stage = makeStage(location);
  if (!('denied' in stage)) return { root: stage.root, mode: 'stage', metadata, stage: stage.name };
  if (root) return inPlace(root, 'empty');
  const above = printable(directory.path);
  const why = stage.denied === 'EROFS' ? `${above} is read-only` : `no right to write in ${above}`;
  throw new DestinationError(`${printable(directory.shown(name))} cannot be made: ${why}`, {
    code: stage.denied,
  });
}

/**
 * Returns the metadata of a root without an entry. It has the mode of the directory that it replaces. It
 * keeps that directory's owner only if this is the caller; otherwise the caller owns it. The root of a system
 * must not belong to one of its users.
 */
function metadataOf(before: OpenDirectory | undefined): RootMetadata {
  if (before === undefined) return { mode: 0o755, uid: undefined, gid: undefined };
  const { mode, uid, gid } = before.status;
  const permissions = mode & 0o7777;
  if (uid === geteuid!()) return { mode: permissions, uid, gid };
  // Only root can give a directory away.
  if (geteuid!() !== 0) return { mode: permissions, uid: undefined, gid: undefined };
  return { mode: permissions, uid: geteuid!(), gid: getegid!() };
}

/** Reasons, by error code, why the wanted name is not available. */
const NAMING_REASONS: Readonly<Record<string, string>> = {
  ENOTEMPTY: 'it was filled by another process in the meantime',
  EEXIST: 'it was made by another process in the meantime',
  ERR_INVALID_ARG_VALUE: 'its name has a zero byte',
  EXDEV: 'its file system does not rename it (EXDEV)',
};

/** Runs `work` on a DIR. @throws DestinationError that explains an error of the system */
function namingDirectory<T>(directory: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw explanation(directory, error);
  }
}

/** Returns a DestinationError that explains an error of the system. */
function explanation(directory: string, error: unknown): unknown {
  if (error instanceof DlrootfsError) return error;
  const action = `write ${printable(directory)}`;
  const hint = ANOTHER_DIRECTORY;
  const { code = '' } = osErrorOf(error) ?? (error as NodeJS.ErrnoException);
  const reason = NAMING_REASONS[code];
  if (reason === undefined) return explainOsError(error, action, hint);
  return new DestinationError(`cannot ${action}: ${reason}`, { code, hint, cause: error });
}

/**
 * Returns the directory for temporary blobs while DIR is built, on the same disk. If DIR exists and the
 * directory above is not writable, it is DIR; else the nearest existing one above.
 *
 * @throws DestinationError if DIR or its parent is not a directory
 */
export function spoolPlace(directory: string): string {
  return namingDirectory(directory, () => {
    try {
      using location = locate(directory);
      const { root, directory: beside } = location;
      return utf8Path(root === undefined || isWritable(beside.self) ? beside.path : root.path);
    } catch (error) {
      if (!hasCode(error, 'ENOENT') || directory === path.dirname(directory)) throw error;
      return spoolPlace(path.dirname(directory));
    }
  });
}

/** Returns true if this process can make files in a directory. */
export function isWritable(directory: string): boolean {
  try {
    accessSync(osPath(directory), constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
