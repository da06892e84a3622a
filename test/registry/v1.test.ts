import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import {
  DlrootfsError,
  IntegrityError,
  NetworkError,
  NotFoundError,
  UnauthorizedError,
  UsageError,
  printable,
} from '../../src/errors.ts';
import type { Answer } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { FakeV1Registry } from '../support/fake-v1-registry.ts';
import { RegistryClient } from '../support/registry-client.ts';
import { withLayers } from '../support/v1-setting.ts';

const layers = [Buffer.from('base layer'), Buffer.from('middle layer'), Buffer.from('top layer')];
const repository = 'team/app';

const withRegistry = withLayers(repository, layers);

for (const mode of ['standalone', 'split'] as const) {
  test(`${mode}: image, layers base first with the ids of version 1, blobs as stored`, async () => {
    await using registry = await FakeV1Registry.start({ mode });
    const stored = registry.push(repository, '1.0', { layers });
    await using client = await RegistryClient.open(registry.reference(repository, '1.0'));
    const image = await client.image();
    assert.equal(image.id, stored[2]!.id);
    assert.equal(image.digest, undefined);
    assert.deepEqual(image.platform, { os: 'linux', architecture: 'amd64' });
    assert.deepEqual(image.config.config.Cmd, ['/bin/sh']);
    assert.deepEqual(
      image.layers.map(({ id, size, checksum, digest, diffID }) => ({ id, size, checksum, digest, diffID })),
      stored.map(({ id, blob, checksum, json }) => ({
        id,
        size: blob.length,
        checksum: { digest: checksum, prefix: Buffer.concat([json, Buffer.from('\n')]) },
        digest: undefined,
        diffID: undefined,
      })),
    );
    assert.deepEqual(
      image.layers.map(({ info }) => info),
      stored.map(({ json }) => JSON.parse(Buffer.from(json).toString()) as unknown),
    );
    assert.equal(image.layers[1]!.createdBy, '/bin/sh -c #(nop) layer 1');
    assert.deepEqual(
      image.config.history.map((step) => step.createdBy),
      [0, 1, 2].map((n) => `/bin/sh -c #(nop) layer ${n}`),
    );
    assert.deepEqual(await Promise.all(image.layers.map((layer) => client.blob(layer))), layers);
    assert.deepEqual(client.notices, []);
  });
}

test('a pull makes the requests of Docker 1.4, with one ping', async () => {
  await withRegistry({ mode: 'split' }, {}, async (registry, client) => {
    const { layers: found } = await client.image();
    assert.deepEqual(registry.log().slice(0, 5), [
      'index GET /v2/',
      'index GET /v1/_ping',
      'index GET /v1/repositories/team/app/images',
      'registry0 GET /v1/repositories/team/app/tags',
      `registry0 GET /v1/images/${found[2]!.id}/ancestry`,
    ]);
    assert.deepEqual(
      registry.log().slice(5).toSorted(),
      found.map(({ id }) => `registry0 GET /v1/images/${id}/json`).toSorted(),
    );
    const before = registry.requests.length;
    await client.blob(found[0]!);
    assert.deepEqual(registry.log().slice(before), [`registry0 GET /v1/images/${found[0]!.id}/layer`]);
  });
});

test('a name without a name space is one in library/', async () => {
  await using registry = await FakeV1Registry.start();
  registry.push('busybox', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('busybox'));
  assert.deepEqual(await client.pull(), layers);
  assert.equal(registry.log(/repositories\/library\/busybox\//).length, 2);
});

test('the host of the registry is no part of the name that it is asked for', async () => {
  await withRegistry({}, {}, async (registry, client) => {
    await client.image();
    assert.deepEqual(registry.log(/127\.0\.0\.1/), []);
  });
});

test('a long ancestry: every layer once, in order, and nothing on standard error', async () => {
  await using registry = await FakeV1Registry.start();
  const many = Array.from({ length: 127 }, (_, n) => Buffer.from(`layer ${n}`));
  registry.push(repository, 'latest', { layers: many });
  const warnings: unknown[] = [];
  const listen = (warning: Error) => warnings.push(warning);
  process.on('warning', listen);
  await using client = await RegistryClient.open(registry.reference(repository));
  assert.deepEqual(await client.pull(), many);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', listen);
  assert.deepEqual(warnings, []);
});

test('images with ids of 16 digits', async () => {
  await using registry = await FakeV1Registry.start();
  const ids = ['0123456789abcdef', 'fedcba9876543210'];
  registry.push(repository, 'latest', { layers: layers.slice(0, 2), ids });
  await using client = await RegistryClient.open(registry.reference(repository));
  assert.deepEqual(
    (await client.image()).layers.map(({ id }) => id),
    ids,
  );
});

test('the platform is that of the image JSON; very old images name none', async () => {
  await using registry = await FakeV1Registry.start();
  registry.push(repository, 'arm', { layers, platform: { os: 'linux', architecture: 'arm' } });
  registry.push(repository, 'old', {
    layers,
    json: layers.map(() => ({ os: undefined, architecture: undefined })),
  });
  await using arm = await RegistryClient.open(registry.reference(repository, 'arm'));
  assert.deepEqual((await arm.image()).platform, { os: 'linux', architecture: 'arm', variant: 'v7' });
  await using old = await RegistryClient.open(registry.reference(repository, 'old'));
  assert.deepEqual((await old.image()).platform, { os: '', architecture: '' });
});

test('the tags of a repository, sorted', async () => {
  await withRegistry({}, {}, async (registry, client) => {
    const [image] = registry.push(repository, '10', { layers });
    for (const tag of ['b', '9', 'not a tag', '__proto__', 'A']) registry.tag(repository, tag, image!.id);
    assert.deepEqual(await client.tags(), ['10', '9', 'A', '__proto__', 'b', 'latest'].toSorted());
  });
});

// --- which version ---

test('version 1 only where version 2 is not known', async () => {
  await using registry = await FakeRegistry.start();
  registry.push(repository, 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference(repository));
  await client.pull();
  assert.deepEqual(registry.log(/v1/), []);
});

test('never after a 401 from version 2', async () => {
  const v2 = { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };
  await withRegistry({ v2 }, {}, async (registry, client) => {
    await assert.rejects(client.image());
    assert.deepEqual(registry.log(/v1/), []);
  });
});

test('never after a 403 from version 2', async () => {
  await withRegistry({ v2: { status: 403 } }, {}, async (registry, client) => {
    await assert.rejects(client.image(), UnauthorizedError);
    assert.deepEqual(registry.log(/v1/), []);
  });
});

for (const status of [400, 405, 410]) {
  test(`${status} from /v2/ is no version 2`, async () => {
    await withRegistry({ v2: { status } }, {}, async (_, client) => {
      assert.deepEqual(await client.pull(), layers);
    });
  });
}

test('a server that answers a web page to /v2/ is asked for version 1', async () => {
  const page = {
    status: 200,
    headers: { 'content-type': 'text/html' },
    body: Buffer.from('<html>hello</html>'),
  };
  await withRegistry({ v2: page }, {}, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

test('a server of version 2 that answers a web page to /v2/ is one of version 2 all the same', async () => {
  await using registry = await FakeRegistry.start();
  registry.push(repository, 'latest', { layers });
  registry.fault({ path: /^\/v2\/$/, headers: { 'content-type': 'text/html' } });
  await using client = await RegistryClient.open(registry.reference(repository));
  assert.deepEqual(await client.pull(), layers);
});

test('a server that is no registry at all is said to be none', async () => {
  await withRegistry({ faults: [{ path: /_ping/, status: 404, times: 9 }] }, {}, async (registry, client) => {
    await assert.rejects(client.image(), (error) => {
      assert.ok(error instanceof NetworkError);
      assert.equal(
        error.message,
        `${registry.host} is not a registry: GET /v2/ is answered 404, GET /v1/_ping 404`,
      );
      assert.equal(error.exitCode, 5);
      assert.match(error.hint ?? '', /container registry/);
      return true;
    });
    assert.equal(registry.requests.length, 2);
  });
});

test('a web page in answer to the ping is no version 1', async () => {
  const page = {
    path: /./,
    status: 200,
    headers: { 'content-type': 'text/html' },
    body: '<html>',
    times: 99,
  };
  const pingHeaders = { 'x-docker-registry-version': [], 'x-docker-registry-standalone': [] };
  await withRegistry({ pingHeaders, faults: [page] }, {}, async (registry, client) => {
    await assert.rejects(client.image());
    assert.deepEqual(registry.log(/v1\/repo/), []);
  });
});

test('registryVersion 1: /v2/ is not asked', async () => {
  await withRegistry({}, { registryVersion: 1 }, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.equal(registry.log()[0], 'index GET /v1/_ping');
  });
});

test('registryVersion 1 with a registry whose ping is answered 404, as Docker 1.4 took it', async () => {
  const faults = [{ path: /_ping/, status: 404, times: 9 }];
  await withRegistry({ faults }, { registryVersion: 1 }, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

test('registryVersion 1 with a registry of version 2 says what was found', async () => {
  await using registry = await FakeRegistry.start();
  registry.push(repository, 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference(repository), { registryVersion: 1 });
  await assert.rejects(
    client.image(),
    (error) => error instanceof NotFoundError && /_ping is answered 404 too/.test(error.hint ?? ''),
  );
});

test('registryVersion 2 with a registry of version 1', async () => {
  await withRegistry({}, { registryVersion: 2 }, async (registry, client) => {
    await assert.rejects(client.image(), /does not speak version 2/);
    assert.deepEqual(registry.log(/v1/), []);
  });
});

test('a digest cannot be asked for by version 1', async () => {
  await using registry = await FakeV1Registry.start();
  const reference = `${registry.host}/${repository}@sha256:${'0'.repeat(64)}`;
  await using client = await RegistryClient.open(reference, { registryVersion: 1 });
  await assert.rejects(client.image(), UsageError);
  assert.deepEqual(registry.requests, []);
});

test('a mirror of version 2 in front of a registry of version 1, and the other way round', async () => {
  await using old = await FakeV1Registry.start();
  await using modern = await FakeRegistry.start();
  old.push(repository, 'latest', { layers: [Buffer.from('old')] });
  modern.push(repository, 'latest', { layers: [Buffer.from('new')] });
  for (const [reference, mirror] of [
    [old.reference(repository), modern.host],
    [modern.reference(repository), old.host],
  ] as const) {
    await using client = await RegistryClient.open(reference, { mirrors: [`http://${mirror}`] });
    assert.equal(String(await client.pull()), 'new');
  }
});

test('no plain http because a registry is old: https stays', async () => {
  await using registry = await FakeV1Registry.start({ tls: true });
  registry.push(repository, 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference(repository), { tlsVerify: false });
  assert.deepEqual(await client.pull(), layers);
  await using forced = await RegistryClient.open(registry.reference(repository), { registryVersion: 1 });
  await assert.rejects(
    forced.image(),
    (error) => error instanceof NetworkError && error.code === 'CERTIFICATE',
  );
});

// --- what is refused ---

const id = 'a'.repeat(64);
type Refusal = readonly [
  what: string,
  path: RegExp,
  body: unknown,
  kind: new (...args: never[]) => Error,
  message: RegExp,
];

const refusals: readonly Refusal[] = [
  ['a tag that is not there', /tags/, { '1.0': id }, NotFoundError, /team\/app has no tag latest$/],
  ['no tags', /tags/, {}, NotFoundError, /has no tag latest/],
  [
    'tags as an array',
    /tags/,
    [{ name: 'latest', layer: id }],
    IntegrityError,
    /list of tags .* is not a JSON object/,
  ],
  ['tags as null', /tags/, null, IntegrityError, /is not a JSON object/],
  [
    'a tag to no id',
    /tags/,
    { latest: 'sha256:abc' },
    IntegrityError,
    /"sha256:abc", which is not 64 or 16 hex digits/,
  ],
  ['a tag to a path', /tags/, { latest: '../../etc/passwd' }, IntegrityError, /not 64 or 16 hex/],
  ['a tag to an object', /tags/, { latest: {} }, IntegrityError, /something that is no text/],
  ['an id in capital letters', /tags/, { latest: 'A'.repeat(64) }, IntegrityError, /not 64 or 16 hex/],
  ['an empty ancestry', /ancestry/, [], IntegrityError, /is empty: an image has one layer at least/],
  ['an ancestry that is an object', /ancestry/, {}, IntegrityError, /is not a JSON array/],
  [
    'an ancestry that begins with another image',
    /ancestry/,
    [id],
    IntegrityError,
    /begins with another image/,
  ],
  ['an ancestry with a number', /ancestry/, [1], IntegrityError, /layer 1 in the ancestry/],
  ['an ancestry with a path', /ancestry/, ['../x'], IntegrityError, /"\.\.\/x"/],
  [
    'a JSON that is an array',
    /json/,
    [],
    IntegrityError,
    /the JSON of image [0-9a-f]{64} is not a JSON object/,
  ],
  ['the JSON of another image', /json/, { id }, IntegrityError, /is that of another image, a{64}/],
  [
    'a JSON with another parent',
    /json/,
    { parent: id },
    IntegrityError,
    /names the parent a{64}, but by the ancestry/,
  ],
  [
    'images that are no list',
    /images$/,
    {},
    NetworkError,
    /cannot read the list of images of team\/app: .* is not a JSON array/,
  ],
];

for (const [what, path, body, kind, message] of refusals) {
  test(`refused: ${what}`, async () => {
    const faults = [{ path, body: JSON.stringify(body), times: 99 }];
    await withRegistry({ faults }, {}, async (_, client) => {
      await assert.rejects(client.image(), (error) => {
        assert.ok(error instanceof kind, String(error));
        assert.match(error.message, message);
        return true;
      });
    });
  });
}

test('an unknown tag names those that there are', async () => {
  await using registry = await FakeV1Registry.start();
  const [image] = registry.push(repository, '1.0', { layers });
  await using client = await RegistryClient.open(registry.reference(repository, '2.0'));
  await assert.rejects(client.image(), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.equal(error.message, `${registry.host}/team/app has no tag 2.0`);
    assert.equal(error.hint, 'it has 1.0');
    return true;
  });
  assert.deepEqual(registry.log(/images\//), []);
  for (let n = 0; n < 20; n += 1) registry.tag(repository, `v${n}`, image!.id);
  await using another = await RegistryClient.open(registry.reference(repository, '2.0'));
  await assert.rejects(
    another.image(),
    (error) => error instanceof NotFoundError && error.hint!.endsWith(', …'),
  );
});

test('an ancestry that loops, and one that repeats itself', async () => {
  for (const repeat of [
    (ids: readonly string[]) => [...ids, ids[0]!],
    (ids: readonly string[]) => [ids[0]!, ids[1]!, ids[1]!, ids[2]!],
  ]) {
    await using registry = await FakeV1Registry.start();
    const ids = registry.push(repository, 'latest', { layers }).map((each) => each.id);
    registry.fault({ path: /ancestry/, body: JSON.stringify(repeat(ids.toReversed())), times: 9 });
    await using client = await RegistryClient.open(registry.reference(repository));
    await assert.rejects(
      client.image(),
      (error) => error instanceof IntegrityError && /more than once/.test(error.message),
    );
  }
});

test('an ancestry of five thousand layers', async () => {
  await using registry = await FakeV1Registry.start();
  const top = registry.push(repository, 'latest', { layers }).at(-1)!.id;
  const ids = Array.from({ length: 4999 }, (_, n) => n.toString(16).padStart(64, '0'));
  registry.fault({ path: /ancestry/, body: JSON.stringify([top, ...ids]), times: 9 });
  await using client = await RegistryClient.open(registry.reference(repository));
  await assert.rejects(client.image(), /lists 5000 layers, 4096 are allowed/);
});

for (const [what, path] of [
  ['the list of images', /images$/],
  ['the tags', /tags$/],
  ['the ancestry', /ancestry$/],
  ['the JSON', /json$/],
] as const) {
  test(`${what} without end is given up`, async () => {
    const faults = [{ path, endless: true, times: 99 }];
    await withRegistry({ faults }, { retry: 0 }, async (_, client) => {
      await assert.rejects(
        client.image(),
        (error) => error instanceof NetworkError && error.code === 'BODY_TOO_LARGE',
      );
    });
  });
}

test('the answer to a ping counts by its head, however long the body is', async () => {
  const faults = [{ path: /_ping$/, endless: true, times: 9 }];
  await withRegistry({ faults }, {}, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

test('a server of version 1 with a long page for what it does not know', async () => {
  await withRegistry({ v2: { status: 404, body: Buffer.alloc(200_000, 'x') } }, {}, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

test('many large JSON documents are given up together', async () => {
  await using registry = await FakeV1Registry.start();
  const comment = 'x'.repeat(3 * 1024 * 1024);
  const many = Array.from({ length: 24 }, (_, n) => Buffer.from(`layer ${n}`));
  registry.push(repository, 'latest', { layers: many, json: many.map(() => ({ comment })) });
  await using client = await RegistryClient.open(registry.reference(repository));
  await assert.rejects(client.image(), /have more than 33554432 bytes/);
});

for (const [header, size] of [
  [undefined, undefined],
  ['', undefined],
  ['-1', undefined],
  ['0', 0],
  [' 17 ', 17],
] as const) {
  test(`X-Docker-Size ${JSON.stringify(header)} means ${size}`, async () => {
    const headers: Record<string, string> = header === undefined ? {} : { 'x-docker-size': header };
    const options = { sizes: false, faults: [{ path: /json$/, headers, times: 9 }] };
    await withRegistry(options, {}, async (_, client) => {
      assert.deepEqual(new Set((await client.image()).layers.map((layer) => layer.size)), new Set([size]));
    });
  });
}

test('an X-Docker-Size that is no number is malformed', async () => {
  const faults = [{ path: /json$/, headers: { 'x-docker-size': '1e3' }, times: 9 }];
  await withRegistry({ faults }, {}, async (_, client) => {
    await assert.rejects(
      client.image(),
      /the size of layer [0-9a-f]{64} is "1e3", which is no number of bytes/,
    );
  });
});

for (const [checksums, verified] of [
  ['text', true],
  ['list', true],
  ['python-list', true],
  ['tarsum-only', false],
  ['none', false],
] as const) {
  test(`checksums as ${checksums}: ${verified ? 'layers are verified' : 'nothing to verify by'}`, async () => {
    await withRegistry({ checksums }, {}, async (_, client) => {
      const image = await client.image();
      assert.deepEqual(
        image.layers.map(({ checksum }) => checksum !== undefined),
        layers.map(() => verified),
      );
    });
  });
}

test(
  'property: whatever a server answers, the session ends in an error of ours or in an image',
  { timeout: 60_000 },
  async () => {
    await using registry = await FakeV1Registry.start();
    const stored = registry.push(repository, 'latest', { layers });
    let fault: { readonly path: RegExp; readonly answer: Answer } | undefined;
    await using hostile = await FakeV1Registry.start({
      handler: ({ path }) => (fault?.path.test(path) ? fault.answer : undefined),
    });
    hostile.push(repository, 'latest', { layers });
    const text = fc.string({ unit: 'binary', maxLength: 50 });
    const json = fc.oneof(
      fc.json({ maxDepth: 3 }),
      fc.constantFrom(
        ...stored.flatMap((each) => [`["${each.id}"]`, `{"latest":"${each.id}"}`, `{"id":"${each.id}"}`]),
      ),
      text,
    );
    // Header values are sent as Latin-1.
    const value = fc.oneof(
      fc.stringMatching(/^[\x20-\x7e\xa0-\xff]{0,40}$/),
      fc.constantFrom('-1', 'sha256:', ',', 'a'.repeat(70)),
    );
    const names = [
      'x-docker-token',
      'x-docker-size',
      'x-docker-checksum-payload',
      'set-cookie',
      'content-type',
      'location',
    ];
    const headers = fc.dictionary(fc.constantFrom(...names), value);
    const path = fc.constantFrom(/v2/, /_ping/, /images$/, /tags/, /ancestry/, /json/);
    const status = fc.oneof(
      { weight: 3, arbitrary: fc.constant(200) },
      fc.constantFrom(201, 204, 206, 302, 304, 400, 401, 404, 418, 500),
    );
    await fc.assert(
      fc.asyncProperty(path, status, headers, json, async (where, code, extra, body) => {
        fault = { path: where, answer: { status: code, headers: extra, body: Buffer.from(body) } };
        await using client = await RegistryClient.open(hostile.reference(repository), {
          retry: 0,
          timeouts: { headers: 2000 },
        });
        const failure = await client.image().then(
          () => undefined,
          (error: unknown) => error,
        );
        if (failure === undefined) return;
        assert.ok(failure instanceof DlrootfsError, inspect(failure));
        assert.equal(failure.message, printable(failure.message, 5000));
      }),
      { numRuns: 300 },
    );
  },
);
