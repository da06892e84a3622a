import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import diagnostics from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import type { BlobRange, RemoteLayer } from '../../src/oci/image.ts';
import { isTransient, NotFoundError } from '../../src/errors.ts';
import type { Fault } from '../support/fake-fault.ts';
import { sha256 } from '../support/fake-image.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { collect, RegistryClient } from '../support/registry-client.ts';

const blob = randomBytes(200_000);
const etag = `"${sha256(blob)}"`;

async function open(
  options: FakeRegistryOptions,
  run: (layer: RemoteLayer, registry: FakeRegistry, client: RegistryClient) => Promise<void>,
): Promise<void> {
  await using registry = await FakeRegistry.start(options);
  registry.push('team/app', 'latest', { layers: [blob] });
  await using client = await RegistryClient.open(registry.reference('team/app'), { retry: 1 });
  const [layer] = (await client.image()).layers;
  registry.requests.length = 0;
  await run(layer!, registry, client);
}

interface Case {
  readonly what: string;
  readonly range: BlobRange;
  readonly fault?: Omit<Fault, 'path'>;
  readonly server?: FakeRegistryOptions;
  /** The offset of the body's first byte. */
  readonly start: number;
  readonly end?: number;
  readonly requests?: number;
}

const cases: readonly Case[] = [
  { what: 'the whole', range: { start: 0 }, start: 0 },
  { what: 'from an offset', range: { start: 1000 }, start: 1000 },
  {
    what: 'from an offset behind a redirect',
    range: { start: 1000 },
    server: { redirectBlobs: 307 },
    start: 1000,
    requests: 2,
  },
  { what: 'a part in the middle', range: { start: 1000, end: 2000 }, start: 1000, end: 2000 },
  { what: 'a part from the start', range: { start: 0, end: 10 }, start: 0, end: 10 },
  { what: 'with the right entity tag', range: { start: 1000, etag }, start: 1000 },
  { what: 'with another entity tag the whole comes', range: { start: 1000, etag: '"other"' }, start: 0 },
  {
    what: 'a weak entity tag is not sent',
    range: { start: 1000, etag: 'W/"x"' },
    server: { etags: false },
    start: 1000,
  },
  { what: 'a server without ranges', range: { start: 1000 }, server: { ranges: false }, start: 0 },
  {
    what: 'another part than requested: the whole is requested',
    range: { start: 1000 },
    fault: { status: 206, headers: { 'content-range': 'bytes 0-199999/200000' } },
    start: 0,
    requests: 2,
  },
  {
    what: '206 without Content-Range',
    range: { start: 1000 },
    fault: { status: 206, headers: { 'content-range': [] } },
    start: 0,
    requests: 2,
  },
  {
    what: '206 of a blob of another size',
    range: { start: 1000 },
    fault: { headers: { 'content-range': 'bytes 1000-199999/300000' } },
    start: 0,
    requests: 2,
  },
  {
    what: '206 with another entity tag',
    range: { start: 1000, etag },
    fault: { headers: { etag: '"new"' } },
    start: 0,
    requests: 2,
  },
  {
    what: '416 although there is more',
    range: { start: 1000 },
    fault: { status: 416, headers: { 'content-range': 'bytes */500' } },
    start: 0,
    requests: 2,
  },
  { what: 'everything is here already', range: { start: 200_000 }, start: 200_000 },
  { what: 'more is here than there is', range: { start: 300_000 }, start: 0, requests: 2 },
];

for (const { what, range, fault, server = {}, start, end, requests = 1 } of cases) {
  test(`a blob: ${what}`, async () => {
    await open(server, async (layer, registry, client) => {
      if (fault) registry.fault({ path: /blobs/, ...fault });
      const response = await layer.open(range, client.signal);
      assert.equal(response.start, start);
      const body = Buffer.concat(await collect(response.body));
      assert.equal(
        body.equals(blob.subarray(start, end)),
        true,
        `${body.length} bytes from ${response.start}`,
      );
      assert.equal(registry.requests.length, requests);
      assert.equal(response.ranges, server.ranges !== false);
      if (end === undefined) assert.equal(response.size, blob.length);
    });
  });
}

test('a blob without a length says that its size is not known', async () => {
  await open({}, async (layer, registry, client) => {
    registry.fault({ path: /blobs/, endAfter: 1000 });
    const response = await layer.open({ start: 0 }, client.signal);
    assert.equal(response.size, undefined);
    assert.equal(
      (await collect(response.body)).reduce((sum, chunk) => sum + chunk.length, 0),
      1000,
    );
  });
});

test('a blob that only ever answers with wrong parts is an error', async () => {
  await open({}, async (layer, registry, client) => {
    registry.fault({ path: /blobs/, times: 9, status: 206, headers: { 'content-range': 'bytes 5-9/10' } });
    await assert.rejects(
      layer.open({ start: 1 }, client.signal),
      /sent another range than the requested one/,
    );
    assert.deepEqual(
      registry.requests.map(({ headers }) => headers.range),
      ['bytes=1-', undefined],
    );
  });
});

test('an expired storage address is asked for again from the registry', async () => {
  await open({ redirectBlobs: 307 }, async (layer, registry, client) => {
    registry.fault({ path: /signature/, status: 403, body: '<Error>expired</Error>' });
    assert.equal((await client.blob(layer)).equals(blob), true);
    assert.deepEqual(
      registry.requests.map(({ server }) => server),
      ['registry', 'storage', 'registry', 'storage'],
    );
    assert.doesNotMatch(client.everything, /signature=secret/);
  });
});

test('a storage that refuses for good is an error that sends nobody to look for credentials', async () => {
  await open({ redirectBlobs: 307 }, async (layer, registry, client) => {
    registry.fault({ path: /signature/, times: 99, status: 403, body: '<Error>no</Error>' });
    await assert.rejects(
      layer.open({ start: 0 }, client.signal),
      (error) => isTransient(error) && /storage .* refuses/.test(error.hint ?? ''),
    );
  });
});

test('the addresses of a foreign layer are asked when the registry does not have it', async () => {
  await using elsewhere = await FakeRegistry.start();
  const digest = elsewhere.putBlob('x', blob);
  await using registry = await FakeRegistry.start();
  const urls = ['ftp://127.0.0.1/x', 'http://other.example.com/x', `${elsewhere.url}/v2/x/blobs/${digest}`];
  registry.push('team/app', 'latest', { layers: [{ tar: blob, compression: 'none', urls }] });
  await using client = await RegistryClient.open(registry.reference('team/app'), { retry: 0 });
  const [layer] = (await client.image()).layers;
  assert.equal((await client.blob(layer!)).equals(blob), true);
  assert.equal(elsewhere.requests.length, 0);
  registry.fault({ path: /blobs/, times: 9, status: 404 });
  assert.equal((await client.blob(layer!, { start: 7 })).equals(blob.subarray(7)), true);
  assert.equal(elsewhere.requests.length, 1);
  assert.equal(elsewhere.requests[0]!.headers.authorization, undefined);
});

test('an address in a manifest gets no credentials, also where it demands them', async () => {
  const auth = { type: 'basic', users: { bob: 'pw' } } as const;
  await using elsewhere = await FakeRegistry.start({ auth });
  const digest = elsewhere.putBlob('x', blob);
  await using registry = await FakeRegistry.start({ auth });
  const urls = [`${elsewhere.url}/v2/x/blobs/${digest}`];
  registry.push('team/app', 'latest', { layers: [{ tar: blob, compression: 'none', urls }] });
  await using client = await RegistryClient.open(registry.reference('team/app'), {
    credentials: { username: 'bob', password: 'pw' },
    retry: 0,
  });
  const [layer] = (await client.image()).layers;
  registry.fault({ path: /blobs/, times: 9, status: 404 });
  await assert.rejects(client.blob(layer!), NotFoundError);
  assert.equal(elsewhere.requests.length, 1);
  assert.equal(elsewhere.requests[0]!.headers.authorization, undefined);
});

test('an address in a manifest by http is asked on this machine only', async () => {
  await using elsewhere = await FakeRegistry.start();
  await using registry = await FakeRegistry.start();
  const foreign = Buffer.from('a foreign layer');
  // On any host, connections to 0.0.0.0 reach the host itself, but the address names no machine.
  const [, port] = elsewhere.host.split(':');
  const urls = [`http://0.0.0.0:${port}/x`];
  registry.push('team/app', 'latest', { layers: [{ tar: foreign, compression: 'none', urls }] });
  registry.fault({ path: /blobs/, skip: 1, times: 99, status: 404 });
  await using client = await RegistryClient.open(registry.reference('team/app'), { retry: 0 });
  const image = await client.image();
  await assert.rejects(client.blob(image.layers[0]!), NotFoundError);
  assert.deepEqual(elsewhere.requests, []);
});

test('bytes that nobody reads are not received: the connection waits, and goes on for its reader', async (t) => {
  const sockets: Socket[] = [];
  const note = (message: unknown): void => void sockets.push((message as { socket: Socket }).socket);
  diagnostics.subscribe('undici:client:connected', note);
  t.after(() => diagnostics.unsubscribe('undici:client:connected', note));
  const received = () => sockets.reduce((sum, socket) => sum + socket.bytesRead, 0);

  await using registry = await FakeRegistry.start();
  const [unread, read] = [randomBytes(8 * 2 ** 20), randomBytes(8 * 2 ** 20)];
  registry.push('team/app', 'latest', { layers: [unread, read] });
  await using client = await RegistryClient.open(registry.reference('team/app'), { retry: 0 });
  const { layers } = await client.image();
  const before = received();
  const waiting = await layers[0]!.open({ start: 0 }, client.signal);
  // The whole of another body arrives in this time.
  assert.equal((await client.blob(layers[1]!)).equals(read), true);
  const more = received() - before - read.length;
  assert.ok(more < 2 ** 20, `${more} bytes that nobody reads`);
  assert.equal(Buffer.concat(await collect(waiting.body)).equals(unread), true);
});
