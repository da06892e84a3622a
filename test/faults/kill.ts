import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunningProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { Setting, threeLayers } from './setting.ts';

/** What a round of `killRounds` was like. */
export interface KillRound {
  /** Milliseconds from the first request to the program's death. */
  readonly after: number;
  /** Whether DIR was there by then. */
  readonly finished: boolean;
  /** Of the layers, how many the next run found in the store, whole or in part. */
  readonly reused: number;
}

/** Rounds that run side by side: they mostly wait for a slow link. */
const SIDE_BY_SIDE = 3;

/**
 * Kills a pull at a random moment, sees that DIR is not there or whole, and runs the same command again; so many times, each with
 * an empty store and no DIR to begin with. `told` hears of every round.
 */
export async function killRounds(rounds: number, told: (round: KillRound) => void): Promise<void> {
  const image = threeLayers();
  // Slow enough that most of a run is the download, as it is on a real link.
  const open = () => Setting.open(image, { faults: [{ path: /\/blobs\//, rate: 3 * 2 ** 20, times: 1e9 }] });
  await using first = await open();
  const whole = first.start();
  const duration = await sinceFirstRequest(first, whole);
  const expected = first.tree();
  let left = rounds;
  const worker = async () => {
    for (; left > 0;) {
      left -= 1;
      await using setting = await open();
      told(await killOnce(setting, Math.random() * duration, expected));
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
}

/** How long a run takes from its first request on, in milliseconds. */
async function sinceFirstRequest({ registry }: Setting, run: RunningProgram): Promise<number> {
  const { exitCode, stderr } = await run.result;
  assert.equal(exitCode, 0, stderr);
  return performance.now() - registry.requests[0]!.time;
}

async function killOnce(setting: Setting, after: number, expected: string): Promise<KillRound> {
  const { registry, image } = setting;
  const run = setting.start();
  const watch = watchFor(setting, expected);
  await until('the first request', () => registry.requests.length > 0);
  await sleep(after);
  run.kill('SIGKILL');
  await run.result;
  const finished = watch.end();

  const left = image.layers.map((layer, n) =>
    existsSync(setting.blob(layer.digest)) ? 'whole' : (setting.partial(n) ?? 0),
  );
  registry.requests.length = 0;
  const destination = finished ? 'again' : 'out';
  const again = watchFor(setting, expected, destination);
  await setting.pullWell(['-d', destination]);
  assert.ok(again.end());
  assert.equal(setting.tree(destination), expected);
  assert.deepEqual(setting.names, finished ? ['again', 'out'] : ['out'], 'nothing is left beside DIR');
  for (const [n, found] of left.entries()) {
    const asked = found === 'whole' ? [] : [found];
    // A partial that is all there is not asked for.
    if (found === image.layers[n]!.size) continue;
    assert.deepEqual(setting.asked(n), asked, 'what the store has is not fetched again');
  }
  return { after, finished, reused: left.filter((found) => found !== 0).length };
}

/** Looks for DIR all the time; the moment that it is there, it must be whole. `end` answers whether it is. */
function watchFor(setting: Setting, expected: string, name = 'out'): { end: () => boolean } {
  let seen = false;
  let failure: unknown;
  const look = () => {
    if (seen || !existsSync(setting.scratch.join(name))) return;
    seen = true;
    try {
      assert.equal(setting.tree(name), expected, 'DIR was seen half made');
    } catch (error) {
      failure = error;
    }
  };
  const timer = setInterval(look, 5);
  return {
    end: () => {
      clearInterval(timer);
      look();
      if (failure !== undefined) throw failure;
      return seen;
    },
  };
}
