import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { layerQueue } from '../../src/blob/queue.ts';
import { CorruptBlobError } from '../../src/blob/transfer.ts';
import { IntegrityError, NetworkError } from '../../src/errors.ts';
import type { RemoteLayer } from '../../src/oci/image.ts';
import { RequestQueue } from '../../src/sys/request-queue.ts';
import type { FakeLayer } from '../support/fake-image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { layersOf } from './support/http-layer.ts';
import { noise, Workshop } from './support/workshop.ts';

const tars = [noise(300_000), Buffer.alloc(2_000_000, 'abc'), noise(70), noise(1_200_000)];

function start(layers: readonly FakeLayer[], options = {}) {
  return FakeRegistry.start(options).then((registry) => {
    const image = registry.push('lib/x', 'latest', { layers });
    return { registry, layers: layersOf(registry, 'lib/x', image), image };
  });
}

const packed = tars.map((tar, index) => ({
  tar,
  compression: (['gzip', 'zstd', 'none', 'gzip'] as const)[index]!,
}));

function blobRequests(registry: FakeRegistry): number {
  return registry.log(/\/blobs\//).length;
}

for (const [name, cached] of [
  ['with the cache', true],
  ['without the cache', false],
] as const) {
  const options = cached ? {} : { directory: undefined };

  test(`${name}: tars come out verified, in order, from one request each`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    const store = await shop.store(options);
    assert.deepEqual(await shop.pull(layers, { store }), tars);
    assert.equal(blobRequests(registry), 4);
    const types = shop.events.map((event) => event.type);
    assert.equal(types.filter((type) => type === 'layer-fetched').length, 4);
    await store.close();
    const left = readdirSync(shop.directory, { recursive: true, encoding: 'utf8' });
    assert.equal(left.filter((file) => /[0-9a-f]{64}/.test(file)).length, cached ? 4 : 0, left.join(' '));
    assert.deepEqual(shop.notices, []);
  });

  test(`${name}: a blob that is listed twice is fetched once`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([packed[0]!, packed[1]!, packed[0]!, packed[0]!]);
    await using _ = registry;
    const store = await shop.store(options);
    const got = await shop.pull(layers, { store });
    assert.deepEqual(got, [tars[0], tars[1], tars[0], tars[0]]);
    assert.equal(blobRequests(registry), 2);
    assert.deepEqual(
      shop.events
        .filter((event) => event.type === 'layer-fetched')
        .map((event) => event.index)
        .toSorted((a, b) => a - b),
      [0, 1, 2, 3],
    );
    await store.close();
  });

  test(`${name}: a connection that breaks again and again is resumed where it broke`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([{ tar: tars[3]!, compression: 'none' }]);
    await using _ = registry;
    registry.fault({ path: /blobs/, times: 5, cutAfter: 200_000 });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pull(layers, { store }), [tars[3]]);
    await store.close();
    const ranges = registry.requests.map((request) => request.headers.range);
    assert.equal(ranges.length, 6);
    assert.equal(ranges[0], undefined);
    assert.equal(ranges[5], 'bytes=1000000-');
    assert.equal(shop.notices.length, 5);
    assert.match(shop.notices[0]!, /^layer 1 of 1 \([0-9a-f]{12}\): .*; resuming from byte 200000$/);
  });

  test(`${name}: a server that ignores the range sends what is here already once more`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([{ tar: tars[3]!, compression: 'none' }], { ranges: false });
    await using _ = registry;
    registry.fault({ path: /blobs/, times: 2, cutAfter: 500_000 });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pull(layers, { store }), [tars[3]]);
    await store.close();
  });

  test(`${name}: a connection without progress ends in a network error with its position`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([packed[0]!]);
    await using _ = registry;
    registry.fault({ path: /blobs/, times: 100, cutAfter: 0 });
    const store = await shop.store(options);
    await assert.rejects(shop.pull(layers, { store }), NetworkError);
    assert.equal(blobRequests(registry), 3);
    await store.close();
  });

  test(`${name}: the first failure ends all downloads, and is thrown`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    // The first layer stalls for ever; the registry does not have the third one.
    registry.fault({ path: new RegExp(layers[0]!.id), times: 9, stallAfter: 1000 });
    registry.fault({ path: new RegExp(layers[2]!.id), times: 9, status: 404, body: '{}' });
    const store = await shop.store(options);
    await assert.rejects(shop.pull(layers, { store }), /status 404/);
    await store.close();
  });

  test(`${name}: leaving early ends the downloads`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    registry.fault({ path: new RegExp(layers[1]!.id), times: 9, stallAfter: 1000 });
    const store = await shop.store(options);
    const queue = layerQueue(layers, {
      store,
      requests: new RequestQueue(2),
      retryPolicy: { retries: 2, delay: 10 },
      signal: new AbortController().signal,
      report: (event) => shop.events.push(event),
    });
    for await (const pulled of queue) {
      for await (const chunk of pulled.tar()) {
        assert.ok(chunk);
        break;
      }
      break;
    }
    await store.close();
  });

  test(`${name}: an abort from outside ends it with its reason`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    registry.fault({ path: /blobs/, times: 9, stallAfter: 1000 });
    const store = await shop.store(options);
    const controller = new AbortController();
    const reason = new Error('interrupted');
    setTimeout(() => controller.abort(reason), 100);
    await assert.rejects(shop.pull(layers, { store, signal: controller.signal }), reason);
    await store.close();
  });

  test(`${name}: too many bytes are refused as soon as there is one too many`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([{ tar: tars[2]!, compression: 'none' }]);
    await using _ = registry;
    registry.fault({ path: /blobs/, times: 9, endless: true });
    const store = await shop.store(options);
    await assert.rejects(shop.pull(layers, { store }), IntegrityError);
    await store.close();
  });

  test(`${name}: wrong bytes that were read are reported as such, and the next pull succeeds`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([packed[0]!, { tar: tars[3]!, compression: 'none' }]);
    await using _ = registry;
    registry.fault({ path: new RegExp(layers[1]!.id), corruptAt: 600_000, rate: 4_000_000 });
    const store = await shop.store(options);
    await assert.rejects(shop.pull(layers, { store }), CorruptBlobError);
    assert.deepEqual(await shop.pull(layers, { store }), [tars[0], tars[3]]);
    await store.close();
  });

  test(`${name}: held layers with wrong bytes are pulled once more, and only once`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([packed[0]!, { tar: tars[3]!, compression: 'none' }]);
    await using _ = registry;
    registry.fault({ path: new RegExp(layers[1]!.id), corruptAt: 600_000 });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pullAgain(layers, { store, hold: true }), [tars[0], tars[3]]);
    assert.match(
      shop.notices.join(),
      /has digest sha256:.* but must have sha256:.*; starting the pull again without it/,
    );
    await store.close();
    registry.fault({ path: new RegExp(layers[1]!.id), times: 2, corruptAt: 600_000 });
    const other = await shop.store({ directory: cached ? `${shop.cache}2` : undefined });
    await assert.rejects(shop.pullAgain(layers, { store: other, hold: true }), IntegrityError);
    await other.close();
  });

  test(`${name}: each of several blobs may be wrong once`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([
      { tar: tars[3]!, compression: 'none' },
      { tar: tars[0]!, compression: 'none' },
    ]);
    await using _ = registry;
    registry.fault({ path: new RegExp(layers[0]!.id), corruptAt: 100, rate: 1_000_000 });
    registry.fault({ path: new RegExp(layers[1]!.id), corruptAt: 100 });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pullAgain(layers, { store }), [tars[3], tars[0]]);
    await store.close();
  });

  test(`${name}: a size from a wrong response is not used again`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start([{ tar: tars[3]!, compression: 'none' }]);
    await using _ = registry;
    const unsized = layers.map((layer): RemoteLayer => ({ ...layer, size: undefined }));
    registry.fault({ path: /blobs/, body: 'please log in' });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pullAgain(unsized, { store }), [tars[3]]);
    await store.close();
  });

  test(`${name}: a diffID that is another is an error that names both`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    const wrong = layers.with(1, { ...layers[1]!, diffID: layers[0]!.diffID });
    const store = await shop.store(options);
    await assert.rejects(shop.pull(wrong, { store }), (error: unknown) => {
      assert.ok(error instanceof IntegrityError);
      assert.equal(error.code, 'DIFF_ID_MISMATCH');
      const [other, own] = layers.map(({ diffID }) => diffID);
      const text = `its tar has diffID ${own} but the image's config says ${other}`;
      assert.match(error.message, /^layer 2 of 4 /);
      assert.ok(error.message.endsWith(text), error.message);
      return true;
    });
    await store.close();
  });

  test(`${name}: a held layer is verified before it is applied`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    const store = await shop.store(options);
    const got: Buffer[] = [];
    const queue = layerQueue(layers, {
      store,
      requests: new RequestQueue(2),
      retryPolicy: { retries: 2, delay: 10 },
      hold: true,
      signal: new AbortController().signal,
      report: (event) => shop.events.push(event),
    });
    for await (const pulled of queue) {
      await pulled.verified();
      assert.equal(pulled.diffID, pulled.layer.diffID);
      const chunks: Buffer[] = [];
      for await (const chunk of pulled.tar()) chunks.push(Buffer.from(chunk));
      got.push(Buffer.concat(chunks));
      const again: Buffer[] = [];
      for await (const chunk of pulled.tar()) again.push(Buffer.from(chunk));
      assert.deepEqual(Buffer.concat(again), got.at(-1));
      assert.equal(pulled.blobSize, pulled.layer.size);
    }
    assert.deepEqual(got, tars);
    await store.close();
  });

  test(`${name}: layers without a checksum are returned, with a notice`, async () => {
    await using shop = await Workshop.open();
    const { registry, layers } = await start(packed);
    await using _ = registry;
    const bare = layers.map((layer): RemoteLayer => ({
      id: layer.id,
      mediaType: '',
      info: {},
      open: (range, signal) => layer.open(range, signal),
    }));
    registry.fault({ path: new RegExp(layers[3]!.id), cutAfter: 500_000 });
    const store = await shop.store(options);
    assert.deepEqual(await shop.pull(bare, { store }), tars);
    assert.match(shop.notices[0]!, /^4 of 4 layers cannot be verified/);
    await store.close();
  });
}
