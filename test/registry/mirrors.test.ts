import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { IntegrityError, NetworkError, NotFoundError, UsageError } from '../../src/errors.ts';
import type { RemoteLayer } from '../../src/oci/image.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch } from '../support/program.ts';
import { collect, RegistryClient } from '../support/registry-client.ts';

const layers = [Buffer.from('base layer'), Buffer.from('top layer')];

interface Pair extends AsyncDisposable {
  readonly origin: FakeRegistry;
  readonly mirror: FakeRegistry;
  readonly reference: string;
}

async function pair(options: { readonly mirrored: boolean } = { mirrored: true }): Promise<Pair> {
  const origin = await FakeRegistry.start();
  const mirror = await FakeRegistry.start();
  origin.push('team/app', 'latest', { layers });
  if (options.mirrored) mirror.push('team/app', 'latest', { layers });
  return {
    origin,
    mirror,
    reference: origin.reference('team/app'),
    async [Symbol.asyncDispose]() {
      await origin.close();
      await mirror.close();
    },
  };
}

test('a mirror that has everything is all that is asked', async () => {
  await using both = await pair();
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(both.origin.requests, []);
  assert.equal(both.mirror.requests.length, 5);
});

test('what a mirror does not have comes from the registry, without a notice', async () => {
  await using both = await pair({ mirrored: false });
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(client.notices, []);
  assert.equal(both.mirror.log(/blobs/).length, 0);
});

test('with a mirror and an unknown tag, both answers are in the error', async () => {
  await using both = await pair();
  const { origin, mirror } = both;
  await using client = await RegistryClient.open(origin.reference('team/app', 'none'), {
    mirrors: [mirror.host],
  });
  const { message } = await client.pull().then(
    () => assert.fail(),
    (error: Error) => error,
  );
  assert.ok(
    message.includes(`${origin.host}/team/app has no tag none (${origin.host} answered 404`),
    message,
  );
  assert.ok(message.endsWith(`; the mirror ${mirror.host} answered the same`), message);
  await mirror.close();
  await using again = await RegistryClient.open(origin.reference('team/app', 'none'), {
    mirrors: [mirror.host],
    retry: 0,
  });
  await assert.rejects(again.pull(), /has no tag none .*; the mirror .*: cannot connect to .*refused$/);
});

test('tags come from the mirror, page by page, and from the registry where the mirror has none', async () => {
  await using origin = await FakeRegistry.start();
  await using mirror = await FakeRegistry.start({ pageSize: 1 });
  for (const tag of ['1', '2', '3']) mirror.push('team/app', tag, { layers });
  origin.push('team/app', '1', { layers });
  origin.push('team/other', '9', { layers });
  const tagsOf = async (name: string) => {
    await using client = await RegistryClient.open(origin.reference(name), { mirrors: [mirror.host] });
    return await client.tags();
  };
  assert.deepEqual(await tagsOf('team/app'), ['1', '2', '3']);
  assert.deepEqual(origin.requests, []);
  assert.deepEqual(await tagsOf('team/other'), ['9']);
});

test('a mirror that cannot be reached is said once', async () => {
  await using both = await pair();
  const { host } = both.mirror;
  await both.mirror.close();
  await using client = await RegistryClient.open(both.reference, { mirrors: [host], retry: 0 });
  assert.deepEqual(await client.pull(), layers);
  assert.equal(client.notices.length, 1);
  assert.match(
    client.notices[0]!,
    /cannot connect to .*: connection refused; trying 127\.0\.0\.1:\d+ instead/,
  );
});

test('a mirror that fails with a blob: the registry is its second source', async () => {
  await using both = await pair();
  both.mirror.fault({ path: /blobs/, skip: 1, times: 99, status: 500 });
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  assert.deepEqual(await client.pull(), layers);
  assert.ok(both.origin.log(/blobs/).length >= 1);
});

test('a blob whose body was no good is asked for elsewhere the next time, without the entity tag', async () => {
  await using both = await pair();
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  const [layer] = (await client.image()).layers;
  both.mirror.fault({ path: /blobs/, cutAfter: 4 });
  const first = await layer!.open({ start: 0 }, client.signal);
  await assert.rejects(collect(first.body), { code: 'BROKEN' });
  const rest = await client.blob(layer!, { start: 4, etag: first.etag });
  assert.deepEqual(rest, layers[0]!.subarray(4));
  const request = both.origin.requests.find(({ path }) => path.includes('blobs'));
  assert.equal(request!.headers.range, 'bytes=4-');
  assert.equal(request!.headers['if-range'], undefined);
});

/** Reads a blob to its end; if a body breaks, with a new request, as a download does. */
async function readBroken(client: RegistryClient, layer: RemoteLayer): Promise<Buffer> {
  let bytes = Buffer.alloc(0);
  while (bytes.length < layer.size!) {
    const { body } = await layer.open({ start: bytes.length }, client.signal);
    try {
      for await (const chunk of body) bytes = Buffer.concat([bytes, chunk]);
    } catch (error) {
      assert.ok(error instanceof NetworkError);
    }
  }
  return bytes;
}

test('after a broken body a server that failed before is asked last', async () => {
  await using both = await pair();
  await using third = await FakeRegistry.start();
  third.push('team/app', 'latest', { layers });
  const { origin, mirror } = both;
  for (const mirrors of [[mirror, third], [mirror]]) {
    await using client = await RegistryClient.open(both.reference, {
      mirrors: mirrors.map(({ host }) => host),
    });
    const [layer] = (await client.image()).layers;
    mirror.requests.length = 0;
    mirror.fault({ path: /blobs/, times: 2, status: 500 });
    for (const healthy of [third, origin]) healthy.fault({ path: /blobs/, cutAfter: 2, times: 1 });
    assert.deepEqual(await readBroken(client, layer!), layers[0]);
    assert.equal(mirror.log(/blobs/).length, 2);
  }
});

test('after wrong bytes a server that failed before is asked again', async () => {
  await using both = await pair();
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  const [layer] = (await client.image()).layers;
  both.mirror.fault({ path: /blobs/, times: 2, status: 500 });
  both.origin.fault({ path: /blobs/, times: 99, corruptAt: 1 });
  assert.notDeepEqual(await client.blob(layer!), layers[0]);
  assert.deepEqual(await client.blob(layer!), layers[0]);
});

test('parts of one blob that are asked for side by side all come from the mirror', async () => {
  await using both = await pair();
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  const [layer] = (await client.image()).layers;
  const parts = [{ start: 0, end: 4 }, { start: 4, end: 8 }, { start: 8 }];
  const bytes = await Promise.all(parts.map((range) => client.blob(layer!, range)));
  assert.deepEqual(Buffer.concat(bytes), layers[0]);
  assert.deepEqual(both.origin.requests, []);
});

test('a blob that is asked for again comes from elsewhere: the first was wrong', async () => {
  await using both = await pair();
  await using client = await RegistryClient.open(both.reference, { mirrors: [both.mirror.host] });
  const [layer] = (await client.image()).layers;
  both.mirror.fault({ path: /blobs/, times: 99, corruptAt: 1 });
  assert.notDeepEqual(await client.blob(layer!), layers[0]);
  assert.deepEqual(await client.blob(layer!), layers[0]);
});

test('a mirror that sends a wrong digest is replaced by the registry', async () => {
  await using both = await pair({ mirrored: false });
  const { digest } = both.origin.push('team/app', 'latest', { layers });
  const other = both.mirror.push('team/other', 'x', { layers: [] });
  both.mirror.putManifest('team/app', undefined, { ...other, digest });
  const reference = both.origin.reference('team/app', digest);
  await using client = await RegistryClient.open(reference, { mirrors: [both.mirror.host] });
  assert.equal((await client.image()).digest, digest);
  await using alone = await RegistryClient.open(both.mirror.reference('team/app', digest));
  await assert.rejects(alone.image(), IntegrityError);
});

test('when all fail the error is the registry’s own', async () => {
  await using both = await pair();
  both.mirror.fault({ path: /manifests/, times: 9, status: 403 });
  await using client = await RegistryClient.open(both.origin.reference('team/app', 'none'), {
    mirrors: [both.mirror.host],
  });
  await assert.rejects(
    client.image(),
    (error) => error instanceof NotFoundError && error.message.includes(both.origin.host),
  );
});

const auth = (name: string) => ({ type: 'basic', users: { [name]: 'pw' } }) as const;

const entry = (name: string) => ({ auth: Buffer.from(`${name}:pw`).toString('base64') });

const sent = (registry: FakeRegistry) =>
  new Set(
    registry.requests.flatMap(({ headers }) =>
      headers.authorization === undefined
        ? []
        : [Buffer.from(headers.authorization.slice(6), 'base64').toString()],
    ),
  );

test('each place gets the credentials that belong to it', async () => {
  using scratch = new Scratch();
  await using origin = await FakeRegistry.start({ auth: auth('origin') });
  await using mirror = await FakeRegistry.start({ auth: auth('mirror') });
  origin.push('team/app', 'latest', { layers });
  writeFileSync(
    scratch.join('auth.json'),
    JSON.stringify({ auths: { [origin.host]: entry('origin'), [mirror.host]: entry('mirror') } }),
  );
  await using client = await RegistryClient.open(origin.reference('team/app'), {
    authFile: scratch.join('auth.json'),
    mirrors: [mirror.host],
  });
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual([...sent(origin)], ['origin:pw']);
  assert.deepEqual([...sent(mirror)], ['mirror:pw']);
});

test('credentials that were given for the image are not sent to a mirror', async () => {
  const users = { bob: 'pw' };
  await using origin = await FakeRegistry.start({ auth: { type: 'basic', users } });
  await using mirror = await FakeRegistry.start({ auth: { type: 'basic', users } });
  origin.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(origin.reference('team/app'), {
    credentials: { username: 'bob', password: 'pw' },
    mirrors: [mirror.host],
  });
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(
    mirror.requests.filter(({ headers }) => headers.authorization !== undefined),
    [],
  );
});

test('registries.conf: mirrors, another location, blocked', async () => {
  using scratch = new Scratch();
  await using both = await pair();
  mkdirSync(scratch.join('containers'));
  const configure = (text: string) => writeFileSync(scratch.join('containers/registries.conf'), text);
  const configDirs = [scratch.path];
  configure(`[[registry]]\nprefix = "quay.io/team"\nlocation = "${both.origin.host}/team"\n`);
  await using moved = await RegistryClient.open('quay.io/team/app', { configDirs });
  assert.deepEqual(await moved.pull(), layers);
  configure(
    `[[registry]]\nlocation = "${both.origin.host}"\n[[registry.mirror]]\nlocation = "${both.mirror.host}"\n`,
  );
  both.origin.requests.length = 0;
  await using mirrored = await RegistryClient.open(both.reference, { configDirs });
  assert.deepEqual(await mirrored.pull(), layers);
  assert.deepEqual(both.origin.requests, []);
  configure(`[[registry]]\nlocation = "${both.origin.host}"\nblocked = true\n`);
  await assert.rejects(RegistryClient.open(both.reference, { configDirs }), UsageError);
});
