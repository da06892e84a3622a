import { fstatSync, readSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { constants } from 'node:os';
import type { FileStat } from './filesystem.ts';

const { EFBIG, EINVAL } = constants.errno;

/** What Node says of a file, in our terms. */
export function fileStat(stat: BigIntStats): FileStat {
  return {
    type: typeOf(stat),
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    mtimeSeconds: Number(floorDivide(stat.mtimeNs)),
    mtimeNanoseconds: Number(stat.mtimeNs - floorDivide(stat.mtimeNs) * billion),
    ctimeSeconds: Number(floorDivide(stat.ctimeNs)),
    ctimeNanoseconds: Number(stat.ctimeNs - floorDivide(stat.ctimeNs) * billion),
    identity: `${stat.dev}:${stat.ino}`,
  };
}

/** All bytes of an open regular file; see `Filesystem.readFile`. */
export function readAll(file: number, most: number): Uint8Array | number {
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) return -EINVAL;
    if (stat.size > most) return -EFBIG;
    const bytes = Buffer.alloc(stat.size);
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, 0));
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -EINVAL;
  }
}

export const billion = 1_000_000_000n;

function floorDivide(nanoseconds: bigint): bigint {
  const quotient = nanoseconds / billion;
  return nanoseconds < 0n && quotient * billion !== nanoseconds ? quotient - 1n : quotient;
}

function typeOf(stat: BigIntStats): FileStat['type'] {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'character';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() ? 'fifo' : 'other';
}
