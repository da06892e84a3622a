import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  type Stats,
  statSync,
} from 'node:fs';
import path from 'node:path';
import { geteuid } from 'node:process';
import { ANOTHER_DIRECTORY, DestinationError, printable } from '../errors.ts';
import {
  enter,
  entryPath,
  exposed,
  LEVEL_FLAGS,
  isRoot,
  isSameFile,
  isTrusted,
  type Level,
  makeUnlessThere,
  mayOthersRename,
  removeLevels,
  throwIfExposed,
  usesDescriptors,
  WRITABLE_BY_OTHERS,
} from './level.ts';
import { SyscallError } from './os-error.ts';
import { absolutePath, MAX_TARGET_BYTES, MAX_SYMLINKS, O_PATH, osPath, pathText } from './os-path.ts';
import { systemCalls } from './system-calls.ts';

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
  /** The last name, if the walk had to stop before it; `.` for a directory without a name. */
  readonly last: string | undefined;
}

/**
 * Opens the levels of a path.
 *
 * @param stop before the last name: `real`, after following its symlinks; `last`, without following. Default:
 * after it
 */
export function walk(whole: string, options: OpenOptions, stop: 'real' | 'last' | undefined): Walked {
  return new PathWalk(whole, options).run(stop);
}

/** A walk down a path, level by level. */
class PathWalk {
  /** The path as the user gave it. */
  readonly #whole: string;
  readonly #options: OpenOptions;
  /** Refuses a place that another user may rename. */
  readonly #isCareful: boolean;
  #here: Level;
  /** The names to walk from `#here`. */
  #pending: string[];
  /** The levels above those that were made, which stay open. */
  readonly #made: Level[] = [];
  #links = 0;
  /** The links of other users whose targets are not reached yet. */
  #foreign: ForeignLink[] = [];

  constructor(whole: string, options: OpenOptions) {
    this.#whole = whole;
    this.#options = options;
    this.#isCareful = options.refuseExposed === true || !usesDescriptors();
    // A careful walk also checks the directories above the working directory.
    const isAbsolute = whole.startsWith('/') || this.#isCareful;
    this.#pending = componentsOf(
      isAbsolute && !whole.startsWith('/') ? `${absolutePath('.')}/${whole}` : whole,
    );
    this.#here = root(isAbsolute ? '/' : '.', isAbsolute ? '/' : absolutePath('.'));
  }

  run(stop: 'real' | 'last' | undefined): Walked {
    try {
      return this.#descend(stop);
    } catch (error) {
      removeLevels(this.#made);
      // After a failure in a level that was just made, `#here` is the level above it.
      const open = new Set([...this.#made, this.#here].map(({ descriptor }) => descriptor));
      for (const descriptor of open) closeSync(descriptor);
      throw error;
    }
  }

  #descend(stop: 'real' | 'last' | undefined): Walked {
    for (let name = this.#next(); name !== undefined; name = this.#next()) {
      const isLast = this.#pending.length === 0;
      if (name === '..') this.#climb();
      else if (!(isLast && stop === 'last') && this.#follow(name)) continue;
      else if (this.#pending.includes('..') && isMissing(this.#here, name))
        this.#pending = componentsOf(path.normalize([name, ...this.#pending].join('/')));
      else if (isLast && stop !== undefined) return this.#stopBefore(name);
      else if (this.#options.make === undefined) this.#move(enter(this.#here, name));
      else this.#make(name, this.#options.make);
    }
    if (this.#isCareful) throwIfExposed(this.#here.exposedAt, this.#whole);
    if (stop !== undefined) return this.#stopAtOwnName();
    return { here: this.#here, made: this.#made, last: undefined };
  }

  /** Takes the next name, after checking the links whose targets are reached. */
  #next(): string | undefined {
    this.#arrive(() => this.#ownerHere());
    return this.#pending.shift();
  }

  /** Checks the links of other users whose targets have no more names to walk. */
  #arrive(owner: () => number): void {
    this.#foreign = this.#foreign.filter((link) => {
      if (this.#pending.length > link.rest) return true;
      if (link.uid !== owner()) throw leadsElsewhere(link, this.#whole);
      return false;
    });
  }

  #ownerHere(): number {
    return fstatSync(this.#here.descriptor).uid;
  }

  #move(next: Level): void {
    closeSync(this.#here.descriptor);
    this.#here = next;
  }

  #climb(): void {
    const descriptor = openSync(osPath(entryPath(this.#here, '..')), LEVEL_FLAGS);
    this.#move({ ...this.#here, descriptor, path: path.dirname(this.#here.path) });
  }

  /** Puts the target of a symlink before the names to walk. Returns false for anything else. */
  #follow(name: string): boolean {
    const here = this.#here;
    const { trustLinks = false } = this.#options;
    const link = symlinkAt(here, name, this.#whole, trustLinks);
    if (link === undefined) return false;
    this.#links += 1;
    if (this.#links > MAX_SYMLINKS) throw tooManyLinks(this.#whole);
    refuseProcLink(here, name, link, this.#whole);
    const { uid } = link.stat;
    if (!trustLinks && isRoot() && !isTrusted(uid) && !isTrusted(this.#ownerHere()))
      this.#foreign.push({ uid, shown: path.join(here.path, name), rest: this.#pending.length });
    const exposedAt = exposed(here, link.stat);
    if (link.target.startsWith('/')) this.#move(root('/', '/'));
    this.#here = { ...this.#here, exposedAt };
    this.#pending.unshift(...componentsOf(link.target));
    return true;
  }

  #stopBefore(name: string): Walked {
    const here = this.#here;
    if (this.#isCareful) throwIfExposed(here.exposedAt, this.#whole);
    const found = lstatSync(osPath(entryPath(here, name)), { throwIfNoEntry: false });
    this.#arrive(() => found?.uid ?? this.#ownerHere());
    return { here, made: this.#made, last: name };
  }

  /**
   * Goes to the directory above the one that was reached, by `..` or by a link to a root. The last name is
   * the reached one's; `.` without going there if it has no name.
   */
  #stopAtOwnName(): Walked {
    const here = this.#here;
    const own = path.basename(here.path);
    const descriptor = openSync(osPath(entryPath(here, '..')), LEVEL_FLAGS);
    const above = { ...here, descriptor, path: path.dirname(here.path) };
    const found =
      own === '' ? undefined : lstatSync(osPath(entryPath(above, own)), { throwIfNoEntry: false });
    if (found === undefined || !isSameFile(found, fstatSync(here.descriptor))) {
      closeSync(descriptor);
      return { here, made: this.#made, last: '.' };
    }
    this.#move(above);
    return { here: above, made: this.#made, last: own };
  }

  /** Opens the next level, and makes it first if it is missing. */
  #make(name: string, mode: number): void {
    const here = this.#here;
    // Checked before anything is made there.
    if (this.#isCareful) throwIfExposed(exposed(here, { uid: geteuid!() }), this.#whole);
    if (!makeUnlessThere(osPath(entryPath(here, name)), mode)) return this.#move(enter(here, name));
    this.#made.push({ ...here, made: name });
    this.#here = enter(here, name);
  }
}

function componentsOf(name: string): string[] {
  return name.split('/').filter((part) => part !== '' && part !== '.');
}

function root(name: string, shown: string): Level {
  return { descriptor: openSync(name, LEVEL_FLAGS), path: shown, exposedAt: undefined };
}

function isMissing(above: Level, name: string): boolean {
  return lstatSync(osPath(entryPath(above, name)), { throwIfNoEntry: false }) === undefined;
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
    const target = Buffer.alloc(MAX_TARGET_BYTES);
    const length = calls.readlinkat(descriptor, calls.address(empty), calls.address(target), target.length);
    if (length < 0)
      throw new SyscallError(length, `read the symlink ${printable(path.join(above.path, name))}`);
    return { stat, target: pathText(target.subarray(0, length)) };
  } finally {
    closeSync(descriptor);
  }
}

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
  return new DestinationError(`cannot use ${printable(whole)}: it has more than ${MAX_SYMLINKS} symlinks`, {
    code: 'ELOOP',
    hint: `remove the symlinks that lead to each other, or ${ANOTHER_DIRECTORY}`,
  });
}
