import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { DlrootfsError, IntegrityError, NetworkError, NotFoundError } from '../../src/errors.ts';
import { Workshop } from '../blob/support/workshop.ts';
import { FakeV1Registry } from '../support/fake-v1-registry.ts';
import { RegistryClient } from '../support/registry-client.ts';
import { withLayers } from '../support/v1-setting.ts';

const layers = [randomBytes(300_000), randomBytes(100_000), randomBytes(2_000)];
const repository = 'team/app';

const withRegistry = withLayers(repository, layers);

/** Downloads all layers as the program does: resumed, verified. */
async function download(client: RegistryClient, shop: Workshop): Promise<Buffer[]> {
  const { layers: found } = await client.image();
  return shop.pull(found);
}

const two = { mode: 'split', registries: 2 } as const;

// --- several registries ---

test('several registries: one that is dead is passed over, said once, and not asked again', async () => {
  await withRegistry(two, {}, async (registry, client) => {
    await registry.stop('registry0');
    assert.deepEqual(await client.pull(), layers);
    const said = client.notices.filter((notice) => /trying .* instead/.test(notice));
    assert.equal(said.length, 1);
    assert.match(
      said[0]!,
      new RegExp(
        `cannot connect to ${registry.hostOf('registry0')}: .*; trying ${registry.hostOf('registry1')} instead`,
      ),
    );
    assert.equal(client.notices.filter((notice) => /retry/.test(notice)).length, 1);
  });
});

test('several registries: a layer that the first has not comes from the next', async () => {
  await withRegistry(
    { ...two, faults: [{ path: /registry0 .*layer/, status: 404, times: 99 }] },
    {},
    async (_, client) => {
      await using shop = await Workshop.open();
      assert.deepEqual(await download(client, shop), layers);
    },
  );
});

test('several registries: a layer that breaks off at the first goes on at the next', async () => {
  await withRegistry(
    { ...two, faults: [{ path: /registry0 .*layer/, cutAfter: 1000, times: 99 }] },
    {},
    async (registry, client) => {
      await using shop = await Workshop.open();
      assert.deepEqual(await download(client, shop), layers);
      const ranges = registry.requests.filter(
        ({ server, headers }) => server === 'registry1' && headers.range,
      );
      assert.ok(ranges.length > 0);
    },
  );
});

test('several registries: all are dead', async () => {
  await withRegistry(two, { retry: 1 }, async (registry, client) => {
    await registry.stop('registry0');
    await registry.stop('registry1');
    await assert.rejects(client.image(), (error) => {
      assert.ok(error instanceof NetworkError);
      assert.match(
        error.message,
        /^cannot reach any of the 2 registries of the index: cannot connect to .*; cannot connect to /,
      );
      return true;
    });
  });
});

test('several registries: the answer of one is reported, not the failure of another', async () => {
  await withRegistry(
    { ...two, faults: [{ path: /tags/, status: 404, times: 99 }] },
    { retry: 1 },
    async (registry, client) => {
      await registry.stop('registry0');
      await assert.rejects(client.image(), NotFoundError);
    },
  );
});

// --- layers ---

for (const rangeUnit of [true, false]) {
  test(`a layer that breaks off is resumed, Content-Range ${rangeUnit ? 'with' : 'without'} the word bytes`, async () => {
    const faults = [{ path: /layer/, cutAfter: 100_000, times: 3 }];
    await withRegistry({ rangeUnit, faults }, {}, async (registry, client) => {
      await using shop = await Workshop.open();
      assert.deepEqual(await download(client, shop), layers);
      assert.ok(registry.requests.some(({ headers }) => /^bytes=\d+-$/.test(headers.range ?? '')));
    });
  });
}

test('a layer behind a redirect is resumed by asking the registry again', async () => {
  const faults = [{ path: /^storage/, cutAfter: 100_000, times: 2 }];
  await withRegistry({ mode: 'split', redirectLayers: 302, faults }, {}, async (registry, client) => {
    await using shop = await Workshop.open();
    assert.deepEqual(await download(client, shop), layers);
    const resumed = registry.requests
      .filter(({ headers }) => headers.range !== undefined)
      .map(({ server }) => server);
    assert.deepEqual(new Set(resumed), new Set(['registry0', 'storage']));
  });
});

test('a signature that ran out: the registry gives another', async () => {
  const faults = [{ path: /^storage/, status: 403, times: 2 }];
  await withRegistry({ redirectLayers: 302, faults }, {}, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

test('a server without ranges: the layer is fetched from the start', async () => {
  const faults = [{ path: /layer/, cutAfter: 1000, times: 2 }];
  await withRegistry({ ranges: false, faults }, {}, async (_, client) => {
    await using shop = await Workshop.open();
    assert.deepEqual(await download(client, shop), layers);
  });
});

test('a layer with a wrong byte is fetched once more, and then refused', async () => {
  await withRegistry({}, {}, async (registry, client) => {
    await using shop = await Workshop.open();
    const { layers: found } = await client.image();
    registry.fault({ path: /layer/, corruptAt: 7, times: 2 });
    await assert.rejects(shop.pull(found.slice(1, 2), {}), (error) => error instanceof IntegrityError);
  });
});

test('a wrong byte in the JSON is found by the layer’s checksum', async () => {
  await using registry = await FakeV1Registry.start();
  const [stored] = registry.push(repository, 'latest', { layers: layers.slice(0, 1) });
  const body = Buffer.from(stored!.json).toString().replace('linux', 'linus');
  registry.fault({ path: /json$/, body, times: 9 });
  await using client = await RegistryClient.open(registry.reference(repository));
  await using shop = await Workshop.open();
  await assert.rejects(
    download(client, shop),
    (error) => error instanceof IntegrityError && /digest sha256:/.test(error.message),
  );
});

for (const checksums of ['none', 'tarsum-only'] as const) {
  test(`checksums ${checksums}: one notice says that nothing can be verified`, async () => {
    await withRegistry({ checksums }, {}, async (_, client) => {
      await using shop = await Workshop.open();
      assert.deepEqual(await download(client, shop), layers);
      const notices = [...client.notices, ...shop.notices];
      assert.deepEqual(notices, ['3 of 3 layers cannot be verified: the registry has no checksums for them']);
    });
  });
}

test('a layer without checksum that ends too early is noticed by its size', async () => {
  const faults = [{ path: /layer/, endAfter: 1000, times: 99, ignoreRange: true }];
  await withRegistry({ checksums: 'none', faults }, {}, async (_, client) => {
    await using shop = await Workshop.open();
    await assert.rejects(
      download(client, shop),
      (error) =>
        error instanceof DlrootfsError && /the connection ended after 1000 of \d+ bytes/.test(error.message),
    );
  });
});

test('without sizes too a layer comes whole', async () => {
  await withRegistry(
    { sizes: false, faults: [{ path: /layer/, cutAfter: 5000, times: 2 }] },
    {},
    async (_, client) => {
      await using shop = await Workshop.open();
      assert.deepEqual(await download(client, shop), layers);
    },
  );
});

for (const sizes of [true, false]) {
  test(`a layer of no bytes, ${sizes ? 'said to be so' : 'of unknown size'}: the old server answers 416`, async () => {
    await using registry = await FakeV1Registry.start({ sizes });
    registry.push(repository, 'latest', { layers: [layers[2]!, Buffer.alloc(0)] });
    await using client = await RegistryClient.open(registry.reference(repository));
    await using shop = await Workshop.open();
    assert.deepEqual(await download(client, shop), [layers[2], Buffer.alloc(0)]);
    assert.equal(registry.log(/layer$/).length, 2);
  });
}

test('416 for a layer that has bytes is an error', async () => {
  await withRegistry(
    { faults: [{ path: /layer/, status: 416, body: '', times: 99 }] },
    { retry: 1 },
    async (_, client) => {
      const { layers: found } = await client.image();
      await assert.rejects(client.blob(found[0]!), NetworkError);
    },
  );
});

// --- requests ---

test('an abort ends everything at once', async () => {
  const abort = new AbortController();
  const faults = [{ path: /json/, before: 'silent', times: 99 }] as const;
  await withRegistry({ faults }, { signal: abort.signal }, async (_, client) => {
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 100);
    await assert.rejects(client.image(), (error) => error === reason);
  });
});
