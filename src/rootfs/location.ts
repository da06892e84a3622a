import { realpathSync, type Stats, statSync } from 'node:fs';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { ANOTHER_DIRECTORY, DestinationError, printable } from '../errors.ts';
import type { OpenOptions } from '../sys/directory-walk.ts';
import { type EntryPlace, identityOf, OpenDirectory } from '../sys/open-directory.ts';
import { hasCode } from '../sys/os-error.ts';
import { systemText } from '../sys/privileges.ts';
import { osPath, pathBytes, pathText } from '../sys/os-path.ts';
import type { BytePath } from '../tar/entry.ts';

/** The place of a DIR, with symlinks followed. */
export interface DirectoryPlace extends EntryPlace, Disposable {
  /** DIR itself; undefined if nothing exists. */
  readonly root: OpenDirectory | undefined;
  /** An empty directory there may be replaced with rename(2) by a new one of the same owner. */
  readonly replaceable: boolean;
}

/**
 * Finds the place that `directory` names, and opens the directory there.
 *
 * @param options.make the mode of missing directories above it, which are made; left out: one of them is
 * ENOENT
 * @throws DestinationError for a file that is not a directory, and for the root of the running system
 * @throws DestinationError for a symlink that another user may have made
 * @throws the system's errors
 */
export function locate(directory: string, options: OpenOptions = {}): DirectoryPlace {
  if (directory === '') throw new DestinationError('the name of the directory is empty', { code: 'ENOENT' });
  const place = OpenDirectory.openParent(directory, options);
  try {
    return lookAt(place, directory);
  } catch (error) {
    place.directory.removeMade();
    place.directory.close();
    throw error;
  }
}

/**
 * Opens the directory at a place. Disposing of the result also closes the one above. `shown` is DIR as the
 * user gave it.
 */
export function lookAt(place: EntryPlace, shown: string): DirectoryPlace {
  const root = openRoot(place, shown);
  return {
    directory: place.directory,
    name: place.name,
    root,
    replaceable: root === undefined || isReplaceable(place, root),
    [Symbol.dispose]: () => {
      root?.close();
      place.directory.close();
    },
  };
}

/**
 * Opens DIR; undefined if nothing exists. `shown` is DIR as the user gave it.
 *
 * @throws DestinationError as `locate`; the system's errors
 */
export function openRoot({ directory, name }: EntryPlace, shown: string): OpenDirectory | undefined {
  let root: OpenDirectory;
  try {
    root = directory.openChild(name);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    if (!hasCode(error, 'ENOTDIR', 'ELOOP')) throw error;
    throw new DestinationError(`${printable(shown)} is not a directory`, {
      code: 'ENOTDIR',
      hint: `move it away, or ${ANOTHER_DIRECTORY}`,
    });
  }
  if (isRunningSystem(root)) {
    root.close();
    throw new DestinationError(`cannot use ${printable(shown)}: it is the root of the running system`, {
      code: 'RUNNING_SYSTEM',
    });
  }
  if (name !== '.') return root;
  root.close();
  throw new DestinationError(
    `cannot use ${printable(shown)}: something was mounted over the working directory`,
    { code: 'UNREACHABLE', hint: `enter it again (cd "$PWD"), or ${ANOTHER_DIRECTORY}` },
  );
}

/** Returns true for the root of this process, or of process 1, under any name or mount. */
function isRunningSystem(root: OpenDirectory): boolean {
  if ([identityOfPlace('/'), identityOfPlace('/proc/1/root')].includes(root.identity)) return true;
  const mounts = readMounts();
  const whole = mounts.findLast(({ point }) => point === '/');
  const own = mounts.find(({ mountID }) => mountID === root.mountID);
  return whole !== undefined && own?.content === whole.content && own.point === root.currentPath;
}

/** Returns `DEVICE:INODE` of a file or directory, following symlinks; undefined if it cannot be seen. */
function identityOfPlace(place: string): string | undefined {
  try {
    return identityOf(statSync(osPath(place), { bigint: true }));
  } catch {
    return undefined;
  }
}

interface Mount {
  /** The same number as `OpenDirectory.mountID`. */
  readonly mountID: string;
  /** Device, and the directory of it that is mounted: equal for two mounts of the same directory. */
  readonly content: string;
  readonly point: string;
}

/** Reads proc_pid_mountinfo(5); later mounts cover earlier ones. Empty if /proc is not mounted. */
function readMounts(): Mount[] {
  return systemText('/proc/self/mountinfo')
    .split('\n')
    .map((line) => {
      const [mountID = '', , device = '', root = '', point = ''] = line.split(' ');
      return {
        mountID,
        content: `${device} ${root}`,
        point: pathText(Buffer.from(unescapeOctal(point), 'latin1')),
      };
    });
}

/** Replaces escapes `\ooo` of proc_pid_mountinfo(5) by their bytes. */
function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Returns the mount points below a directory, relative to it. Symlinks in `directory` are followed. */
export function mountPointsBelow(directory: string): ReadonlySet<BytePath> {
  const found = realPath(directory);
  const start = found === '/' ? found : `${found}/`;
  const points = readMounts().map(({ point }) => point);
  const below = points.filter((point) => point.length > start.length && point.startsWith(start));
  return new Set(below.map((point) => pathBytes(point.slice(start.length)).toString('latin1') as BytePath));
}

function realPath(place: string): string {
  return pathText(realpathSync.native(osPath(place), { encoding: 'buffer' }));
}

/**
 * Returns true for a mount point. Device numbers show most of them also without /proc, as in some containers.
 */
function isMountPoint({ directory }: EntryPlace, root: OpenDirectory): boolean {
  return directory.mountID !== root.mountID || directory.status.dev !== root.status.dev;
}

/** Returns the first mount point below a directory. Removing the directory would remove the files there. */
export function mountWithin(directory: OpenDirectory): string | undefined {
  const start = `${directory.currentPath}/`;
  return readMounts().find(({ point }) => point.startsWith(start))?.point;
}

function isReplaceable(place: EntryPlace, root: OpenDirectory): boolean {
  // Processes that work in it would be left in a removed directory.
  if (identityOfPlace('.') === root.identity) return false;
  return canGiveOwner(root.status) && !isMountPoint(place, root);
}

/** Returns true if this process can give a new directory this owner: only root can give one away. */
function canGiveOwner({ uid, gid }: Stats): boolean {
  return geteuid!() === 0 || (uid === geteuid!() && gid === getegid!());
}

/** A file or directory that must be kept: no directory that contains it is replaced. */
export interface ProtectedPath {
  readonly path: string;
  /** Description in messages: `the cache`. */
  readonly what: string;
  /** Directories inside it are not replaced either. */
  readonly inside?: boolean;
}

/** Directories of a running system (hier(7)). */
const SYSTEM_DIRECTORIES = (
  'bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr usr/bin usr/lib usr/lib64 usr/local usr/sbin usr/share ' +
  'var var/cache var/lib var/log var/spool var/tmp'
).split(' ');

/**
 * Refuses to replace a DIR if that would delete anything but a rootfs.
 *
 * @param shown DIR as the user gave it
 * @throws DestinationError that names the obstacle
 */
export function refuseReplacement(
  { root, ...place }: EntryPlace & Pick<DirectoryPlace, 'root'>,
  shown: string,
  kept: readonly ProtectedPath[],
): void {
  const refuse = (why: string, hint: string): never => {
    throw notReplaceable(shown, why, hint);
  };
  const system = SYSTEM_DIRECTORIES.map((name) => ({ path: `/${name}`, what: 'a directory of the system' }));
  const places: ProtectedPath[] = [...system, { path: '.', what: 'the working directory' }, ...kept];
  const above = identitiesAbove(place.directory);
  const own = root?.identity;
  for (const { path: protectedPath, what, inside } of places) {
    const level = own === undefined ? -1 : identities(protectedPath).indexOf(own);
    if (level >= 0)
      refuse(
        level === 0 ? `it is ${what}` : `${what} is in it`,
        protectedPath === '.' ? 'cd to another directory' : ANOTHER_DIRECTORY,
      );
    if (inside === true && above.includes(identityOfPlace(protectedPath)))
      refuse(`it is in ${what}`, ANOTHER_DIRECTORY);
  }
  if (root === undefined) return;
  if (isMountPoint(place, root)) {
    const mounted = printable(root.path);
    refuse('something is mounted there', `unmount it (umount ${mounted}), or ${ANOTHER_DIRECTORY}`);
  }
  refuseMounts(root, shown);
  const { uid, gid } = root.status;
  if (!canGiveOwner(root.status))
    refuse(`it belongs to user ${uid} and group ${gid}`, `run as root, or ${ANOTHER_DIRECTORY}`);
}

/** @throws DestinationError if there is a mount in a directory that is to be replaced */
function refuseMounts(root: OpenDirectory, shown = root.path): void {
  const inner = mountWithin(root);
  if (inner === undefined) return;
  const mounted = printable(inner);
  throw notReplaceable(shown, `${mounted} is mounted in it`, `unmount it: umount ${mounted}`);
}

function notReplaceable(directory: string, why: string, hint: string): DestinationError {
  const message = `cannot replace ${printable(directory)}: ${why}`;
  return new DestinationError(message, { code: 'NOT_REPLACEABLE', hint });
}

/** Returns the identities of a directory and of all above it. */
function identitiesAbove(directory: OpenDirectory): (string | undefined)[] {
  const levels: (string | undefined)[] = [];
  for (let level = directory.self; ; level += '/..') {
    const identity = identityOfPlace(level);
    // The parent of the system's root is the root itself.
    if (identity === undefined || identity === levels.at(-1)) return levels;
    levels.push(identity);
  }
}

/**
 * Returns the identities of a place and of all directories above it but the root, following symlinks. Empty
 * if the place does not exist.
 */
function identities(place: string): (string | undefined)[] {
  const levels: (string | undefined)[] = [];
  try {
    let level = realPath(place);
    for (; level !== path.dirname(level); level = path.dirname(level)) levels.push(identityOfPlace(level));
  } catch {
    // It does not exist, or this process may not see it.
  }
  return levels;
}
