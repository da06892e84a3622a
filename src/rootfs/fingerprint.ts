import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:os';
import { IntegrityError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { openYielder } from '../sys/yielder.ts';
import { openFilesystem } from './confined-root.ts';
import { Directories, itself, childPath } from './directories.ts';
import { type DiskFilesystem, type FileStat, granted } from './filesystem.ts';

/** Fingerprint of a tree: it differs after any change in the tree. */
export interface Fingerprint {
  readonly digest: Digest;
  /** Time of the last change below the root, in milliseconds since 1970. */
  readonly newest: number;
}

/**
 * Hashes names, types, modes, owners, sizes, inodes and times of all entries in a directory. No file is read.
 * The times include the ctime, the time of the last change. The system sets it with every change, and no call
 * can set it back. So no process can hide a change. The root's own ctime is left out, since a rename changes
 * it. Its attributes are read instead.
 *
 * @returns undefined if the tree cannot be read
 * @throws the signal's reason
 */
export async function fingerprintOf(
  directory: string,
  signal: AbortSignal,
): Promise<Fingerprint | undefined> {
  const filesystem = openFilesystem(pathBytes(directory));
  if (typeof filesystem === 'number') return undefined;
  const directories = new Directories(filesystem);
  try {
    const root = itself(filesystem.root);
    const stat = granted(filesystem.stat(root.parent, root.name), 'read the root');
    const attributes = granted(filesystem.readXattrs(root), 'read the root');
    const hash = createHash('sha256');
    hash.update(line('', stat, false));
    for (const [name, value] of attributes) hash.update(`${name}\0`).update(value);
    const newest = await addTree(hash, filesystem, directories, signal);
    return { digest: `sha256:${hash.digest('hex')}` as Digest, newest };
  } catch (error) {
    // The path is too long, or it changed during the walk.
    if (error instanceof IntegrityError || error instanceof SyscallError) return undefined;
    throw error;
  } finally {
    directories.close();
    filesystem.close();
  }
}

/**
 * Adds all entries below the root, and returns the newest ctime in milliseconds.
 *
 * @throws SyscallError if the tree changes during the walk, or cannot be read
 */
async function addTree(
  hash: Hash,
  filesystem: DiskFilesystem,
  directories: Directories,
  signal: AbortSignal,
): Promise<number> {
  let newest = 0;
  const yielder = openYielder(signal);
  const waiting = [''];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    directories.trim();
    const directory = directories.findExact(path);
    if (!directory) throw new SyscallError(constants.errno.ENOENT, 'read a directory');
    let lines = '';
    for (const name of granted(filesystem.list(directory), 'read a directory').toSorted()) {
      const stat = granted(filesystem.stat(directory, name), 'read a file');
      const below = childPath(path, name);
      lines += line(below, stat, true);
      newest = Math.max(newest, stat.ctimeSeconds * 1000 + stat.ctimeNanoseconds / 1e6);
      if (stat.type === 'directory') waiting.push(below);
      if (yielder.isDue()) await yielder.pause();
    }
    hash.update(lines, 'latin1');
  }
  return newest;
}

function line(path: string, stat: FileStat, changed: boolean): string {
  const { type, mode, uid, gid, size, identity, mtimeSeconds, mtimeNanoseconds } = stat;
  const ctime = changed ? `${stat.ctimeSeconds}.${stat.ctimeNanoseconds}` : '';
  return `${path}\0${type} ${mode} ${uid} ${gid} ${size} ${identity} ${mtimeSeconds}.${mtimeNanoseconds} ${ctime}\n`;
}
