import { lstatSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';
import { osPath, pathText } from '../sys/os-path.ts';
import { type Location, type Mount, readMounts } from './location.ts';

/** A file or directory that stays where it is: nothing that holds it is replaced. */
export interface Kept {
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
 * Refuses to replace a DIR with all that is in it where that would take away something else than a rootfs.
 *
 * @param directory as the user gave it
 * @throws DestinationError that says what is in the way
 */
export async function refuseReplacement(
  directory: string,
  location: Location,
  kept: readonly Kept[],
): Promise<void> {
  const found = location.path;
  const refuse = (why: string, hint: string): never => {
    throw new DestinationError(`cannot replace ${printable(directory)}: ${why}`, {
      code: 'NOT_REPLACEABLE',
      hint,
    });
  };
  const elsewhere = 'choose another directory with -d';
  const system = SYSTEM_DIRECTORIES.map((name) => ({ path: `/${name}`, what: 'a directory of the system' }));
  const places = [...system, { path: '.', what: 'the working directory' }, ...kept];
  if (location.stat !== undefined) {
    const own = identityOf(found);
    for (const place of places) {
      const level = levelsOf(place.path).findIndex((above) => identityOf(above) === own);
      if (level < 0) continue;
      const advice = place.path === '.' ? 'cd to another directory' : elsewhere;
      refuse(level === 0 ? `it is ${place.what}` : `${place.what} is in it`, advice);
    }
  }
  const above = new Set(levelsOf(path.dirname(found)).map((level) => identityOf(level)));
  for (const place of places) {
    if ('inside' in place && place.inside === true && above.has(identityOf(place.path)))
      refuse(`it is in ${place.what}`, elsewhere);
  }
  if (location.stat === undefined) return;
  const mounts = await readMounts();
  if (isMountPoint(location, mounts))
    refuse('something is mounted there', `unmount it (umount ${printable(found)}), or ${elsewhere}`);
  const inner = mountWithin(found, mounts);
  if (inner !== undefined)
    refuse(`${printable(inner)} is mounted in it`, `unmount it: umount ${printable(inner)}`);
  const { uid, gid } = location.stat;
  if (geteuid!() !== 0 && (uid !== geteuid!() || gid !== getegid!()))
    refuse(`it belongs to user ${uid} and group ${gid}`, `run as root, or ${elsewhere}`);
}

/** The first mount point below a directory, if there is one: removing the directory would remove what is mounted. */
export function mountWithin(directory: string, mounts: readonly Mount[]): string | undefined {
  return mounts.find(({ point }) => point.startsWith(`${directory}/`))?.point;
}

function isMountPoint({ path: found, stat }: Location, mounts: readonly Mount[]): boolean {
  const above = lstatSync(osPath(path.dirname(found)));
  return above.dev !== stat?.dev || mounts.some(({ point }) => point === found);
}

/** A place and all directories above it but the root, symlinks followed; none where it is not there. */
function levelsOf(place: string): string[] {
  let found: string;
  try {
    found = pathText(realpathSync.native(osPath(place), { encoding: 'buffer' }));
  } catch {
    return [];
  }
  const levels: string[] = [];
  for (let level = found; level !== path.dirname(level); level = path.dirname(level)) levels.push(level);
  return levels;
}

/** Device and inode; undefined where it may not be seen. */
function identityOf(place: string): string | undefined {
  const there = statSync(osPath(place), { bigint: true, throwIfNoEntry: false });
  return there && `${there.dev}:${there.ino}`;
}
