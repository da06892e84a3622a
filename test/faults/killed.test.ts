import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { killRounds, type killKinds, type KillRound } from './kill.ts';
import { Setting } from './setting.ts';

/** How often each is killed here; `make soak` does it more often. */
const rounds: Readonly<Record<keyof typeof killKinds, number>> = {
  'a directory': 20,
  '-g': 8,
  '-o': 6,
  'several connections': 4,
};

for (const [name, count] of Object.entries(rounds) as [keyof typeof killKinds, number][]) {
  const sentence = `${name}: killed at ${count} random moments, it is not there, what it was, or whole, and the same command then succeeds`;
  test(sentence, { skip: missing('git') }, async (t) => {
    const all: KillRound[] = [];
    await killRounds(name, count, (round) => all.push(round));
    t.diagnostic(all.map(({ after, reused }) => `${after.toFixed(0)} ms: ${reused}`).join(', '));
    assert.equal(all.length, count);
    assert.ok(
      all.some(({ finished }) => !finished),
      'some were killed before they were done',
    );
    assert.ok(
      all.some(({ reused }) => reused > 0),
      'some of what a killed run left was gone on with',
    );
  });
}

test(
  'with -g, what a killed run left beside DIR goes also where nothing else is to be done',
  { skip: missing('git') },
  async () => {
    await using setting = await Setting.open();
    await setting.pullWell(['-g']);
    // No process has a number like that: pid_max is at most 2^22.
    mkdirSync(setting.scratch.join('.out.dlrootfs-99999999-0123456789ab/usr'), { recursive: true });
    const { stderr } = await setting.pullWell(['-g']);
    assert.match(stderr, /nothing was done/);
    assert.deepEqual(setting.names, ['out']);
  },
);
