import type { Stats } from 'node:fs';
import { lstat, readFile, readlink, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { DestinationError, printable } from '../errors.ts';

/** Where a DIR is, symlinks followed. */
export interface Location {
  readonly path: string;
  /** Of the directory that is there; undefined when nothing is. */
  readonly stat: Stats | undefined;
  /** An empty directory there may give way to a new one of the same owner by rename(2). */
  readonly replaceable: boolean;
}

const mostLinks = 40;

/**
 * Finds the place that `directory` names. Its parents need not be there.
 *
 * @throws DestinationError where something that is no directory has the name; the system's errors
 */
export async function locate(directory: string): Promise<Location> {
  if (directory === '') throw new DestinationError('the name of the directory is empty', { code: 'ENOENT' });
  let name = directory;
  for (let links = 0; links < mostLinks; links++) {
    const found = await realpath(name).catch(unlessMissing);
    if (found !== undefined) return locateExisting(directory, found);
    const link = await readlink(name).catch(() => undefined);
    if (link === undefined) return { path: await resolveMissing(name), stat: undefined, replaceable: true };
    name = path.resolve(path.dirname(name), link);
  }
  throw new DestinationError(`${printable(directory)} is a symlink that leads nowhere`, {
    code: 'ELOOP',
    hint: 'remove it, or choose another directory with -d',
  });
}

async function locateExisting(directory: string, found: string): Promise<Location> {
  const there = await stat(found);
  if (!there.isDirectory()) {
    throw new DestinationError(`${printable(directory)} is not a directory`, {
      code: 'ENOTDIR',
      hint: 'move it away, or choose another directory with -d',
    });
  }
  return { path: found, stat: there, replaceable: await isReplaceable(found, there) };
}

/** The path of something that is not there, with all symlinks above it followed. */
async function resolveMissing(name: string): Promise<string> {
  const absolute = path.resolve(name);
  const above = path.dirname(absolute);
  const parent = await realpath(above).catch(unlessMissing);
  return path.join(parent ?? (await resolveMissing(above)), path.basename(absolute));
}

async function isReplaceable(found: string, there: Stats): Promise<boolean> {
  // Whoever works in it would be left in a directory that is gone.
  if (found === (await realpath('.').catch(() => undefined))) return false;
  if (await isMountPoint(found, there)) return false;
  // The new one gets the owner of the old one, which only root can give away.
  return geteuid!() === 0 || (there.uid === geteuid!() && there.gid === getegid!());
}

async function isMountPoint(found: string, there: Stats): Promise<boolean> {
  const above = path.dirname(found);
  if (above === found || (await lstat(above)).dev !== there.dev) return true;
  // A directory of the same file system may be mounted too: proc_pid_mountinfo(5), the fifth field.
  const mounts = await readFile('/proc/self/mountinfo', 'latin1').catch(() => '');
  const bytes = Buffer.from(found).toString('latin1');
  return mounts.split('\n').some((line) => unescape(line.split(' ')[4] ?? '') === bytes);
}

/** Blanks, tabs, newlines and backslashes are octal in mountinfo. */
function unescape(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
