import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { killGitRounds } from './kill-git.ts';
import type { KilledGit } from './kill-git.ts';
import { killRounds } from './kill.ts';
import type { KillRound } from './kill.ts';
import { Setting } from './setting.ts';

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

test(
  'with -g, killed at 8 random moments, half of them while layers are put on top: DIR is what it was or whole, and the same command then succeeds',
  { skip: missing('git') },
  async (t) => {
    const rounds: KilledGit[] = [];
    await killGitRounds(8, (round) => rounds.push(round));
    t.diagnostic(rounds.map(({ after, layers }) => `${after.toFixed(0)} ms: ${layers}`).join(', '));
    assert.equal(rounds.length, 8);
    assert.ok(
      rounds.some(({ layers }) => layers < 3),
      'some were killed before they were done',
    );
  },
);

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
