// The version 1 server of these tests, read by a client that is not ours.
import assert from 'node:assert/strict';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import registryClient, { type ClientV1 } from 'docker-registry-client';
import { FakeV1Registry, type FakeV1Options } from '../support/fake-v1-registry.ts';

type Callback<T> = (error: Error | null, result: T) => void;

const layers = [Buffer.from('base layer'), Buffer.from('middle layer'), Buffer.from('top layer')];

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

test('docker-registry-client is refused by the server what it should be', async () => {
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
