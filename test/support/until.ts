import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for something to come true, at most a minute; no shorter time decides whether it does. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (const begin = performance.now(); !holds();) {
    assert.ok(performance.now() - begin < 60_000, `waited in vain for ${what}`);
    await sleep(10);
  }
}
