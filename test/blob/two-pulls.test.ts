import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../support/until.ts';
import { ScriptedLayer } from './support/scripted-layer.ts';
import { noise, Workshop } from './support/workshop.ts';

// A run that waits for another run's blob claims no blob that the other one waits for: each claimed blob is
// being fetched, on its own connection.

const big = [0, 1, 2].map(() => noise(16 * 2 ** 20 + 1000));
/** Each pull has a server of its own. At the first one's rate, the pull opens further connections. */
const layersOf = (pause: number) => big.map((bytes) => new ScriptedLayer(bytes, () => ({ pause })));

for (const jobs of [1, 2, 3, 7]) {
  test(
    `two pulls of the same big blobs in opposite order end, ${jobs} at once`,
    { timeout: 60_000 },
    async () => {
      await using shop = await Workshop.open();
      const scripts = [layersOf(1), layersOf(0)];
      const pulls = scripts.map(async (all, number) => {
        const layers = all.map(({ layer }) => layer);
        return shop.pull(number === 0 ? layers : layers.toReversed(), { jobs });
      });
      const [there, back] = await Promise.all(pulls);
      for (const [index, bytes] of big.entries()) {
        assert.ok(there![index]!.equals(bytes));
        assert.ok(back!.at(-1 - index)!.equals(bytes));
        // Each blob is downloaded only once.
        const sent = scripts.reduce((sum, all) => sum + all[index]!.sent, 0);
        assert.ok(sent < bytes.length * 1.5, `${sent} bytes of blob ${index}`);
      }
      assert.ok(scripts.flat().every(({ open }) => open === 0));
    },
  );
}

test('big blobs do not wait for one that another run fetches', { timeout: 60_000 }, async () => {
  await using shop = await Workshop.open();
  const layers = layersOf(0).map(({ layer }) => layer);
  const never = new AbortController().signal;
  const other = await shop.store();
  const claim = await other.claim({
    digest: layers[0]!.digest!,
    signal: never,
    waiting: () => undefined,
  });
  assert.ok(claim !== undefined && claim !== 'there');
  const pulled = shop.pull(layers, { jobs: 2 });
  const fetched = (index: number) =>
    shop.events.some((event) => event.type === 'layer-fetched' && event.index === index);
  await until('the others', () => fetched(1) && fetched(2));
  assert.equal(fetched(0), false);
  await claim.release(false);
  assert.deepEqual(
    (await pulled).map((tar, index) => tar.equals(big[index]!)),
    [true, true, true],
  );
  await other.close();
});

test('an abort ends waiting for another run, and what waits behind it', { timeout: 60_000 }, async () => {
  await using shop = await Workshop.open();
  const layers = layersOf(0).map(({ layer }) => layer);
  const other = await shop.store();
  const claim = await other.claim({
    digest: layers[0]!.digest!,
    signal: new AbortController().signal,
    waiting: () => undefined,
  });
  assert.ok(claim !== undefined && claim !== 'there');
  const abort = new AbortController();
  const reason = new Error('enough');
  const pulled = shop.pull(layers, { jobs: 1, signal: abort.signal });
  await until('the wait', () =>
    shop.notices.some((notice) => notice.includes('another run is downloading it')),
  );
  abort.abort(reason);
  await assert.rejects(pulled, reason);
  await claim.release(false);
  await other.close();
});
