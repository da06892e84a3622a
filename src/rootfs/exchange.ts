import { rename } from 'node:fs/promises';
import { AT_FDCWD, RENAME_EXCHANGE, systemCalls } from '../sys/system-calls.ts';

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
  const calls = systemCalls();
  if (!calls) return false;
  const names = Buffer.from(`${one}\0${other}\0`);
  const first = calls.address(names);
  const second = first + Buffer.byteLength(one) + 1;
  const answer = calls.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE);
  // `names` is used until here: nothing may free it before.
  return answer === 0 && names.length > 0;
}
