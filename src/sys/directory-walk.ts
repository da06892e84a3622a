import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  rmdirSync,
  type Stats,
  statSync,
} from 'node:fs';
import { platform } from 'node:os';
import path from 'node:path';
import { geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { hasCode, SyscallError } from './os-error.ts';
import { absolutePath, LONGEST_TARGET, MAX_LINKS, O_PATH, osPath, pathText } from './os-path.ts';
import { isInitialUserNamespace } from './privileges.ts';
import { systemCalls } from './system-calls.ts';

/** Code of the error for a directory that another user may rename. */
export const EXPOSED_DIRECTORY = 'EXPOSED_DIRECTORY';

/** Options for opening a directory. */
export interface OpenOptions {
  /** Makes missing levels with this mode, less the umask. Default: a missing level is ENOENT. */
  readonly make?: number;
  /**
   * Refuses, as root, a place that another user may rename: see `OpenDirectory.exposedAt`. Nothing is made
   * there.
   */
  readonly refuseExposed?: boolean;
  /** True if nothing will be written or removed there: symlinks of all users are followed. */
  readonly trustLinks?: boolean;
}

/** An open level of a path. */
export interface Level {
  readonly descriptor: number;
  readonly path: string;
  readonly exposedAt: string | undefined;
  /** The name that was made in this level, in a list of made levels. */
  readonly made?: string;
}

interface Link {
  readonly stat: Stats;
  readonly target: string;
}

/** A symlink of another user, in a directory of another user, that root has followed. */
interface ForeignLink {
  readonly uid: number;
  readonly shown: string;
  /** The number of names that remain after those of its target. */
  readonly rest: number;
}

interface Walked {
  readonly here: Level;
  readonly made: readonly Level[];
  /** The last name, if the walk had to stop before it. */
  readonly last: string | undefined;
}

/** O_PATH also opens a directory that may be searched but not read. */
export const FLAGS = constants.O_NOFOLLOW | constants.O_DIRECTORY | (platform() === 'linux' ? O_PATH : 0);

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

/**
 * Opens the levels of a path.
 *
 * @param stop before the last name: `real`, after following its symlinks; `last`, without following. Default:
 * after it
 */
export function walk(
  whole: string,
  { make, refuseExposed = false, trustLinks = false }: OpenOptions,
  stop: 'real' | 'last' | undefined,
): Walked {
  const refuse = refuseExposed || !usesDescriptors();
  // Then the directories above the working directory are checked too.
  const isAbsolute = whole.startsWith('/') || refuse;
  let here = root(isAbsolute ? '/' : '.', isAbsolute ? '/' : absolutePath('.'));
  const made: Level[] = [];
  const move = (next: Level) => {
    closeSync(here.descriptor);
    here = next;
  };
  let pending = componentsOf(isAbsolute && !whole.startsWith('/') ? `${absolutePath('.')}/${whole}` : whole);
  let links = 0;
  let foreign: ForeignLink[] = [];
  /** Checks the targets of other users' links, once all names of a target are walked. */
  const arrive = (owner: () => number) => {
    foreign = foreign.filter((link) => {
      if (pending.length > link.rest) return true;
      if (link.uid !== owner()) throw leadsElsewhere(link, whole);
      return false;
    });
  };
  const ownerHere = () => fstatSync(here.descriptor).uid;
  try {
    for (;;) {
      arrive(ownerHere);
      const name = pending.shift();
      if (name === undefined) break;
      if (name === '..') {
        const descriptor = openSync(osPath(entryPath(here, '..')), FLAGS);
        move({ ...here, descriptor, path: path.dirname(here.path) });
        continue;
      }
      const isLast = pending.length === 0;
      const link = isLast && stop === 'last' ? undefined : symlinkAt(here, name, whole, trustLinks);
      if (link !== undefined) {
        links += 1;
        if (links > MAX_LINKS) throw tooManyLinks(whole);
        refuseProcLink(here, name, link, whole);
        const { uid } = link.stat;
        if (!trustLinks && isRoot() && !isTrusted(uid) && !isTrusted(ownerHere()))
          foreign.push({ uid, shown: path.join(here.path, name), rest: pending.length });
        const exposedAt = exposed(here, link.stat);
        if (link.target.startsWith('/')) move(root('/', '/'));
        here = { ...here, exposedAt };
        pending.unshift(...componentsOf(link.target));
      } else if (pending.includes('..') && isMissing(here, name)) {
        pending = componentsOf(path.normalize([name, ...pending].join('/')));
      } else if (isLast && stop !== undefined) {
        if (refuse) throwIfExposed(here.exposedAt, whole);
        const found = lstatSync(osPath(entryPath(here, name)), { throwIfNoEntry: false });
        arrive(() => found?.uid ?? ownerHere());
        return { here, made, last: name };
      } else if (make === undefined) {
        move(enter(here, name));
      } else {
        // Checked before anything is made there.
        if (refuse) throwIfExposed(exposed(here, { uid: geteuid!() }), whole);
        const isMade = makeUnlessThere(osPath(entryPath(here, name)), make);
        if (isMade) made.push({ ...here, made: name });
        if (isMade) here = enter(here, name);
        else move(enter(here, name));
      }
    }
    if (refuse) throwIfExposed(here.exposedAt, whole);
    return { here, made, last: undefined };
  } catch (error) {
    removeLevels(made);
    for (const { descriptor } of new Set([...made, here])) closeSync(descriptor);
    throw error;
  }
}

function componentsOf(name: string): string[] {
  return name.split('/').filter((part) => part !== '' && part !== '.');
}

function root(name: string, shown: string): Level {
  return { descriptor: openSync(name, FLAGS), path: shown, exposedAt: undefined };
}

/** Opens the next level, which must be a directory and not a symlink. */
export function enter(above: Pick<Level, 'descriptor' | 'path' | 'exposedAt'>, name: string): Level {
  const descriptor = openSync(osPath(entryPath(above, name)), FLAGS);
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

function isMissing(above: Level, name: string): boolean {
  return lstatSync(osPath(entryPath(above, name)), { throwIfNoEntry: false }) === undefined;
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

/**
 * Returns the symlink at a name, with its target; undefined for anything else. Both are read by one
 * descriptor, so that the checked link is the one that is read.
 *
 * @throws DestinationError for a link of another user
 */
function symlinkAt(above: Level, name: string, whole: string, trustLinks: boolean): Link | undefined {
  const place = osPath(entryPath(above, name));
  const found = lstatSync(place, { throwIfNoEntry: false });
  if (found?.isSymbolicLink() !== true) return undefined;
  const calls = systemCalls();
  if (!calls) {
    if (!trustLinks) refuseForeignLink(above, name, found, whole);
    // Another user could exchange it before it is read.
    if (!trustLinks && isRoot() && mayOthersRename(fstatSync(above.descriptor), found))
      throw foreignLink(above, name, found, whole);
    return { stat: found, target: pathText(readlinkSync(place, { encoding: 'buffer' })) };
  }
  const descriptor = openSync(place, O_PATH | constants.O_NOFOLLOW);
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isSymbolicLink()) return undefined;
    if (!trustLinks) refuseForeignLink(above, name, stat, whole);
    const empty = Buffer.of(0);
    const target = Buffer.alloc(LONGEST_TARGET);
    const length = calls.readlinkat(descriptor, calls.address(empty), calls.address(target), target.length);
    if (length < 0)
      throw new SyscallError(length, `read the symlink ${printable(path.join(above.path, name))}`);
    return { stat, target: pathText(target.subarray(0, length)) };
  } finally {
    closeSync(descriptor);
  }
}

/** Bits of a mode: the group or others may write. */
export const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

/**
 * Refuses symlinks in directories that others may write, except those of the caller, of root and of the
 * directory's owner. This is the rule of `protected_symlinks` (proc_sys_fs(5)), independent of this system's
 * setting, and for directories without the sticky bit too.
 *
 * @throws DestinationError
 */
function refuseForeignLink(above: Level, name: string, link: Stats, whole: string): void {
  const directory = fstatSync(above.descriptor);
  if ((directory.mode & WRITABLE_BY_OTHERS) === 0) return;
  if ([geteuid!(), 0, directory.uid].includes(link.uid)) return;
  throw foreignLink(above, name, link, whole);
}

function foreignLink(above: Level, name: string, { uid }: Stats, whole: string): DestinationError {
  const shown = printable(path.join(above.path, name));
  return new DestinationError(
    `cannot use ${printable(whole)}: ${shown} is a symlink of user ${uid} in a directory that others may write`,
    { code: 'FOREIGN_SYMLINK', hint: `remove it (rm ${shown}), or choose another place` },
  );
}

/**
 * Returns the error for a symlink of another user that leads to a file of a third one. In directories that
 * another user may write, links may lead only to files of the same user: otherwise root would write where
 * that user cannot. systemd has the same rule (`CHASE_SAFE`).
 */
function leadsElsewhere({ uid, shown }: ForeignLink, whole: string): DestinationError {
  return new DestinationError(
    `cannot use ${printable(whole)}: ${printable(shown)} is a symlink of user ${uid} to what belongs to another user`,
    { code: 'FOREIGN_SYMLINK', hint: 'name the place itself that it leads to, or choose another one' },
  );
}

/**
 * Refuses a link in /proc that leads elsewhere than its text says.
 *
 * @throws DestinationError
 */
function refuseProcLink(above: Level, name: string, { stat, target }: Link, whole: string): void {
  if (stat.dev !== statSync('/proc', { throwIfNoEntry: false })?.dev) return;
  const meant = statSync(osPath(entryPath(above, name)), { throwIfNoEntry: false });
  const found = statSync(osPath(path.resolve(above.path, target)), { throwIfNoEntry: false });
  if (meant?.isDirectory() !== true || (found !== undefined && isSameFile(meant, found))) return;
  throw new DestinationError(`cannot use ${printable(whole)}: it has no path of its own here`, {
    code: 'UNREACHABLE',
    hint: 'it leads through a link of /proc: choose another place',
  });
}

function tooManyLinks(whole: string): DestinationError {
  return new DestinationError(`cannot use ${printable(whole)}: it has more than ${MAX_LINKS} symlinks`, {
    code: 'ELOOP',
    hint: 'remove the symlinks that lead to each other, or choose another directory with -d',
  });
}

/** True for root of the system. The rights of root in a user namespace end at its own files. */
function isRoot(): boolean {
  return geteuid!() === 0 && isInitialUserNamespace();
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === geteuid!();
}

/** True if another user than root may rename this entry of a directory. */
export function mayOthersRename(directory: Stats, entry: Pick<Stats, 'uid'>): boolean {
  if (!isTrusted(directory.uid)) return true;
  if ((directory.mode & WRITABLE_BY_OTHERS) === 0) return false;
  return (directory.mode & STICKY) === 0 || !isTrusted(entry.uid);
}

/** Returns `Level.exposedAt` for the level after an entry. */
function exposed(
  above: Pick<Level, 'descriptor' | 'path' | 'exposedAt'>,
  entry: Pick<Stats, 'uid'>,
): string | undefined {
  if (above.exposedAt !== undefined) return above.exposedAt;
  return mayOthersRename(fstatSync(above.descriptor), entry) ? above.path : undefined;
}

/** @throws DestinationError as root, if another user may rename in a directory of the path */
function throwIfExposed(exposedAt: string | undefined, whole: string): void {
  if (exposedAt === undefined || !isRoot()) return;
  const shown = printable(exposedAt);
  throw new DestinationError(`cannot use ${printable(whole)}: another user may rename what is in ${shown}`, {
    code: EXPOSED_DIRECTORY,
    hint: usesDescriptors()
      ? 'choose another place'
      : 'mount /proc (mount -t proc proc /proc), or choose another place',
  });
}
