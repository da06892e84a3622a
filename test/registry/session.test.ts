import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IntegrityError, NotFoundError } from '../../src/errors.ts';
import type { ManifestStore } from '../../src/registry/registry-options.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { fakeIndex, fakeManifest } from '../support/fake-image.ts';
import { RequestQueue } from '../../src/sys/request-queue.ts';
import { RegistryClient } from '../support/registry-client.ts';

const layers = [Buffer.from('base layer'), Buffer.from('top layer')];

for (const format of ['oci', 'docker', 'schema1'] as const) {
  test(`an image of format ${format}: config, layers base first, blobs as stored`, async () => {
    await using registry = await FakeRegistry.start();
    const pushed = registry.push('team/app', '1.0', { layers, format });
    await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
    const image = await client.image();
    assert.equal(image.digest, pushed.digest);
    assert.deepEqual(
      image.layers.map((layer) => layer.digest),
      pushed.layers.map((layer) => layer.digest),
    );
    assert.deepEqual(await Promise.all(image.layers.map((layer) => client.blob(layer))), layers);
    assert.deepEqual(client.notices, []);
  });
}

test('a healthy anonymous pull makes no request that it does not need', async () => {
  await using registry = await FakeRegistry.start();
  const pushed = registry.push('team/app', '1.0', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  await client.pull();
  const blobs = pushed.layers.map(({ digest }) => `GET /v2/team/app/blobs/${digest}`);
  assert.deepEqual(registry.log().slice(0, 3), [
    'GET /v2/',
    'GET /v2/team/app/manifests/1.0',
    `GET /v2/team/app/blobs/${pushed.configDigest}`,
  ]);
  assert.deepEqual(registry.log().slice(3).toSorted(), blobs.toSorted());
});

test('a pull with tokens fetches one, before the first request that needs it', async () => {
  await using registry = await FakeRegistry.start({
    auth: { type: 'bearer', ownServer: true },
    redirectBlobs: 307,
  });
  registry.push('team/app', '1.0', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(registry.log(/^\/(?:v2\/$|token|v2\/.*manifests)/), [
    'GET /v2/',
    'GET /token?service=fake+registry&scope=repository%3Ateam%2Fapp%3Apull',
    'GET /v2/team/app/manifests/1.0',
  ]);
  assert.equal(registry.requests.length, 3 + 2 * 3);
});

test('every request asks for stored bytes and says who it is', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  await client.pull();
  for (const { headers } of registry.requests) {
    assert.equal(headers['accept-encoding'], 'identity');
    assert.match(headers['user-agent'] ?? '', /^dlrootfs\/\d/);
    assert.equal(headers.authorization, undefined);
  }
});

test('by digest: what comes is verified against the digest asked for', async () => {
  await using registry = await FakeRegistry.start();
  const pushed = registry.push('team/app', undefined, { layers });
  await using client = await RegistryClient.open(registry.reference('team/app', pushed.digest));
  assert.equal((await client.image()).digest, pushed.digest);
});

test('another manifest than the digest says is asked for twice and then an integrity error', async () => {
  await using registry = await FakeRegistry.start();
  const pushed = registry.push('team/app', undefined, { layers });
  const other = fakeManifest({ layers: [] });
  registry.putManifest('team/app', undefined, { ...other, digest: pushed.digest });
  await using client = await RegistryClient.open(registry.reference('team/app', pushed.digest));
  await assert.rejects(client.image(), (error) => error instanceof IntegrityError && error.exitCode === 6);
  assert.equal(registry.log(/manifests/).length, 2);
});

test('the digest that was asked for counts, whatever digest the header names', async () => {
  await using registry = await FakeRegistry.start();
  const pushed = registry.push('team/app', undefined, { layers });
  const other = fakeManifest({ layers: [] });
  registry.putManifest('team/app', undefined, { ...other, digest: pushed.digest });
  registry.fault({ path: /manifests/, times: 9, headers: { 'docker-content-digest': other.digest } });
  await using client = await RegistryClient.open(registry.reference('team/app', pushed.digest));
  await assert.rejects(client.image(), { code: 'DIGEST_MISMATCH', message: /the manifest / });
});

test('a manifest by tag is verified against the header that names its digest', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  registry.fault({
    path: /manifests/,
    times: 9,
    headers: { 'docker-content-digest': `sha256:${'0'.repeat(64)}` },
  });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  await assert.rejects(client.image(), {
    code: 'DIGEST_MISMATCH',
    message: /the manifest of /,
  });
});

test('a config is verified by its digest', async () => {
  await using registry = await FakeRegistry.start();
  const { configDigest, blobs } = registry.push('team/app', '1.0', { layers });
  const config = Buffer.from(blobs.get(configDigest)!).toString().replace('/bin/sh', '/bin/xx');
  registry.fault({ path: new RegExp(configDigest), times: 9, body: config });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  await assert.rejects(client.image(), { code: 'DIGEST_MISMATCH', message: /the config of / });
});

test('bytes that were corrupted once on the way are healed by asking again', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  registry.fault({ path: /blobs/, corruptAt: 30 });
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  assert.deepEqual(await client.pull(), layers);
});

test('an index: the platform’s image, attestations never', async () => {
  await using registry = await FakeRegistry.start();
  const { images } = registry.pushIndex('team/app', '1.0', [
    { layers: [Buffer.from('attestation')], platform: { os: 'unknown', architecture: 'unknown' } },
    { layers: [Buffer.from('arm')], platform: { os: 'linux', architecture: 'arm64' } },
    { layers: [Buffer.from('amd')] },
  ]);
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  const image = await client.image();
  assert.equal(image.digest, images[2]!.digest);
  assert.equal((await client.image({ os: 'linux', architecture: 'arm64' })).digest, images[1]!.digest);
  await assert.rejects(
    client.image({ os: 'linux', architecture: 's390x' }),
    (error) => error instanceof NotFoundError && /linux\/arm64/.test(error.hint ?? ''),
  );
});

test('a nested index is followed', async () => {
  await using registry = await FakeRegistry.start();
  const { images, digest } = registry.pushIndex('team/app', undefined, [{ layers }]);
  const inner = { bytes: Buffer.alloc(0), blobs: new Map(), configDigest: '', layers: [], diffIDs: [] };
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const size = fakeIndex(
    images.map((manifest) => ({ manifest, platform: { os: 'linux', architecture: 'amd64' } })),
  ).bytes;
  const outer = fakeIndex([{ manifest: { ...inner, bytes: size, mediaType, digest } }]);
  registry.putManifest('team/app', '1.0', outer);
  await using client = await RegistryClient.open(registry.reference('team/app', '1.0'));
  assert.equal((await client.image()).digest, images[0]!.digest);
});

test('a tag and a digest: the digest counts', async () => {
  await using registry = await FakeRegistry.start();
  const pushed = registry.push('team/app', undefined, { layers });
  await using client = await RegistryClient.open(`${registry.host}/team/app:nonsense@${pushed.digest}`);
  assert.equal((await client.image()).digest, pushed.digest);
});

test('an unknown tag, and an unknown repository, are not found: exit code 3', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  for (const [name, words] of [
    ['team/app', /team\/app has no tag none \(.* answered 404: manifest unknown \(MANIFEST_UNKNOWN\)\)/],
    ['team/other', /team\/other does not exist \(.* repository name not known to registry \(NAME_UNKNOWN\)/],
  ] as const) {
    await using client = await RegistryClient.open(registry.reference(name, 'none'));
    await assert.rejects(
      client.image(),
      (error) => error instanceof NotFoundError && error.exitCode === 3 && words.test(error.message),
    );
  }
});

/** Returns a store in memory. */
function memoryStore(): ManifestStore & {
  readonly tags: Map<string, unknown>;
  readonly documents: Map<string, Uint8Array>;
} {
  const documents = new Map<string, Uint8Array>();
  const tags = new Map<string, never>();
  return {
    documents,
    tags,
    get: (digest) => Promise.resolve(documents.get(digest)),
    put: async (digest, bytes) => void documents.set(digest, bytes),
    recall: (name) => Promise.resolve(tags.get(name)),
    remember: async (name, digest) => void tags.set(name, digest as never),
  };
}

test('with a store: the first pull is one GET, the second one HEAD, and after a push one GET more', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  const manifestStore = memoryStore();
  const pull = async () => {
    registry.requests.length = 0;
    await using client = await RegistryClient.open(registry.reference('team/app', '1.0'), { manifestStore });
    const { digest } = await client.image();
    return { digest, log: registry.log().map((line) => line.replace(/sha256.*/, 'X')) };
  };
  const get = 'GET /v2/team/app/manifests/1.0';
  const head = 'HEAD /v2/team/app/manifests/1.0';
  assert.deepEqual((await pull()).log, ['GET /v2/', get, 'GET /v2/team/app/blobs/X']);
  assert.deepEqual((await pull()).log, ['GET /v2/', head]);
  const pushed = registry.push('team/app', '1.0', { layers: [Buffer.from('new')] });
  const third = await pull();
  assert.deepEqual(third.log, ['GET /v2/', head, get, 'GET /v2/team/app/blobs/X']);
  assert.equal(third.digest, pushed.digest);
});

test('with a store: an image that is asked for by digest needs no request at all', async () => {
  await using registry = await FakeRegistry.start();
  const { digest } = registry.push('team/app', undefined, { layers });
  const manifestStore = memoryStore();
  for (const requests of [3, 0]) {
    registry.requests.length = 0;
    await using client = await RegistryClient.open(registry.reference('team/app', digest), { manifestStore });
    assert.equal((await client.image()).digest, digest);
    assert.equal(registry.requests.length, requests);
  }
});

test('with a store: damaged documents are noticed and fetched again', async () => {
  await using registry = await FakeRegistry.start();
  const { digest } = registry.push('team/app', '1.0', { layers });
  const manifestStore = memoryStore();
  for (let count = 0; count < 2; count += 1) {
    await using client = await RegistryClient.open(registry.reference('team/app', '1.0'), { manifestStore });
    assert.equal((await client.image()).digest, digest);
    for (const [key, bytes] of manifestStore.documents) manifestStore.documents.set(key, bytes.subarray(1));
  }
});

test('with a store: a registry that answers HEAD by an error is asked by GET', async () => {
  await using registry = await FakeRegistry.start();
  const { digest } = registry.push('team/app', '1.0', { layers });
  const manifestStore = memoryStore();
  for (const status of [200, 405, 400, 403, 404]) {
    registry.fault({ method: 'HEAD', path: /manifests/, status, headers: { 'docker-content-digest': [] } });
    await using client = await RegistryClient.open(registry.reference('team/app', '1.0'), { manifestStore });
    assert.equal((await client.image()).digest, digest);
  }
});

test('tags: all pages, in order', async () => {
  await using registry = await FakeRegistry.start({ pageSize: 3 });
  const tags = Array.from({ length: 10 }, (_, n) => `v${n}`);
  for (const tag of tags) registry.push('team/app', tag, { layers: [] });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  assert.deepEqual(await client.tags(), tags);
  assert.equal(registry.log(/tags/).length, 4);
});

test('tags: pages in a circle and names that are no tags', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1.0', { layers });
  const link = '</v2/team/app/tags/list?last=x>; rel="next"';
  registry.fault({ path: /tags/, times: 99, headers: { link }, body: '{"tags":["a","\\u001b[2J"]}' });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  await assert.rejects(client.tags(), /has no end/);
});

test('tags: a repository without tags, and one that does not exist', async () => {
  await using registry = await FakeRegistry.start();
  registry.putBlob('team/app', Buffer.from('x'));
  registry.fault({ path: /tags/, body: '{"name":"team/app","tags":null}' });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  assert.deepEqual(await client.tags(), []);
  await using other = await RegistryClient.open(registry.reference('team/none'));
  await assert.rejects(other.tags(), NotFoundError);
});

test('a registry that does not know version 2 is said to', async () => {
  await using registry = await FakeRegistry.start({ v2: false });
  await using client = await RegistryClient.open(registry.reference('team/app'), { registryVersion: 2 });
  await assert.rejects(client.image(), /does not speak version 2/);
});

test('a warning of the registry is passed on once, fit for a terminal', async () => {
  const warning = '299 - "going away\\; \u001b[31mread \\"this\\""';
  await using registry = await FakeRegistry.start({
    manifestHeaders: { warning: warning.replace('\u001b', '') },
  });
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  await client.image();
  await client.image();
  assert.deepEqual(client.notices, [`${registry.host} says: going away; [31mread "this"`]);
});

test('of many warnings ten are passed on', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers });
  const warning = Array.from({ length: 20 }, (_, number) => `299 - "warning ${number}"`);
  registry.fault({ path: /manifests/, headers: { warning } });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  await client.image();
  assert.equal(client.notices.length, 10);
});

test('IPv6 loopback', async () => {
  await using registry = await FakeRegistry.start({ host: '::1' });
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  assert.deepEqual(await client.pull(), layers);
});

test('a name that means IPv6 and IPv4 is reached where only one of them listens', async () => {
  await using registry = await FakeRegistry.start({ host: '127.0.0.1' });
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(
    registry.reference('team/app').replace('127.0.0.1', 'localhost'),
  );
  assert.deepEqual(await client.pull(), layers);
});

test('no more documents are requested at once than there may be connections', async () => {
  let under = 0;
  let most = 0;
  await using registry = await FakeRegistry.start({
    handler: () => {
      under += 1;
      most = Math.max(most, under);
      setTimeout(() => (under -= 1), 10);
      return undefined;
    },
  });
  registry.push('team/app', 'latest', { layers });
  registry.fault({ path: /manifests|blobs/, times: 99, delay: 20 });
  const requests = new RequestQueue(3);
  await using client = await RegistryClient.open(registry.reference('team/app'), { requests });
  await Promise.all(Array.from({ length: 12 }, () => client.image()));
  assert.ok(most > 1 && most <= 3, `${most}`);
});

test('the digest of a blob where that of a manifest belongs, by 404 or by the blob itself', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer' }, redirectBlobs: 307 });
  const { configDigest, blobs } = registry.push('team/app', '1.0', { layers });
  const config = { mediaType: 'application/json', bytes: blobs.get(configDigest)! };
  registry.push('team/other', '1.0', { layers });
  registry.putManifest('team/other', undefined, config);
  for (const repository of ['team/app', 'team/other']) {
    await using client = await RegistryClient.open(registry.reference(repository, configDigest));
    await assert.rejects(client.image(), { code: 'NOT_A_MANIFEST', exitCode: 3 });
  }
  const absent = `sha256:${'0'.repeat(64)}`;
  await using client = await RegistryClient.open(registry.reference('team/app', absent));
  await assert.rejects(client.image(), { code: 'NOT_FOUND', message: /MANIFEST_UNKNOWN/ });
});

test('a registry that fails for manifests only is tried again, though its blobs are manifests too', async () => {
  await using registry = await FakeRegistry.start();
  const { digest, bytes } = registry.push('team/app', '1.0', { layers });
  registry.putBlob('team/app', bytes);
  registry.fault({ path: /manifests/, status: 500, times: 1 });
  await using client = await RegistryClient.open(registry.reference('team/app', digest));
  assert.equal((await client.image()).digest, digest);
  assert.equal(client.notices.length, 1);
});
