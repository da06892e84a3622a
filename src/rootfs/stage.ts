import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { lstat, mkdir, rename, rmdir, unlink } from 'node:fs/promises';
import path from 'node:path';
import { geteuid, pid } from 'node:process';
import { printable } from '../errors.ts';
import { hasCode } from '../sys/os-error.ts';
import { osPath } from '../sys/os-path.ts';
import { hiddenBeside, hiddenName, isAlive } from '../sys/temp-file.ts';
import { mountWithin, readMounts } from './location.ts';
import { Rootfs } from './rootfs.ts';

const deniedCodes = new Set(['EACCES', 'EPERM', 'EROFS']);

/**
 * Makes the directory beside `target` in which it is built: `.NAME.dlrootfs-PID-RANDOM`, for its owner alone. Returns why
 * not (EACCES, EPERM, EROFS) where the directory above may not be written.
 *
 * @throws the system's other errors
 */
export async function makeStage(target: string): Promise<string | { readonly denied: string }> {
  const name = `${hiddenName(target)}.dlrootfs-${pid}-${randomBytes(6).toString('hex')}`;
  const stage = path.join(path.dirname(target), name);
  try {
    await mkdir(osPath(stage), 0o700);
    return stage;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (deniedCodes.has(code)) return { denied: code };
    throw error;
  }
}

/**
 * Removes a stage with all that is in it.
 *
 * @param mode `stage`: only when no other run has it; `empty`: this run is known to have made it
 * @throws DestinationError, the system's errors, an Error where something is mounted in it
 */
export async function removeStage(stage: string, mode: 'stage' | 'empty'): Promise<void> {
  if (mode === 'empty' && (await isRemoved(stage))) return;
  const { dev, ino } = await lstat(osPath(stage), { bigint: true });
  const inner = mountWithin(stage, readMounts());
  if (inner !== undefined) throw new Error(`${printable(inner)} is mounted in it`);
  const rootfs = await Rootfs.open(stage, { mode, leftover: true, expected: `${dev}:${ino}` });
  await rootfs.discard();
  await rmdir(osPath(stage));
}

/** Removes what was at DIR. Another process may have replaced the directory by another kind of file. */
export async function removeReplaced(old: string): Promise<void> {
  const stat = await lstat(osPath(old));
  if (stat.isDirectory()) await removeStage(old, 'empty');
  else await unlink(osPath(old));
}

/** Removes the stage if it is empty; returns whether it no longer exists. */
async function isRemoved(stage: string): Promise<boolean> {
  try {
    await rmdir(osPath(stage));
    return true;
  } catch (error) {
    if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) return false;
    if (hasCode(error, 'ENOENT')) return true;
    throw error;
  }
}

/** Removes the stages and the replaced trees that killed runs have left for `target`. Failures are ignored. */
export async function removeStaleStages(target: string): Promise<void> {
  for (const stage of await staleStages(target)) await removeStage(stage, 'stage').catch(() => undefined);
}

/** Gives `target`, which is missing, to the tree that a killed run has moved aside to put a new one there; returns whether there was one. */
export async function isRestored(target: string): Promise<boolean> {
  for (const stage of await staleStages(target)) {
    if (!/-old\d*$/.test(stage)) continue;
    await rename(osPath(stage), osPath(target));
    return true;
  }
  return false;
}

/**
 * Directories beside `target` that are named as stages of it, of processes that are no more (also in another container: a living one holds
 * a lock): this user's, and for root also others' where nobody else can have put them there.
 */
async function staleStages(target: string): Promise<string[]> {
  const stages: string[] = [];
  const pattern = /^\.dlrootfs-(\d+)-[0-9a-f]{12}(?:-old\d*)?$/;
  for (const [stage, [, owner]] of await hiddenBeside(target, pattern)) {
    if (isAlive(Number(owner))) continue;
    const stat = await lstat(osPath(stage)).catch(() => undefined);
    if (stat?.isDirectory() && (await isOurs(stat, path.dirname(target)))) stages.push(stage);
  }
  return stages;
}

/** A replaced tree may belong to any user. A user who may rename in the directory above could give the name of a stage to another directory. */
async function isOurs({ uid }: Stats, above: string): Promise<boolean> {
  if (uid === geteuid!()) return true;
  const { uid: owner, mode } = await lstat(osPath(above));
  return geteuid!() === 0 && (owner === 0 || owner === uid) && (mode & 0o022) === 0;
}
