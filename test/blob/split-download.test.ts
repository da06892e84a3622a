import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { CorruptBlobError } from '../../src/blob/transfer.ts';
import type { Layer } from '../../src/oci/image.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { until } from '../support/until.ts';
import { layersOf } from './support/http-layer.ts';
import { noise, Workshop } from './support/workshop.ts';

const MB = 1e6;
const big = noise(32 * MB);

async function slow(
  fault: Partial<Fault> = {},
  options = {},
): Promise<{ registry: FakeRegistry; layer: Layer }> {
  const registry = await FakeRegistry.start(options);
  const image = registry.push('lib/x', 'latest', { layers: [{ tar: big, compression: 'none' }] });
  registry.fault({ path: /blobs/, times: 999, rate: 10 * MB, ...fault });
  return { registry, layer: layersOf(registry, 'lib/x', image)[0]! };
}

for (const [name, options] of [
  ['with the cache', {}],
  ['without the cache', { directory: undefined }],
] as const) {
  test(`${name}: a big blob comes over several connections, front first, while it is read`, async () => {
    await using shop = await Workshop.open();
    const { registry, layer } = await slow({ rate: 10 * MB });
    await using _ = registry;
    const store = await shop.store(options);
    const jobs = 7;
    assert.ok((await shop.pull([layer], { store, jobs }))[0]!.equals(big));
    assert.ok(registry.requests.length > 3, `${registry.requests.length} requests`);
    const first = registry.requests.map(({ headers }) =>
      Number(/^bytes=(\d+)-\d+$/.exec(headers.range!)![1]),
    );
    // Requests that are sent at the same time may arrive in another order.
    const inOrder = first.toSorted((a, b) => a - b);
    assert.ok(
      first.every((start, place) => Math.abs(inOrder.indexOf(start) - place) < jobs),
      first.join(),
    );
    await store.close();
  });
}

test('one job is one connection', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ rate: 25 * MB });
  await using _ = registry;
  assert.ok((await shop.pull([layer], { jobs: 1 }))[0]!.equals(big));
  assert.equal(registry.requests.length, 1);
});

test('a blob below 16 MiB is one request, without a range', async () => {
  await using shop = await Workshop.open();
  await using registry = await FakeRegistry.start();
  const small = big.subarray(0, 15 * MB);
  const image = registry.push('lib/x', 'latest', { layers: [{ tar: small, compression: 'none' }] });
  assert.ok((await shop.pull(layersOf(registry, 'lib/x', image)))[0]!.equals(small));
  assert.deepEqual(
    registry.requests.map(({ headers }) => headers.range),
    [undefined],
  );
});

test('a server without ranges gets one request', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ rate: 25 * MB }, { ranges: false });
  await using _ = registry;
  assert.ok((await shop.pull([layer]))[0]!.equals(big));
  assert.equal(registry.requests.length, 1);
});

test('connections that break are replaced, each from where it was', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ times: 1 });
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 6, rate: 10 * MB, cutAfter: 1_500_000 });
  registry.fault({ path: /blobs/, times: 999, rate: 10 * MB });
  assert.ok((await shop.pull([layer]))[0]!.equals(big));
  assert.ok(shop.notices.length >= 6);
});

test('a server that stops sending parts is asked for the rest over one connection', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ times: 2 });
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 999, rate: 30 * MB, ignoreRange: true });
  assert.ok((await shop.pull([layer]))[0]!.equals(big));
});

test('a server that refuses several connections at once is asked for the rest over one', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ times: 1 });
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 3, status: 429, body: '{}' });
  registry.fault({ path: /blobs/, times: 999, rate: 30 * MB });
  assert.ok((await shop.pull([layer]))[0]!.equals(big));
});

test('a part with wrong bytes is noticed, and held layers get the right ones', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow({ times: 1 });
  await using _ = registry;
  registry.fault({ path: /blobs/, times: 1, rate: 10 * MB, corruptAt: 1000 });
  registry.fault({ path: /blobs/, times: 999, rate: 30 * MB });
  await assert.rejects(shop.pull([layer], { hold: true }), CorruptBlobError);
  assert.ok((await shop.pull([layer], { hold: true }))[0]!.equals(big));
});

test('a killed run is resumed from the end of its complete part', async () => {
  await using shop = await Workshop.open();
  const { registry, layer } = await slow();
  await using _ = registry;
  const program = new URL('support/pull-process.ts', import.meta.url).pathname;
  const url = `${registry.url}/v2/lib/x/blobs/${layer.digest}`;
  const child = spawn('node', [program, shop.cache, url, layer.digest!, String(big.length)], {
    stdio: 'ignore',
  });
  const partial = path.join(shop.cache, 'partial', layer.digest!.replace(':', '-'));
  const notedRanges = () => {
    if (!existsSync(`${partial}.ranges`)) return [];
    const lines = readFileSync(`${partial}.ranges`, 'latin1').split('\n').slice(1);
    return lines.map((line) => line.split('-').map(Number) as [number, number]);
  };
  const notedBytes = () => notedRanges().reduce((sum, [start, end]) => sum + end - start, 0);
  await until('a note of the first bytes', () => notedBytes() >= 5 * MB);
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('close', resolve));
  const ranges = notedRanges();
  assert.ok(statSync(partial).blocks * 512 >= notedBytes());
  const before = registry.requests.length;
  registry.fault({ path: /blobs/, times: 999 });
  assert.ok((await shop.pull([layer]))[0]!.equals(big));
  // No noted byte is requested again.
  for (const { headers } of registry.requests.slice(before)) {
    const [first, last] = headers.range!.slice(6).split('-').map(Number) as [number, number];
    assert.ok(
      ranges.every(([start, end]) => end <= first || start > last),
      `${headers.range} of ${ranges.join(' ')}`,
    );
  }
  assert.equal(existsSync(`${partial}.ranges`), false);
});
