import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { HANG } from './hang.ts';

/** Waits for something to come true, as long as it does not hang. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (const begin = performance.now(); !holds();) {
    assert.ok(performance.now() - begin < HANG, `waited in vain for ${what}`);
    await sleep(10);
  }
}
