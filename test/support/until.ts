import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { HANG } from './hang.ts';

/** Waits until a condition is true; it fails if that hangs. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (const begin = performance.now(); !holds();) {
    assert.ok(performance.now() - begin < HANG, `waited in vain for ${what}`);
    await sleep(10);
  }
}
