import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DestinationError, NetworkError, UnauthorizedError } from '../../src/errors.ts';
import { until } from '../support/until.ts';
import { ScriptedLayer, type Play } from './support/scripted-layer.ts';
import { noise, Workshop } from './support/workshop.ts';

const MIB = 2 ** 20;
const blob = noise(24 * MIB);
/** Chunks of 64 KiB: about 13 MB/s, slow enough for several connections. */
const slow: Play = { pause: 5 };
const once = { retries: 0, delay: 1 };

test('pieces whose connections break come over others, from where they broke', async () => {
  await using shop = await Workshop.open();
  const cut: Play = { stopAfter: 300_000, failure: new NetworkError('gone') };
  const script = new ScriptedLayer(blob, (number) => (number % 3 === 1 ? cut : slow));
  const retryPolicy = { retries: 1, delay: 1 };
  assert.ok((await shop.pull([script.layer], { jobs: 4, retryPolicy }))[0]!.equals(blob));
  assert.ok(script.requests.every(({ end }) => end !== undefined));
  assert.ok(script.sent < blob.length + MIB, `${script.sent} bytes`);
  assert.equal(script.open, 0);
});

for (const [what, limited] of [
  ['cuts', { stopAfter: 0, failure: new Error('cut') }],
  ['ends', { stopAfter: 0 }],
  ['refuses', { refusal: new NetworkError('too many') }],
] as const) {
  test(`the rest comes over one connection where a server ${what} a second one`, async () => {
    await using shop = await Workshop.open();
    const script: ScriptedLayer = new ScriptedLayer(blob, () => (script.open > 0 ? limited : slow));
    assert.ok((await shop.pull([script.layer], { jobs: 7, retryPolicy: once }))[0]!.equals(blob));
    assert.equal(script.requests.filter(({ end }) => end === undefined).length, 1);
    assert.equal(script.open, 0);
  });
}

test('a server that refuses ranges, by any status, gets one request for the rest', async () => {
  await using shop = await Workshop.open();
  const refusal = new UnauthorizedError('no more than one for you');
  const script = new ScriptedLayer(blob, (number, { end }) =>
    number === 0 ? slow : end === undefined ? {} : { refusal },
  );
  assert.ok((await shop.pull([script.layer], { jobs: 3, retryPolicy: once }))[0]!.equals(blob));
  assert.equal(script.open, 0);
});

test('a refusal that holds for the one connection too is the error', async () => {
  await using shop = await Workshop.open();
  const refusal = new UnauthorizedError('gone for good');
  const script = new ScriptedLayer(blob, (number) => (number === 0 ? slow : { refusal }));
  await assert.rejects(shop.pull([script.layer], { jobs: 3, retryPolicy: once }), refusal);
  assert.equal(script.open, 0);
});

test('an abort ends every connection of a blob at once', async () => {
  await using shop = await Workshop.open();
  const abort = new AbortController();
  const script = new ScriptedLayer(blob, (number) => (number === 0 ? slow : { gate: new Promise(() => {}) }));
  const pulled = shop.pull([script.layer], { jobs: 3, signal: abort.signal });
  await until('three requests', () => script.requests.length >= 3);
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(pulled, reason);
  assert.equal(script.open, 0);
});

test('the ranges of a file are recorded before it has a hole, so that no run takes a hole for bytes', async () => {
  await using shop = await Workshop.open();
  const gate = Promise.withResolvers<void>();
  const script = new ScriptedLayer(blob, (number) => (number === 0 ? { gate: gate.promise } : slow));
  const pulled = shop.pull([script.layer], { jobs: 2 });
  const partial = path.join(shop.cache, 'partial', script.layer.digest!.replace(':', '-'));
  await until('bytes behind a hole', () => existsSync(partial) && statSync(partial).size > 0);
  assert.ok(existsSync(`${partial}.ranges`));
  gate.resolve();
  assert.ok((await pulled)[0]!.equals(blob));
});

test('a cache in which the ranges of a blob cannot be recorded is named', async () => {
  await using shop = await Workshop.open();
  const script = new ScriptedLayer(blob, () => slow);
  const partial = `${script.layer.digest!.replace(':', '-')}.ranges`;
  await mkdir(path.join(shop.cache, 'partial', partial), { recursive: true });
  await assert.rejects(
    shop.pull([script.layer], { jobs: 3 }),
    (error) => error instanceof DestinationError && error.message.includes(shop.cache),
  );
  assert.equal(script.open, 0);
});

test('with any faults of connections, the bytes are right or an error is thrown, and no connection stays open', async () => {
  await Promise.all(
    Array.from({ length: 8 }, async (_, round) => {
      await using shop = await Workshop.open();
      const random = generator(round + 1);
      const play = (number: number): Play => {
        if (number === 0)
          return { ...slow, ...(random() < 0.5 && { stopAfter: (MIB * (4 + 10 * random())) | 0 }) };
        const stopAfter = Math.floor(4 * MIB * random());
        const kind = Math.floor(6 * random());
        if (kind === 0) return { refusal: new NetworkError('no') };
        if (kind === 1) return { stopAfter, failure: new Error('reset') };
        if (kind === 2) return { stopAfter };
        if (kind === 3) return { gate: sleep(50 * random()) };
        return { pause: random() };
      };
      const script = new ScriptedLayer(blob, play);
      const directory = round % 2 === 0 ? shop.cache : undefined;
      const store = await shop.store({ directory });
      const outcome = await shop
        .pull([script.layer, script.layer], {
          store,
          jobs: 1 + (round % 4),
          retryPolicy: { retries: 3, delay: 1 },
        })
        .catch((error: unknown) => error);
      if (Array.isArray(outcome)) assert.ok(outcome.every((tar: Buffer) => tar.equals(blob)));
      else assert.ok(outcome instanceof NetworkError, String(outcome));
      assert.equal(script.open, 0, `round ${round}`);
      await store.close();
    }),
  );
});

/** Numbers from 0 to 1, the same for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}
