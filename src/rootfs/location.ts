import { realpathSync, type Stats, statSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { unlessCode } from '../sys/os-error.ts';
import { systemText } from '../sys/privileges.ts';
import { osPath, pathBytes, pathText, trustedPath } from '../sys/os-path.ts';
import type { BytePath } from '../tar/entry.ts';
import { unescapeOctal } from '../tar/mtree.ts';

const unlessMissing = unlessCode('ENOENT');
const ELSEWHERE = 'choose another directory with -d';

/** Where a DIR is, symlinks followed. */
export interface DirectoryLocation {
  readonly path: string;
  /** Of the existing directory; undefined when nothing exists. */
  readonly stat: Stats | undefined;
  /** An empty directory there may be replaced by a new one of the same owner with rename(2). */
  readonly replaceable: boolean;
}

/**
 * Finds the place that `directory` names. Its parents need not exist.
 *
 * @throws DestinationError for a file that is not a directory, for the root of the running system, and for a symlink that the kernel would
 * not follow; the system's errors
 */
export async function locate(directory: string): Promise<DirectoryLocation> {
  if (directory === '') throw new DestinationError('the name of the directory is empty', { code: 'ENOENT' });
  const found = await trustedPath(directory);
  const there = await lstat(osPath(found)).catch(unlessMissing);
  if (there === undefined) return { path: found, stat: undefined, replaceable: true };
  if (!there.isDirectory()) {
    throw new DestinationError(`${printable(directory)} is not a directory`, {
      code: 'ENOTDIR',
      hint: `move it away, or ${ELSEWHERE}`,
    });
  }
  const mounts = readMounts();
  await refuseMismatch(directory, found);
  refuseRunningSystem(directory, found, mounts);
  return { path: found, stat: there, replaceable: await isReplaceable(found, there, mounts) };
}

/** How often two names of one directory are compared before they count as two directories. */
const LOOKS = 10;

/** The links of /proc lead to other places than their text says, and so does a working directory that something was mounted over. */
async function refuseMismatch(directory: string, found: string): Promise<void> {
  // Another run may replace the directory between two looks.
  for (let looks = 0; looks < LOOKS; looks += 1) {
    const meant = identityOf(directory);
    if (meant === undefined || meant === identityOf(found)) return;
  }
  if (!directory.startsWith('/') && identityOf('.') !== identityOf(await trustedPath('.'))) {
    throw new DestinationError(
      `cannot use ${printable(directory)}: something was mounted over the working directory`,
      { code: 'UNREACHABLE', hint: `enter it again (cd "$PWD"), or ${ELSEWHERE}` },
    );
  }
  throw new DestinationError(`cannot use ${printable(directory)}: it has no path of its own here`, {
    code: 'UNREACHABLE',
    hint: `it leads through a link of /proc: ${ELSEWHERE}`,
  });
}

/** The root of this process, or of the host's first one, under any name or mount. */
function refuseRunningSystem(directory: string, found: string, mounts: readonly Mount[]): void {
  const [root, mounted] = ['/', found].map((point) => mounts.findLast((mount) => mount.point === point));
  const roots = [identityOf('/'), identityOf('/proc/1/root')];
  const isRoot = roots.includes(identityOf(found)) || (root !== undefined && root.id === mounted?.id);
  if (!isRoot) return;
  throw new DestinationError(`cannot use ${printable(directory)}: it is the root of the running system`, {
    code: 'RUNNING_SYSTEM',
  });
}

/** Device and inode of a file or directory, as `DEVICE:INODE`, links followed; undefined where it may not be seen. */
export function identityOf(place: string): string | undefined {
  try {
    const { dev, ino } = statSync(osPath(place), { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

export interface Mount {
  /** Device, and the directory of it that is mounted: the same for two mounts of the same directory. */
  readonly id: string;
  readonly point: string;
}

/** proc_pid_mountinfo(5); later mounts cover earlier ones. Empty where /proc is not mounted. */
export function readMounts(): Mount[] {
  return systemText('/proc/self/mountinfo')
    .split('\n')
    .map((line) => {
      const [, , device = '', root = '', point = ''] = line.split(' ');
      return { id: `${device} ${root}`, point: pathText(Buffer.from(unescapeOctal(point), 'latin1')) };
    });
}

/** The paths below a directory, relative to it, at which something is mounted; its own symlinks are followed. */
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

/** A mount point, or another file system than the directory above, as in a container without /proc. */
async function isMountPoint(found: string, { dev }: Stats, mounts: readonly Mount[]): Promise<boolean> {
  const above = await lstat(osPath(path.dirname(found)));
  return above.dev !== dev || mounts.some(({ point }) => point === found);
}

/** The first mount point below a directory, if there is one: removing the directory would remove what is mounted. */
export function mountWithin(directory: string, mounts: readonly Mount[]): string | undefined {
  return mounts.find(({ point }) => point.startsWith(`${directory}/`))?.point;
}

async function isReplaceable(found: string, there: Stats, mounts: readonly Mount[]): Promise<boolean> {
  // Processes that work in it would be left in a directory that is gone.
  if (identityOf('.') === identityOf(found)) return false;
  return canGiveOwner(there) && !(await isMountPoint(found, there, mounts));
}

/** Whether this process can give a new directory the owner of this one: only root can give one away. */
function canGiveOwner({ uid, gid }: Stats): boolean {
  return geteuid!() === 0 || (uid === geteuid!() && gid === getegid!());
}

/** A file or directory that must be kept: no directory that contains it is replaced. */
export interface ProtectedPath {
  readonly path: string;
  /** For messages: `the cache`. */
  readonly what: string;
  /** Nothing in it is replaced either. */
  readonly inside?: boolean;
}

/** Directories of a running system (hier(7)). */
const SYSTEM_DIRECTORIES = (
  'bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr usr/bin usr/lib usr/lib64 usr/local usr/sbin usr/share ' +
  'var var/cache var/lib var/log var/spool var/tmp'
).split(' ');

/**
 * Refuses to replace a DIR where that would delete something other than a rootfs.
 *
 * @param directory as the user gave it
 * @throws DestinationError that names the obstacle
 */
export async function refuseReplacement(
  directory: string,
  location: DirectoryLocation,
  kept: readonly ProtectedPath[],
): Promise<void> {
  const found = location.path;
  const refuse = (why: string, hint: string): never => {
    throw notReplaceable(directory, why, hint);
  };
  const system = SYSTEM_DIRECTORIES.map((name) => ({ path: `/${name}`, what: 'a directory of the system' }));
  const places: ProtectedPath[] = [...system, { path: '.', what: 'the working directory' }, ...kept];
  const above = identities(path.dirname(found));
  const own = location.stat && identityOf(found);
  for (const { path: place, what, inside } of places) {
    const level = own === undefined ? -1 : identities(place).indexOf(own);
    if (level >= 0)
      refuse(
        level === 0 ? `it is ${what}` : `${what} is in it`,
        place === '.' ? 'cd to another directory' : ELSEWHERE,
      );
    if (inside === true && above.includes(identityOf(place))) refuse(`it is in ${what}`, ELSEWHERE);
  }
  if (location.stat === undefined) return;
  if (await isMountPoint(found, location.stat, readMounts()))
    refuse('something is mounted there', `unmount it (umount ${printable(found)}), or ${ELSEWHERE}`);
  refuseMounts(found, directory);
  const { uid, gid } = location.stat;
  if (!canGiveOwner(location.stat))
    refuse(`it belongs to user ${uid} and group ${gid}`, `run as root, or ${ELSEWHERE}`);
}

/** @throws DestinationError where something is mounted in a directory that is to be replaced */
export function refuseMounts(found: string, shown = found): void {
  const inner = mountWithin(found, readMounts());
  if (inner === undefined) return;
  const mounted = printable(inner);
  throw notReplaceable(shown, `${mounted} is mounted in it`, `unmount it: umount ${mounted}`);
}

function notReplaceable(directory: string, why: string, hint: string): DestinationError {
  const message = `cannot replace ${printable(directory)}: ${why}`;
  return new DestinationError(message, { code: 'NOT_REPLACEABLE', hint });
}

/** The identities of a place and of all directories above it but the root, symlinks followed; none where it does not exist. */
function identities(place: string): (string | undefined)[] {
  const levels: (string | undefined)[] = [];
  try {
    let level = realPath(place);
    for (; level !== path.dirname(level); level = path.dirname(level)) levels.push(identityOf(level));
  } catch {
    // It does not exist, or this process may not see it.
  }
  return levels;
}
