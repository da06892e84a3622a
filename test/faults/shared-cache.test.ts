import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { Setting, assertOriginalLines, threeLayers } from './setting.ts';

const slowly = { faults: [{ path: /\/blobs\//, rate: 2 ** 20, times: 1e9 }] };

test('two runs at once share a cache: every blob is fetched once, both trees are right', async () => {
  await using setting = await Setting.open(threeLayers(), slowly);
  const runs = [setting.start(['-d', 'one', '-v']), setting.start(['-d', 'two', '-v'])];
  let said = '';
  for (const run of runs) {
    const { exitCode, stdout, stderr } = await run.result;
    assert.equal(exitCode, 0, stderr);
    assertOriginalLines(stdout, setting.image);
    said += stderr;
  }
  assert.deepEqual(
    [0, 1, 2].map((n) => setting.asked(n)),
    [[0], [0], [0]],
    said,
  );
  await setting.pullWell(['-d', 'fresh', '--no-cache']);
  assert.equal(setting.tree('one'), setting.tree('fresh'));
  assert.equal(setting.tree('two'), setting.tree('fresh'));
  assert.deepEqual(setting.names, ['fresh', 'one', 'two']);
});

test('the run that fetches is killed while another waits for it: that one goes on where it was', async () => {
  await using setting = await Setting.open(threeLayers(), {
    faults: [{ path: /\/blobs\//, skip: 1, stallAfter: 250_000, times: 3 }],
  });
  const first = setting.start(['-d', 'one']);
  await until('250,000 bytes', () => setting.partial(0) === 250_000 && setting.partial(2) === 250_000);
  const second = setting.start(['-d', 'two']);
  await until('the wait', () => second.stderr.split('another run is downloading it').length > 2);
  first.kill('SIGKILL');
  await first.result;
  const { exitCode, stdout, stderr } = await second.result;
  assert.equal(exitCode, 0, stderr);
  assertOriginalLines(stdout, setting.image);
  assert.deepEqual(
    [setting.asked(0), setting.asked(2)],
    [
      [0, 250_000],
      [0, 250_000],
    ],
  );
  await setting.pullWell(['-d', 'one']);
  assert.equal(setting.tree('one'), setting.tree('two'));
  assert.deepEqual(setting.names, ['one', 'two']);
});

test('two runs at once for one DIR: it is whole, and the one that came too late says so', async () => {
  await using setting = await Setting.open(threeLayers(), slowly);
  const results = await Promise.all([setting.start(), setting.start()].map((run) => run.result));
  const codes = results.map(({ exitCode }) => exitCode).toSorted((a, b) => a - b);
  assert.deepEqual(codes, [0, 7], results.map(({ stderr }) => stderr).join('\n---\n'));
  const late = results.find(({ exitCode }) => exitCode === 7)!;
  assert.match(
    late.stderr,
    /error: .*out: it was (?:filled|made) by another process in the meantime\nhint: /,
  );
  assert.deepEqual(setting.names, ['out']);
  await setting.pullWell(['-d', 'fresh']);
  assert.equal(setting.tree('out'), setting.tree('fresh'));
});

test('cache prune while a run fetches: what that run is writing stays', async () => {
  await using setting = await Setting.open(threeLayers(), {
    faults: [{ path: /\/blobs\//, skip: 1, stallAfter: 250_000, times: 3 }],
  });
  const run = setting.start();
  const here = () => [setting.partial(0), setting.partial(2)];
  await until('250,000 bytes', () => here().every((bytes) => bytes === 250_000));
  const pruned = await runProgram(['cache', 'prune', '--cache-dir', setting.store]);
  assert.equal(pruned.exitCode, 0, pruned.stderr);
  assert.deepEqual(here(), [250_000, 250_000]);
  run.kill('SIGKILL');
  await run.result;
});
