import assert from 'node:assert/strict';
import { test } from 'node:test';
import { killRounds } from './kill.ts';
import type { KillRound } from './kill.ts';

test('killed at 20 random moments: DIR is not there or whole, and the same command then succeeds', async (t) => {
  const rounds: KillRound[] = [];
  await killRounds(20, (round) => rounds.push(round));
  t.diagnostic(rounds.map(({ after, reused }) => `${after.toFixed(0)} ms: ${reused}`).join(', '));
  assert.equal(rounds.length, 20);
  assert.ok(
    rounds.some(({ reused }) => reused > 0),
    'some of what a killed run left was gone on with',
  );
});
