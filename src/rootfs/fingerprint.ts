import { createHash, type Hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { IntegrityError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import { SyscallError } from '../sys/os-error.ts';
import { pathBytes } from '../sys/os-path.ts';
import { openFilesystem } from './confined-root.ts';
import { Directories, join } from './directories.ts';
import type { DiskFilesystem, FileStat } from './filesystem.ts';

/** Fingerprint of a tree: it differs after any change in the tree. */
export interface Fingerprint {
  readonly digest: Digest;
  /** When anything in the tree changed last, in milliseconds since 1970. */
  readonly newest: number;
}

/** Entries between two turns of the event loop. */
const ENTRIES_IN_TURN = 4096;

/**
 * Names, types, modes, owners, sizes, inodes and times of all entries in a directory. No file is read. The times include the time of the
 * last change (ctime). The system sets it with every change, and no call can set it back. So no process can change a file and hide that.
 * The ctime of the root itself is left out, since a rename changes it; its attributes are read instead.
 *
 * @returns undefined where the tree cannot be read
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
    const root = filesystem.stat(filesystem.root, '.');
    const attributes = filesystem.readXattrs({ parent: filesystem.root, name: '.', file: -1 });
    if (typeof root === 'number' || typeof attributes === 'number') return undefined;
    const hash = createHash('sha256');
    hash.update(line('', root, false));
    for (const [name, value] of attributes) hash.update(`${name}\0`).update(value);
    const newest = await addTree(hash, filesystem, directories, signal);
    return newest === undefined ? undefined : { digest: `sha256:${hash.digest('hex')}` as Digest, newest };
  } catch (error) {
    // The path is too long, or it changed during the walk.
    if (error instanceof IntegrityError || error instanceof SyscallError) return undefined;
    throw error;
  } finally {
    directories.close();
    filesystem.close();
  }
}

async function addTree(
  hash: Hash,
  filesystem: DiskFilesystem,
  directories: Directories,
  signal: AbortSignal,
): Promise<number | undefined> {
  let newest = 0;
  let entries = 0;
  const waiting = [''];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    directories.trim();
    const directory = directories.findExact(path);
    const names = directory && filesystem.list(directory);
    if (typeof names !== 'object') return undefined;
    let lines = '';
    for (const name of names.toSorted()) {
      const stat = filesystem.stat(directory!, name);
      if (typeof stat === 'number') return undefined;
      const below = join(path, name);
      lines += line(below, stat, true);
      newest = Math.max(newest, stat.ctimeSeconds * 1000 + stat.ctimeNanoseconds / 1e6);
      if (stat.type === 'directory') waiting.push(below);
      entries += 1;
      if (entries % ENTRIES_IN_TURN === 0) {
        await setImmediate();
        signal.throwIfAborted();
      }
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
