import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Setting } from '../faults/setting.ts';
import { until } from '../support/until.ts';

/** The number of requests for each layer, base layer first; each must be 1. */
const counts = (setting: Setting) => setting.image.layers.map((_, layer) => setting.asked(layer).length);

const aboutConfig = (setting: Setting) => new RegExp(`/blobs/${setting.image.configDigest}`);

test('each layer is requested once, by one connection or several', async () => {
  for (const flags of [[], ['-j', '1'], ['-j', '2'], ['--no-cache'], ['-o', 'x.tar']]) {
    await using setting = await Setting.open();
    await setting.pullWell(flags);
    assert.deepEqual(counts(setting), [1, 1, 1], flags.join(' '));
  }
});

test('no layer is requested before the config is here, and a signal ends the waiting', async () => {
  await using setting = await Setting.open();
  setting.registry.fault({ path: aboutConfig(setting), before: 'silent', times: 9 });
  const run = setting.start();
  await until('the request for the config', () => setting.registry.log(aboutConfig(setting)).length > 0);
  run.kill('SIGTERM');
  assert.equal((await run.result).exitCode, 143);
  assert.deepEqual(counts(setting), [0, 0, 0]);
  assert.deepEqual(setting.names, []);
});

test('what the cache has, and a rootfs that is the image already, need no request', async () => {
  await using setting = await Setting.open();
  await setting.pullWell(['--replace']);
  setting.registry.requests.length = 0;
  await setting.pullWell(['-d', 'again']);
  await setting.pullWell(['--replace']);
  assert.deepEqual(counts(setting), [0, 0, 0]);
});

test('a part in the cache is continued: the whole is not requested', async () => {
  await using setting = await Setting.open();
  const { digest } = setting.image.layers[2]!;
  setting.registry.fault({ path: new RegExp(digest), cutAfter: 600_000 });
  setting.registry.fault({ path: new RegExp(digest), status: 403 });
  await setting.pull();
  const part = setting.partial(2)!;
  assert.ok(part > 0);
  setting.registry.requests.length = 0;
  await setting.pullWell();
  assert.deepEqual(setting.asked(2), [part]);
});

test('a layer that is not there ends the pull, also while the answer for another one is stuck', async () => {
  await using setting = await Setting.open();
  const [first, second] = setting.image.layers;
  setting.registry.fault({ path: new RegExp(first!.digest), stallAfter: 1000, times: 9 });
  setting.registry.fault({ path: new RegExp(second!.digest), status: 404, times: 9 });
  const begin = Date.now();
  const { exitCode, stderr } = await setting.pull();
  assert.equal(exitCode, 3, stderr);
  assert.ok(Date.now() - begin < 15_000);
  assert.deepEqual(setting.names, []);
});

test('an answer that was cut is continued where it broke', async () => {
  await using setting = await Setting.open();
  const { digest } = setting.image.layers[2]!;
  setting.registry.fault({ path: new RegExp(digest), cutAfter: 600_000 });
  await setting.pullWell();
  const [first, second, ...more] = setting.asked(2);
  assert.equal(first, 0);
  assert.ok(second! > 0 && second! <= 600_000);
  assert.deepEqual(more, []);
});

test('a config that is wrong: the error is about it', async () => {
  await using setting = await Setting.open();
  setting.registry.fault({ path: aboutConfig(setting), corruptAt: 5, times: 9 });
  const { exitCode, stderr } = await setting.pull();
  assert.equal(exitCode, 6, stderr);
  assert.match(stderr, /^error: .*config/m);
  assert.deepEqual(setting.names, []);
});

test('with --layers only these are requested', async () => {
  await using setting = await Setting.open();
  await setting.pullWell(['--layers', '1']);
  assert.deepEqual(counts(setting), [1, 0, 0]);
});
