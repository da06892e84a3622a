import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readdir, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { geteuid, kill, pid } from 'node:process';
import { osPath, pathText } from '../sys/os-path.ts';
import { hasCode } from '../sys/os-error.ts';
import { Rootfs } from './rootfs.ts';

/** Bytes of DIR's name that fit into the stage's: the rest of it needs up to 45 of 255. */
const longestName = 200;
const deniedCodes = new Set(['EACCES', 'EPERM', 'EROFS']);

/**
 * Makes the directory beside `target` in which it is built: `.NAME.dlrootfs-PID-RANDOM`, for its owner alone. Answers why
 * not (EACCES, EPERM, EROFS) where the directory above may not be written.
 */
export async function makeStage(target: string): Promise<string | { readonly denied: string }> {
  const stage = path.join(
    path.dirname(target),
    `${prefixOf(target)}${pid}-${randomBytes(6).toString('hex')}`,
  );
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
 * @param mode `stage`: only when no other run has it; `empty`: it is known to be ours
 */
export async function removeStage(stage: string, mode: 'stage' | 'empty'): Promise<void> {
  if (mode === 'empty' && (await isRemoved(stage))) return;
  const rootfs = await Rootfs.open(stage, { mode, leftover: true });
  await rootfs.discard();
  await rmdir(osPath(stage));
}

/** Removes the stage if nothing is in it; answers whether it is no more. */
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

/**
 * Removes stages for `target` that killed runs have left: this user's, of a process that is no more (also in another container: a living
 * one holds a lock). What cannot be removed stays, without a word.
 */
export async function removeStaleStages(target: string): Promise<void> {
  const above = path.dirname(target);
  const prefix = prefixOf(target);
  const names = await readdir(osPath(above), { encoding: 'buffer' }).catch(() => []);
  for (const name of names.map((bytes) => pathText(bytes))) {
    if (!name.startsWith(prefix)) continue;
    const owner = /^(\d+)-[0-9a-f]{12}$/.exec(name.slice(prefix.length))?.[1];
    if (owner === undefined || isAlive(Number(owner))) continue;
    const stage = path.join(above, name);
    const stat = await lstat(osPath(stage)).catch(() => undefined);
    if (!stat?.isDirectory() || stat.uid !== geteuid!()) continue;
    await removeStage(stage, 'stage').catch(() => undefined);
  }
}

function prefixOf(target: string): string {
  const characters = Array.from(path.basename(target));
  while (Buffer.byteLength(characters.join('')) > longestName) characters.pop();
  return `.${characters.join('')}.dlrootfs-`;
}

function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return !hasCode(error, 'ESRCH');
  }
}
