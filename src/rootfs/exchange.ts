import { rename } from 'node:fs/promises';
import { arch, platform } from 'node:os';
import { loadKoffi } from './koffi.ts';

const renameat2 = { x64: 316, arm64: 276 } as const;
const AT_FDCWD = -100;
const RENAME_EXCHANGE = 2;

/**
 * Gives two directories beside each other each other's names: in one step where the system can (renameat2(2)), else in three, of which a
 * killed process may leave the second one out: then `directory` has the name `aside`.
 *
 * @throws what rename(2) says; then both have the names they had
 */
export async function exchange(stage: string, directory: string, aside: string): Promise<void> {
  if (isExchanged(stage, directory)) return;
  await rename(directory, aside);
  try {
    await rename(stage, directory);
  } catch (error) {
    await rename(aside, directory);
    throw error;
  }
  await rename(aside, stage);
}

function isExchanged(one: string, other: string): boolean {
  const machine = arch();
  if (platform() !== 'linux' || (machine !== 'x64' && machine !== 'arm64')) return false;
  try {
    const syscall = loadKoffi()
      .load(null)
      .func('intptr_t syscall(intptr_t, intptr_t, const char *, intptr_t, const char *, intptr_t)');
    return syscall(renameat2[machine], AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) === 0;
  } catch {
    return false;
  }
}
