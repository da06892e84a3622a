import {
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmdirSync,
  type Stats,
} from 'node:fs';
import { platform } from 'node:os';
import path from 'node:path';
import { geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { hasCode } from './os-error.ts';
import { O_PATH, osPath } from './os-path.ts';
import { isInitialUserNamespace } from './privileges.ts';

/** Code of the error for a directory that another user may rename. */
export const EXPOSED_DIRECTORY = 'EXPOSED_DIRECTORY';

/** An open level of a path. */
export interface Level {
  readonly descriptor: number;
  readonly path: string;
  readonly exposedAt: string | undefined;
  /** The name that was made in this level, in a list of made levels. */
  readonly made?: string;
}

/** O_PATH also opens a directory that may be searched but not read. */
export const LEVEL_FLAGS =
  constants.O_NOFOLLOW | constants.O_DIRECTORY | (platform() === 'linux' ? O_PATH : 0);

let hasProc: boolean | undefined;

/** True if /proc has the descriptors of this process. */
export function usesDescriptors(): boolean {
  hasProc ??= platform() === 'linux' && existsSync('/proc/self/fd');
  return hasProc;
}

export function entryPath(
  { descriptor, path: shown }: Pick<Level, 'descriptor' | 'path'>,
  name: string,
): string {
  return usesDescriptors() ? `/proc/self/fd/${descriptor}/${name}` : path.join(shown, name);
}

/** Opens the next level, which must be a directory and not a symlink. */
export function enter(above: Pick<Level, 'descriptor' | 'path' | 'exposedAt'>, name: string): Level {
  const descriptor = openSync(osPath(entryPath(above, name)), LEVEL_FLAGS);
  return { descriptor, path: path.join(above.path, name), exposedAt: exposed(above, fstatSync(descriptor)) };
}

/** Makes a directory; returns false if the name exists. */
export function makeUnlessThere(place: string | Buffer, mode: number): boolean {
  try {
    mkdirSync(place, mode);
    return true;
  } catch (error) {
    // On a read-only disk, mkdir(2) may answer EROFS for an existing directory.
    if (hasCode(error, 'EEXIST') || lstatSync(place, { throwIfNoEntry: false }) !== undefined) return false;
    throw error;
  }
}

/** Removes levels that were made and are empty, the last one first. */
export function removeLevels(made: readonly Level[]): void {
  try {
    for (const level of made.toReversed()) rmdirSync(osPath(entryPath(level, level.made!)));
  } catch {
    // Another process filled or removed it; its parents are not empty then.
  }
}

/** True if both are the same file. */
export function isSameFile(one: Pick<Stats, 'dev' | 'ino'>, other: Pick<Stats, 'dev' | 'ino'>): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** Bits of a mode: the group or others may write. */
export const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

/** True for root of the system. The rights of root in a user namespace end at its own files. */
export function isRoot(): boolean {
  return geteuid!() === 0 && isInitialUserNamespace();
}

export function isTrusted(uid: number): boolean {
  return uid === 0 || uid === geteuid!();
}

/** True if another user than root may rename this entry of a directory. */
export function mayOthersRename(directory: Stats, entry: Pick<Stats, 'uid'>): boolean {
  if (!isTrusted(directory.uid)) return true;
  if ((directory.mode & WRITABLE_BY_OTHERS) === 0) return false;
  return (directory.mode & STICKY) === 0 || !isTrusted(entry.uid);
}

/** Returns `Level.exposedAt` for the level after an entry. */
export function exposed(
  above: Pick<Level, 'descriptor' | 'path' | 'exposedAt'>,
  entry: Pick<Stats, 'uid'>,
): string | undefined {
  if (above.exposedAt !== undefined) return above.exposedAt;
  return mayOthersRename(fstatSync(above.descriptor), entry) ? above.path : undefined;
}

/** @throws DestinationError as root, if another user may rename in a directory of the path */
export function throwIfExposed(exposedAt: string | undefined, whole: string): void {
  if (exposedAt === undefined || !isRoot()) return;
  const shown = printable(exposedAt);
  throw new DestinationError(`cannot use ${printable(whole)}: another user may rename what is in ${shown}`, {
    code: EXPOSED_DIRECTORY,
    hint: usesDescriptors()
      ? 'choose another place'
      : 'mount /proc (mount -t proc proc /proc), or choose another place',
  });
}
