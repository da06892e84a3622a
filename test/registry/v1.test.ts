import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import { inspect } from 'node:util';
import registryClient, { type ClientV1 } from 'docker-registry-client';
import fc from 'fast-check';
import { parseJsonObject } from '../../src/oci/json.ts';
import {
  DlrootfsError,
  IntegrityError,
  NetworkError,
  NotFoundError,
  printable,
  UnauthorizedError,
  UsageError,
} from '../../src/errors.ts';
import { isStandalone } from '../../src/registry/registry-host.ts';
import {
  imageOfTag,
  parseAncestry,
  parseEndpoints,
  parseImageJson,
  parseLayerSize,
  parsePayloadChecksum,
  parseTokens,
  tagNames,
} from '../../src/registry/v1-answers.ts';
import type { Answer, Fault } from '../support/fake-fault.ts';
import { FakeProxy } from '../support/fake-proxy.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { type FakeV1Options, FakeV1Registry, type LoggedV1Request } from '../support/fake-v1-registry.ts';
import { Scratch } from '../support/program.ts';
import { type ClientOptions, RegistryClient } from '../support/registry-client.ts';
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

test('a server of version 2 that answers a web page to /v2/ is one of version 2 all the same', async () => {
  await using registry = await FakeRegistry.start();
  registry.push(repository, 'latest', { layers });
  registry.fault({ path: /^\/v2\/$/, headers: { 'content-type': 'text/html' } });
  await using client = await RegistryClient.open(registry.reference(repository));
  assert.deepEqual(await client.pull(), layers);
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

const someId = 'a'.repeat(64);
type Refusal = readonly [
  what: string,
  path: RegExp,
  body: unknown,
  kind: new (...args: never[]) => Error,
  message: RegExp,
];

const refusals: readonly Refusal[] = [
  ['a tag that is not there', /tags/, { '1.0': someId }, NotFoundError, /team\/app has no tag latest$/],
  ['no tags', /tags/, {}, NotFoundError, /has no tag latest/],
  [
    'tags as an array',
    /tags/,
    [{ name: 'latest', layer: someId }],
    IntegrityError,
    /list of tags .* is not a JSON object/,
  ],
  ['tags as null', /tags/, null, IntegrityError, /is not a JSON object/],
  [
    'a tag to no id',
    /tags/,
    { latest: 'sha256:abc' },
    IntegrityError,
    /"sha256:abc", not 64 or 16 hex digits/,
  ],
  ['a tag to a path', /tags/, { latest: '../../etc/passwd' }, IntegrityError, /not 64 or 16 hex/],
  ['a tag to an object', /tags/, { latest: {} }, IntegrityError, /is not a string/],
  ['an id in capital letters', /tags/, { latest: 'A'.repeat(64) }, IntegrityError, /not 64 or 16 hex/],
  ['an empty ancestry', /ancestry/, [], IntegrityError, /is empty: an image has one layer at least/],
  ['an ancestry that is an object', /ancestry/, {}, IntegrityError, /is not a JSON array/],
  [
    'an ancestry that begins with another image',
    /ancestry/,
    [someId],
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
  ['the JSON of another image', /json/, { id: someId }, IntegrityError, /belongs to another image, a{64}/],
  [
    'a JSON with another parent',
    /json/,
    { parent: someId },
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
    assert.equal(error.hint, 'choose one of its tags: 1.0');
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

test('X-Docker-Size: each number, and -1 for none; all else is refused', async () => {
  for (const [header, size] of [
    [undefined, undefined],
    ['', undefined],
    ['-1', undefined],
    ['0', 0],
    [' 17 ', 17],
    ['123456789012345', 123_456_789_012_345],
  ] as const) {
    assert.equal(parseLayerSize(header, 'layer x'), size);
    const headers: Record<string, string> = header === undefined ? {} : { 'x-docker-size': header };
    const options = { sizes: false, faults: [{ path: /json$/, headers, times: 9 }] };
    await withRegistry(options, {}, async (_, client) => {
      assert.deepEqual(new Set((await client.image()).layers.map((layer) => layer.size)), new Set([size]));
    });
  }
  for (const header of ['x', '1.5', '-2', '1234567890123456', '1\u001b[2J'])
    assert.throws(() => parseLayerSize(header, 'layer x'), isClear);
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

const hex = 'ab'.repeat(32);
const otherHex = 'cd'.repeat(32);

for (const [header, digest] of [
  [`sha256:${hex}`, hex],
  [`SHA256:${hex.toUpperCase()}`, hex],
  [`["sha256:${hex}"]`, hex],
  [`['sha256:${hex}']`, hex],
  [`[u'tarsum+sha256:${otherHex}', u'sha256:${hex}']`, hex],
  [`["tarsum.v1+sha256:${otherHex}", "sha256:${hex}", "sha256:${hex}"]`, hex],
  [`sha256:${hex}, sha256:${otherHex}`, undefined],
  [`tarsum+sha256:${hex}`, undefined],
  [`tarsum.v1+sha256:${hex}`, undefined],
  [`sha256:${hex}0`, undefined],
  [`sha256:${hex.slice(1)}`, undefined],
  [`sha512:${hex}${hex}`, undefined],
  [`md5:${hex.slice(32)}`, undefined],
  ['[]', undefined],
  ['', undefined],
  [undefined, undefined],
] as const) {
  test(`X-Docker-Checksum-Payload ${JSON.stringify(header?.slice(0, 60))}`, () => {
    assert.equal(parsePayloadChecksum(header), digest && `sha256:${digest}`);
  });
}

for (const [header, body, standalone] of [
  ['True', {}, true],
  ['true', {}, true],
  ['1', {}, true],
  ['0', {}, false],
  ['False', {}, false],
  ['mirror', {}, false],
  [undefined, {}, true],
  ['', {}, true],
  [undefined, undefined, true],
  [undefined, true, true],
  [undefined, { standalone: false }, false],
  ['true', { standalone: false }, true],
] as const) {
  test(`standalone: ${JSON.stringify(header)} with ${JSON.stringify(body)} is ${standalone}`, () => {
    assert.equal(isStandalone(header, body), standalone);
  });
}

for (const [values, token] of [
  [[], undefined],
  [[''], undefined],
  [['signature=1,repository="a/b",access=read'], 'signature=1,repository="a/b",access=read'],
  [['Token signature=1'], 'signature=1'],
  [['a', ' b '], 'a,b'],
  [['a', 'ü'], 'a'],
] as const) {
  test(`X-Docker-Token ${JSON.stringify(values)}`, () => {
    assert.equal(parseTokens(values), token);
  });
}

const secure = new URL('https://index.example.com/v1/');
const plain = new URL('http://127.0.0.1:5000/v1/');

type EndpointCase = readonly [values: readonly string[], index: URL, expected: readonly string[]];

const endpoints: readonly EndpointCase[] = [
  [[], secure, ['https://index.example.com/v1/']],
  [[''], secure, ['https://index.example.com/v1/']],
  [['r1.example.com'], secure, ['https://r1.example.com/v1/']],
  [['r1.example.com:5000'], secure, ['https://r1.example.com:5000/v1/']],
  [['a , b:1', 'c'], secure, ['https://a/v1/', 'https://b:1/v1/', 'https://c/v1/']],
  [['a,a, A ,a:443'], secure, ['https://a/v1/']],
  [['[::1]:5000'], secure, ['https://[::1]:5000/v1/']],
  [['127.0.0.1:5001'], plain, ['http://127.0.0.1:5001/v1/']],
  [['r1.example.com'], plain, ['https://r1.example.com/v1/']],
  [['http://a', 'a/b', 'a?b', 'a#b', 'u:p@a', 'a b', '\\a', ':80', 'a:99999'], secure, []],
  [['http://a', 'b'], secure, ['https://b/v1/']],
];

for (const [values, index, expected] of endpoints) {
  test(`X-Docker-Endpoints ${JSON.stringify(values)} from ${index.host}`, () => {
    const found = parseEndpoints(values, index, (host) => host.startsWith('127.'));
    assert.deepEqual(
      found.map(({ href }) => href),
      expected,
    );
  });
}

test('no more than sixteen registries are asked', () => {
  const hosts = Array.from({ length: 1000 }, (_, n) => `h${n}`).join(',');
  assert.equal(parseEndpoints([hosts], secure, () => false).length, 16);
});

/** Asserts that this is one of our errors, fit for a terminal. */
function isClear(error: unknown): boolean {
  assert.ok(error instanceof DlrootfsError, String(error));
  const text = `${error.message}${error.hint}`;
  assert.equal(printable(text, 2000), text);
  assert.ok(error.message.length < 1000, `${error.message.length} characters`);
  return true;
}

function endsWell(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    isClear(error);
  }
}

const idLists = fc.uniqueArray(fc.stringMatching(/^[0-9a-f]{64}$/), { minLength: 1, maxLength: 20 });
const jsonValues = fc.jsonValue({ maxDepth: 3 });
const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));
const junk = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  jsonValues.map(bytesOf),
  idLists.map(bytesOf),
  fc.dictionary(fc.string({ unit: 'binary' }), jsonValues).map(bytesOf),
);

test('property: whatever a server sends, it is read or refused in words of ours', () => {
  fc.assert(
    fc.property(junk, fc.string({ unit: 'binary' }), (body, text) => {
      endsWell(() => {
        const tags = parseJsonObject(body, 'the tags');
        tagNames(tags);
        imageOfTag(tags, text, 'team/app');
      });
      for (const tag of [...Object.keys(tagsOf(body)), '__proto__', 'constructor']) {
        endsWell(() => imageOfTag(parseJsonObject(body, 'the tags'), tag, 'team/app'));
      }
      endsWell(() => parseAncestry(body, hex, 'the ancestry'));
      endsWell(() => parseImageJson(body, { id: hex, parent: undefined }, 'the JSON'));
      endsWell(() =>
        parseImageJson(bytesOf({ id: text, parent: text }), { id: hex, parent: hex }, 'the JSON'),
      );
      endsWell(() => parseLayerSize(text, 'layer x'));
    }),
    { numRuns: 500 },
  );
});

function tagsOf(body: Uint8Array): object {
  try {
    return parseJsonObject(body, 'the tags');
  } catch {
    return {};
  }
}

test('property: an ancestry comes out base first, and only when it is sound', () => {
  fc.assert(
    fc.property(idLists, fc.nat(), (list, at) => {
      const [top] = list;
      assert.deepEqual(parseAncestry(bytesOf(list), top!, 'the ancestry'), list.toReversed());
      const repeated = list.toSpliced(at % (list.length + 1), 0, list[at % list.length]!);
      assert.throws(() => parseAncestry(bytesOf(repeated), top!, 'the ancestry'), isClear);
    }),
  );
});

test('property: headers of any content give tokens and addresses that can be used', () => {
  const headers = fc.array(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.webUrl(), fc.domain()));
  fc.assert(
    fc.property(headers, (values) => {
      const token = parseTokens(values);
      if (token !== undefined) assert.match(token, /^[\x20-\x7e]+$/);
      for (const url of parseEndpoints(values, secure, () => true)) {
        assert.match(url.href, /^https:\/\/[^/@?#\s]+\/v1\/$/);
      }
      parsePayloadChecksum(values.join(','));
    }),
    { numRuns: 500 },
  );
});

const bob = { username: 'bob', password: 'hunter2:colon', source: '--user' };
const users = { bob: 'hunter2:colon' };
const basic = `Basic ${Buffer.from('bob:hunter2:colon').toString('base64')}`;

const at = (registry: FakeV1Registry, server: string): LoggedV1Request[] =>
  registry.requests.filter((request) => request.server === server);

const authorizations = (requests: readonly LoggedV1Request[]): Set<string | undefined> =>
  new Set(
    requests.map(({ headers }) => headers.authorization?.replace(/signature=[0-9a-f]+/, 'signature=…')),
  );

// --- one image, servers of many kinds ---

const page = { headers: { 'content-type': 'text/html' }, body: Buffer.from('<html>hello</html>') };
const wantsBasic = { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };

interface SessionRow {
  readonly server: FakeV1Options;
  readonly client?: ClientOptions;
  /** Undefined: all layers are pulled. */
  readonly fails?: {
    readonly kind: typeof UnauthorizedError | typeof NetworkError | typeof DlrootfsError;
    readonly words: RegExp;
    readonly hint?: RegExp;
  };
  /** Number of requests that match each pattern of `server METHOD path`. */
  readonly asked?: readonly (readonly [requests: RegExp, count: number])[];
  /** Authorization headers of all requests to each of these servers, without the signature. */
  readonly authorized?: Readonly<Record<string, readonly (string | undefined)[]>>;
  /** Names of the cookies in each request to these servers, in order. */
  readonly cookies?: Readonly<Record<string, readonly (string | undefined)[]>>;
  readonly also?: (registry: FakeV1Registry, client: RegistryClient) => void;
}

const two = { mode: 'split', registries: 2 } as const;
const none: readonly undefined[] = [undefined];
const token = 'Token signature=…,repository="team/app",access=read';
const noRegistry = /^127\.0\.0\.1:\d+ is not a registry: GET \/v2\/ is answered 404, GET \/v1\/_ping 404$/;
const redirected = (status: 301 | 302 | 303 | 307 | 308): SessionRow => ({
  server: { mode: 'split', redirectLayers: status },
  authorized: { storage: none },
  cookies: { storage: [undefined, undefined, undefined] },
});

/** Faults of a server. */
const failures: Readonly<Record<string, Omit<Fault, 'path'>>> = {
  'answers 500': { status: 500 },
  'answers 404': { status: 404 },
  'answers 403': { status: 403 },
  'resets connections': { before: 'reset' },
  'answers nonsense': { body: 'nonsense' },
  'breaks off': { cutAfter: 1 },
};

/** Returns rows for each kind of request, whose name replaces the % in the name of the row. */
function rowsOf(
  kinds: readonly string[],
  make: Readonly<Record<string, (kind: string) => SessionRow>>,
): Record<string, SessionRow> {
  const rows = Object.entries(make).flatMap(([what, row]) =>
    kinds.map((kind) => [what.replace('%', kind), row(kind)] as const),
  );
  return Object.fromEntries(rows);
}

const sessions: Readonly<Record<string, SessionRow>> = {
  '401 from /v2/: version 2, never 1': {
    server: { v2: wantsBasic },
    fails: { kind: DlrootfsError, words: /./ },
    asked: [[/v1/, 0]],
  },
  '403 from /v2/: version 2, never 1': {
    server: { v2: { status: 403 } },
    fails: { kind: UnauthorizedError, words: /403/ },
    asked: [[/v1/, 0]],
  },
  '400 from /v2/ is no version 2': { server: { v2: { status: 400 } } },
  '405 from /v2/ is no version 2': { server: { v2: { status: 405 } } },
  '410 from /v2/ is no version 2': { server: { v2: { status: 410 } } },
  'a web page from /v2/: version 1': { server: { v2: { status: 200, ...page } } },
  'no registry at all': {
    server: { faults: [{ path: /_ping/, status: 404, times: 9 }] },
    fails: { kind: NetworkError, words: noRegistry, hint: /container registry/ },
    asked: [[/./, 2]],
  },
  'a web page in answer to the ping is no version 1': {
    server: {
      pingHeaders: { 'x-docker-registry-version': [], 'x-docker-registry-standalone': [] },
      faults: [{ path: /./, status: 200, ...page, times: 99 }],
    },
    fails: { kind: NetworkError, words: /web page/ },
    asked: [[/v1\/repo/, 0]],
  },
  'registryVersion 1: /v2/ is not asked': {
    server: {},
    client: { registryVersion: 1 },
    asked: [[/\/v2\//, 0]],
  },
  'registryVersion 1, and a ping that is answered 404, as Docker 1.4 took it': {
    server: { faults: [{ path: /_ping/, status: 404, times: 9 }] },
    client: { registryVersion: 1 },
  },
  'registryVersion 2': {
    server: {},
    client: { registryVersion: 2 },
    fails: { kind: NetworkError, words: /does not speak version 2/ },
    asked: [[/v1/, 0]],
  },
  'split: the index gets the password, registries its token, the storage nothing': {
    server: { mode: 'split', users, private: /./, sessions: false, redirectLayers: 302 },
    client: { credentials: bob },
    authorized: { index: [undefined, basic], registry0: [token], storage: none },
    also: (registry) => {
      const [contact, ping, images] = at(registry, 'index');
      for (const { headers } of [contact!, ping!]) assert.equal(headers.authorization, undefined);
      assert.equal(images!.headers.authorization, basic);
      const asking = registry.requests.filter(({ headers }) => headers['x-docker-token'] !== undefined);
      assert.deepEqual(
        asking.map(({ headers }) => headers['x-docker-token']),
        ['true'],
      );
      assert.equal(asking[0], images);
    },
  },
  'split: a public repository gives its token to everybody': {
    server: { mode: 'split', users },
    authorized: { index: none },
  },
  'the token of the Python server begins with the word Token, which is not said twice': {
    server: { mode: 'split', tokenWord: true },
    also: (registry) =>
      assert.match(at(registry, 'registry0')[0]!.headers.authorization!, /^Token signature=/),
  },
  'several tokens are sent together': {
    server: {
      faults: [
        {
          path: /images$/,
          headers: { 'x-docker-token': ['signature=00,repository="a/b",access=read', 'second=1'] },
        },
      ],
    },
    authorized: { index: [undefined, 'Token signature=…,repository="a/b",access=read,second=1'] },
  },
  'no token': { server: { tokens: false }, authorized: { index: none } },
  'standalone behind a proxy that wants a password for everything': {
    server: { users, basicEverywhere: true },
    client: { credentials: bob },
    authorized: { index: [undefined, basic] },
    also: (registry) => assert.deepEqual(authorizations(registry.requests.slice(0, 2)), new Set([undefined])),
  },
  'the same, not standalone by its ping: a refused token makes way for the password, once': {
    server: { users, basicEverywhere: true, pingHeaders: { 'x-docker-registry-standalone': 'False' } },
    client: { credentials: bob },
    also: ({ requests }) =>
      assert.equal(requests.filter(({ headers }) => headers.authorization?.startsWith('Token')).length, 1),
  },
  'a ping that wants a password is one of version 1': {
    server: { users, basicEverywhere: true, faults: [{ path: /_ping/, ...wantsBasic, times: 9 }] },
    client: { credentials: bob },
  },
  'wrong credentials: their source is said, they are not': {
    server: { mode: 'split', users },
    client: { credentials: { ...bob, password: 'wrong-pw' } },
    fails: {
      kind: UnauthorizedError,
      words:
        /^(?!.*wrong-pw).*cannot read the list of images of team\/app: .* answered 401: Unauthorized; used bob's credentials from --user/,
    },
    asked: [[/./, 3]],
  },
  'a private repository without credentials': {
    server: { mode: 'split', users, private: /./ },
    fails: { kind: UnauthorizedError, words: /used no credentials/, hint: /-u USER/ },
  },
  'a token that runs out on the way is renewed': {
    server: { mode: 'split', sessions: false, tokenUses: 4 },
    also: (registry) => assert.ok(registry.log(/images$/).length > 1),
  },
  'a token that was never good is not renewed': {
    server: { mode: 'split', tokenUses: 0 },
    fails: { kind: UnauthorizedError, words: /401/ },
    asked: [
      [/images$/, 1],
      [/^registry0/, 1],
    ],
  },
  'session cookies go back to the server that set them, and to no other': {
    server: { mode: 'split', tokenUses: 1, redirectLayers: 307 },
    cookies: {
      index: [undefined, undefined, undefined],
      registry0: [undefined, ...Array.from({ length: 7 }, () => 'session')],
      storage: [undefined, undefined, undefined],
    },
  },
  'a standalone registry that knows its visitors by a cookie': {
    server: {},
    also: ({ requests }) =>
      assert.deepEqual(new Set(requests.slice(3).map(({ headers }) => headers.cookie)), new Set(['idx=1'])),
  },
  'X-Docker-Size is no number': {
    server: { faults: [{ path: /json$/, headers: { 'x-docker-size': '1e3' }, times: 9 }] },
    fails: {
      kind: IntegrityError,
      words: /the size of layer [0-9a-f]{64} is "1e3", which is not a number of bytes/,
    },
  },
  'the first failure of many requests is the one that is told': {
    server: { faults: [{ path: /json/, skip: 1, status: 404, times: 1 }] },
    fails: { kind: NotFoundError, words: /the JSON of image [0-9a-f]{64} does not exist/ },
  },
  'two registries: the first that is named is asked': { server: two, asked: [[/^registry1 .*v1/, 0]] },
  'two registries: the second has only errors': {
    server: { ...two, faults: [{ path: /registry1/, status: 500, times: 99 }] },
    asked: [[/^registry1 .*v1/, 0]],
  },
  'registries that are named by nothing that is a host': {
    server: { endpoints: () => 'http://x/, y/z' },
    fails: { kind: NetworkError, words: /the index .* names no registry$/ },
  },
  'endpoints in headers that repeat, with blanks': {
    server: { ...two, endpoints: ([a, b]) => [` ${b} , ${a}`, b!] },
    asked: [
      [/^registry1 .*tags/, 1],
      [/^registry0/, 0],
    ],
  },
  'without endpoints the index is the registry': { server: { endpoints: () => undefined } },
  ...rowsOf(['tags', 'ancestry', 'json'], {
    ...Object.fromEntries(
      Object.entries(failures).map(([what, fault]) => [
        `when the first of two registries ${what} to %, the next is asked`,
        (kind: string) => ({
          server: { ...two, faults: [{ path: new RegExp(`registry0 .*${kind}`), times: 99, ...fault }] },
        }),
      ]),
    ),
    'a cut-off answer to % is requested once more': (kind) => ({
      server: { faults: [{ path: new RegExp(`/v1/.*${kind}$`), body: '{' }] },
      asked: [[new RegExp(`/v1/.*${kind}$`), kind === 'json' ? layers.length + 1 : 2]],
    }),
    'a cut-off answer to % is requested only once more': (kind) => ({
      server: { faults: [{ path: new RegExp(`/v1/.*${kind}$`), body: '{', times: 99 }] },
      fails: { kind: IntegrityError, words: /./ },
      asked: kind === 'json' ? [] : [[new RegExp(`/v1/.*${kind}$`), 2]],
    }),
  }),
  ...rowsOf(
    ['_ping', 'images$', 'tags', 'ancestry', 'json', 'layer'],
    Object.fromEntries(
      [{ status: 503 }, { before: 'reset' }, { before: 'close' }, { status: 429 }].map((fault) => [
        `% is asked for again after ${JSON.stringify(fault)}`,
        (kind: string) => ({ server: { faults: [{ path: new RegExp(kind), ...fault, times: 2 } as Fault] } }),
      ]),
    ),
  ),
  ...rowsOf(['_ping', 'images$', 'ancestry', 'layer'], {
    '%: a server that never answers is given up': (kind) => ({
      server: { faults: [{ path: new RegExp(kind), before: 'silent', times: 99 }] },
      client: { retry: 0, timeouts: { headers: 200 } },
      fails: { kind: NetworkError, words: /did not answer in time/ },
    }),
  }),
  'layers behind a redirect 301': redirected(301),
  'layers behind a redirect 302': redirected(302),
  'layers behind a redirect 303': redirected(303),
  'layers behind a redirect 307': redirected(307),
  'layers behind a redirect 308': redirected(308),
};

for (const [what, row] of Object.entries(sessions)) {
  test(`session: ${what}`, async () => {
    await withRegistry(row.server, row.client ?? {}, async (registry, client) => {
      const { fails } = row;
      if (fails) {
        await assert.rejects(client.pull(), (error) => {
          assert.ok(error instanceof fails.kind, String(error));
          assert.match(error.message, fails.words);
          assert.match(error.hint ?? '', fails.hint ?? /./);
          return true;
        });
      } else assert.deepEqual(await client.pull(), layers);
      for (const [requests, count] of row.asked ?? [])
        assert.equal(registry.log().filter((line) => requests.test(line)).length, count, String(requests));
      for (const [server, headers] of Object.entries(row.authorized ?? {}))
        assert.deepEqual(authorizations(at(registry, server)), new Set(headers));
      for (const [server, names] of Object.entries(row.cookies ?? {}))
        assert.deepEqual(
          at(registry, server).map(({ headers }) => headers.cookie?.replace(/=.*/, '')),
          names,
        );
      row.also?.(registry, client);
    });
  });
}

test('the password goes to no registry but the one that it is for', async () => {
  const options = {
    mode: 'split',
    registries: 2,
    users,
    pingHeaders: { 'x-docker-registry-standalone': 'True' },
  } as const;
  await withRegistry(options, { credentials: bob }, async (registry, client) => {
    await client.pull();
    registry.fault({
      path: /registry/,
      status: 401,
      headers: { 'www-authenticate': 'Basic realm="give"' },
      times: 99,
    });
    await assert.rejects(client.tags(), UnauthorizedError);
    for (const { server, headers } of registry.requests) {
      if (server !== 'index') assert.doesNotMatch(headers.authorization ?? '', /Basic/);
    }
  });
});

test('credentials from docker’s file are used; an identity token is of no use, which is said', async () => {
  using scratch = new Scratch();
  await using registry = await FakeV1Registry.start({ mode: 'split', users, private: /./ });
  registry.push(repository, 'latest', { layers });
  mkdirSync(scratch.join('.docker'));
  const write = (entry: object) =>
    writeFileSync(scratch.join('.docker/config.json'), JSON.stringify({ auths: { [registry.host]: entry } }));
  const open = () =>
    RegistryClient.open(registry.reference(repository), { environment: { HOME: scratch.path } });
  write({ auth: Buffer.from('bob:hunter2:colon').toString('base64') });
  await using client = await open();
  assert.deepEqual(await client.pull(), layers);
  write({ identitytoken: 'hunter2' });
  await using other = await open();
  await assert.rejects(other.image(), UnauthorizedError);
  assert.match(
    other.notices.join('\n'),
    /ignoring the identity token from .*: version 1 .* user names and passwords only/,
  );
  assert.doesNotMatch(other.everything, /hunter2/);
});

test('a token that is renewed and refused again is the end', async () => {
  await withRegistry({ mode: 'split', sessions: false }, {}, async (registry, client) => {
    const { layers: found } = await client.image();
    registry.fault({ path: /layer$/, status: 401, times: 99 });
    await assert.rejects(client.blob(found[0]!), UnauthorizedError);
    assert.equal(registry.log(/layer$/).length, 2);
  });
});

test('cookies of the storage, where a redirect led, are not sent anywhere', async () => {
  const faults = [{ path: /^storage/, headers: { 'set-cookie': 'storage=1' }, times: 9 }];
  await withRegistry({ redirectLayers: 302, faults }, {}, async (registry, client) => {
    await client.pull();
    await client.pull();
    for (const { headers } of registry.requests) assert.doesNotMatch(headers.cookie ?? '', /storage/);
  });
});

test('a redirect of the index to another one brings its token', async () => {
  await using second = await FakeV1Registry.start();
  second.push(repository, 'latest', { layers });
  const location = `${second.url}/v1/repositories/team/app/images`;
  const handler = ({ path }: LoggedV1Request) =>
    path.endsWith('/images') ? { status: 302, headers: { location }, body: Buffer.alloc(0) } : undefined;
  await withRegistry({ handler, users }, { credentials: bob }, async (_, client) => {
    await client.image();
    const [request] = second.requests;
    assert.equal(request!.headers.authorization, undefined);
    assert.equal(request!.headers['x-docker-token'], 'true');
  });
});

test('TLS: registries are checked too, and get the client certificates of their own directory', async () => {
  using scratch = new Scratch();
  await using registry = await FakeV1Registry.start({ mode: 'split', tls: true });
  registry.push(repository, 'latest', { layers });
  const open = () =>
    RegistryClient.open(registry.reference(repository), { configDirs: [scratch.path], retry: 0 });
  const trust = (host: string) => {
    mkdirSync(scratch.join('docker/certs.d', host), { recursive: true });
    writeFileSync(scratch.join('docker/certs.d', host, 'ca.crt'), registry.authority!.cert);
  };
  trust(registry.host);
  await using half = await open();
  await assert.rejects(
    half.image(),
    (error) => error instanceof NetworkError && error.message.includes(registry.hostOf('registry0')),
  );
  trust(registry.hostOf('registry0'));
  await using client = await open();
  assert.deepEqual(await client.pull(), layers);
});

test('a password that was given for https is not sent over http', async () => {
  await using registry = await FakeV1Registry.start({ tls: true, users });
  registry.push(repository, 'latest', { layers });
  const location = `http://127.0.0.1:9/v1/repositories/team/app/images`;
  registry.fault({ path: /images$/, status: 302, headers: { location }, times: 9 });
  await using client = await RegistryClient.open(registry.reference(repository), {
    tlsVerify: false,
    credentials: bob,
  });
  await assert.rejects(client.image(), /redirects from https to plain http/);
});

test('Docker Hub as it was: index and registry by their names, no ping, a password for the index only', async () => {
  using scratch = new Scratch();
  await using registry = await FakeV1Registry.start({
    mode: 'split',
    tls: true,
    tlsNames: ['index.docker.io', 'registry-1.docker.io'],
    endpoints: () => 'registry-1.docker.io',
    users,
  });
  registry.push('library/ubuntu', '14.04', { layers });
  await using proxy = await FakeProxy.start({
    hosts: { 'index.docker.io:443': registry.host, 'registry-1.docker.io:443': registry.hostOf('registry0') },
  });
  writeFileSync(scratch.join('ca.crt'), registry.authority!.cert);
  await using client = await RegistryClient.open('ubuntu:14.04', {
    registryVersion: 1,
    environment: { HTTPS_PROXY: proxy.url() },
    caFile: scratch.join('ca.crt'),
    credentials: bob,
  });
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(registry.log().slice(0, 2), [
    'index GET /v1/repositories/library/ubuntu/images',
    'registry0 GET /v1/repositories/library/ubuntu/tags',
  ]);
  assert.deepEqual(authorizations(at(registry, 'index')), new Set([basic]));
  for (const { headers } of at(registry, 'registry0')) assert.match(headers.authorization!, /^Token /);
  assert.deepEqual(
    new Set(proxy.log),
    new Set(['CONNECT index.docker.io:443', 'CONNECT registry-1.docker.io:443']),
  );
});

test('a registry that an index over http names is asked over https, unless it is this machine', async () => {
  await using registry = await FakeV1Registry.start({ endpoints: () => 'registry.example.com' });
  registry.push(repository, 'latest', { layers });
  await using proxy = await FakeProxy.start({ refuse: 403 });
  await using client = await RegistryClient.open(registry.reference(repository), {
    environment: { HTTPS_PROXY: proxy.url(), HTTP_PROXY: proxy.url() },
  });
  await assert.rejects(client.image(), NetworkError);
  assert.deepEqual(new Set(proxy.log), new Set(['CONNECT registry.example.com:443']));
});

type Callback<T> = (error: Error | null, result: T) => void;

function answer<T>(call: (callback: Callback<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(error) : resolve(result)));
  });
}

async function read(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.resume();
  await new Promise((resolve, reject) => stream.once('end', resolve).once('error', reject));
  return Buffer.concat(chunks);
}

const ways: readonly (readonly [what: string, options: FakeV1Options])[] = [
  ['standalone', {}],
  ['standalone, tokens checked', { checkTokens: true, sessions: false }],
  ['standalone, sessions by cookie', { checkTokens: true, tokenUses: 1 }],
  ['index and registry on ports of their own', { mode: 'split', checkTokens: false }],
  ['layers behind a redirect', { redirectLayers: 302 }],
];

for (const [what, options] of ways) {
  test(`docker-registry-client reads the server: ${what}`, async () => {
    await using registry = await FakeV1Registry.start(options);
    const stored = registry.push('team/app', '1.0', { layers });
    registry.tag('team/app', 'base', stored[0]!.id);
    const ids = stored.map(({ id }) => id);
    const client = registryClient.createClientV1({ name: `${registry.host}/team/app` });
    try {
      assert.deepEqual(await answer((done) => client.ping(done)), {});
      const images = await answer<readonly { readonly id: string }[]>((done) => client.listRepoImgs(done));
      assert.deepEqual(
        images.map(({ id }) => id),
        ids,
      );
      assert.deepEqual(await answer((done) => client.listRepoTags(done)), { '1.0': ids[2], base: ids[0] });
      assert.equal(await answer((done) => client.getImgId({ tag: '1.0' }, done)), ids[2]);
      assert.deepEqual(
        await answer((done) => client.getImgAncestry({ imgId: ids[2]! }, done)),
        ids.toReversed(),
      );
      for (const [n, { id, json }] of stored.entries()) {
        const found = await answer((done) => client.getImgJson({ imgId: id }, done));
        assert.deepEqual(found, JSON.parse(Buffer.from(json).toString()));
        const stream = await answer<Readable>((done) => client.getImgLayerStream({ imgId: id }, done));
        assert.deepEqual(await read(stream), layers[n]);
      }
    } finally {
      client.close();
    }
  });
}

test('the server refuses docker-registry-client as documented', async () => {
  await using registry = await FakeV1Registry.start({ private: /private/, users: { bob: 'x' } });
  registry.push('team/private', '1.0', { layers });
  registry.push('team/app', '1.0', { layers });
  const status = async (name: string, ask: (client: ClientV1, done: Callback<unknown>) => void) => {
    const client = registryClient.createClientV1({ name: `${registry.host}/${name}` });
    try {
      await answer((done) => ask(client, done));
      return 200;
    } catch (error) {
      return (error as { readonly statusCode?: number }).statusCode;
    } finally {
      client.close();
    }
  };
  assert.equal(await status('team/private', (client, done) => client.listRepoTags(done)), 401);
  assert.equal(await status('team/other', (client, done) => client.listRepoTags(done)), 404);
  assert.equal(await status('team/app', (client, done) => client.getImgId({ tag: '2.0' }, done)), 404);
  assert.equal(
    await status('team/app', (client, done) => client.getImgJson({ imgId: '0'.repeat(64) }, done)),
    404,
  );
  assert.equal(await status('team/app', (client, done) => client.getImgAncestry({ imgId: 'x' }, done)), 404);
  assert.equal(await status('team/app', (client, done) => client.listRepoTags(done)), 200);
});
