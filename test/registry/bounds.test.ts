import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import { test, type TestContext } from 'node:test';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { DlrootfsError, NetworkError, printable } from '../../src/errors.ts';
import { redirected } from '../../src/registry/http/transport.ts';
import { registryWords } from '../../src/registry/http/answer.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { LocalServer } from '../support/local-server.ts';
import { RegistryClient } from '../support/registry-client.ts';

const layers = [Buffer.from('base layer')];
const timeouts = { connect: 500, headers: 400, stall: 300, document: 600 };
const huge = Buffer.alloc(20 * 1024 * 1024, ' ');

async function imageWith(fault: Fault, expected: RegExp): Promise<void> {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer' } });
  registry.push('team/app', 'latest', { layers });
  registry.fault({ times: 99, ...fault });
  await using client = await RegistryClient.open(registry.reference('team/app'), { timeouts, retry: 1 });
  await assert.rejects(client.image(), (error) => {
    assert.ok(error instanceof DlrootfsError, String(error));
    assert.match(error.message, expected);
    assert.equal(error.message, printable(error.message, 5000));
    return true;
  });
}

const cases: readonly (readonly [what: string, fault: Fault, expected: RegExp])[] = [
  ['a manifest that is too large', { path: /manifests/, body: huge }, /more than the limit of 4194304 bytes/],
  ['a manifest without end', { path: /manifests/, endless: true }, /more than the limit of 4194304 bytes/],
  [
    'a manifest that says it is small and is not',
    { path: /manifests/, endless: true, headers: { 'content-length': '100' } },
    /./,
  ],
  [
    'a manifest that inflates without end',
    { path: /manifests/, body: gzipSync(huge), headers: { 'content-encoding': 'gzip' } },
    /more than the limit of 4194304 bytes/,
  ],
  [
    'a manifest in an unknown encoding',
    { path: /manifests/, body: 'packed', headers: { 'content-encoding': 'x\u0001y'.replace('\u0001', '-') } },
    /unknown encoding x-y/,
  ],
  [
    'a manifest that lies about its encoding',
    { path: /manifests/, body: 'packed', headers: { 'content-encoding': 'br' } },
    /corrupt br data/,
  ],
  ['a manifest that is no JSON', { path: /manifests/, body: 'nonsense' }, /not valid JSON/],
  [
    'a manifest that says more than comes',
    { path: /manifests/, headers: { 'content-length': '9999' }, stallAfter: 50 },
    /stopped sending|broke|did not send/,
  ],
  [
    'a config that is larger than the manifest says',
    { path: /blobs/, body: huge },
    /more than the limit of \d+ bytes/,
  ],
  ['a token answer that is too large', { path: /token/, body: huge }, /more than the limit of 1048576 bytes/],
  ['an error that is too large', { path: /manifests/, status: 404, body: huge }, /answered 404\)$/],
  ['an error without end', { path: /manifests/, status: 500, endless: true }, /answered 500$/],
  ['a ping without end', { path: /^\/v2\/$/, status: 500, endless: true }, /answered 500$/],
  [
    'headers without end',
    { path: /manifests/, headers: { x: 'y'.repeat(100_000) } },
    /more than 16 KiB of headers/,
  ],
  [
    'a redirect to itself',
    { path: /manifests/, status: 302, headers: { location: '/v2/team/app/manifests/latest' } },
    /redirects in a loop/,
  ],
  [
    'a redirect to something other than a web address',
    { path: /manifests/, status: 302, headers: { location: 'file:///etc/passwd' } },
    /not a web address/,
  ],
  ['a redirect without a place', { path: /manifests/, status: 302 }, /answered 302/],
  [
    'control characters in an error',
    { path: /manifests/, status: 404, body: '{"errors":[{"code":"\\u001b[2J","message":"\\u202egnp"}]}' },
    /x1b/,
  ],
  [
    'control characters in a plain error',
    { path: /manifests/, status: 400, body: 'a\u001b]0;title\u0007b' },
    /x1b/,
  ],
];

for (const [what, fault, expected] of cases) {
  test(`bounds: ${what}`, async () => {
    await imageWith(fault, expected);
  });
}

/** Starts a server that ends with the test, also where that fails. Returns its `host:port`. */
async function serve(t: TestContext, handler: RequestListener): Promise<string> {
  const server = await LocalServer.start(createServer(handler));
  t.after(() => server[Symbol.asyncDispose]());
  return server.host;
}

test('bounds: redirects that lead on and on', async (t) => {
  let count = 0;
  const host = await serve(t, (_, response) => {
    count += 1;
    response.writeHead(302, { location: `/v2/?${count}` }).end();
  });
  await using client = await RegistryClient.open(`${host}/team/app`);
  await assert.rejects(client.image(), /redirects more than 10 times/);
  assert.equal(count, 11);
});

test('bounds: redirects that take their time have one deadline together', async (t) => {
  let now = 0;
  t.mock.timers.enable({ apis: ['setTimeout'] });
  t.mock.method(performance, 'now', () => now);
  const host = await serve(t, (_, response) => {
    now += 150;
    t.mock.timers.tick(150);
    response.writeHead(302, { location: `/v2/?${now}` }).end();
  });
  await using client = await RegistryClient.open(`${host}/team/app`, {
    timeouts: { connect: 300, headers: 100, stall: 300, document: 600 },
    retry: 0,
  });
  await assert.rejects(client.image(), { code: 'SILENT' });
});

test('bounds: a config of which the manifest says that it is too large is not asked for', async () => {
  await using registry = await FakeRegistry.start();
  const { bytes, mediaType, configDigest } = registry.push('team/app', undefined, { layers });
  const manifest = JSON.parse(String(Buffer.from(bytes))) as { config: { size: number } };
  manifest.config.size = 4 * 1024 * 1024 + 1;
  registry.putManifest('team/app', 'latest', { mediaType, bytes: Buffer.from(JSON.stringify(manifest)) });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  await assert.rejects(client.image(), {
    name: 'IntegrityError',
    message: /the config of .* has 4194305 bytes, 4194304 are allowed/,
  });
  assert.deepEqual(registry.log(new RegExp(configDigest)), []);
});

test('a document that a box compressed on the way is read', async () => {
  for (const [encoding, compress] of [
    ['gzip', gzipSync],
    ['br', brotliCompressSync],
  ] as const) {
    await using registry = await FakeRegistry.start();
    const { bytes } = registry.push('team/app', 'latest', { layers });
    registry.fault({ path: /manifests/, body: compress(bytes), headers: { 'content-encoding': encoding } });
    await using client = await RegistryClient.open(registry.reference('team/app'));
    assert.deepEqual(await client.pull(), layers);
  }
});

test('a server that answers everything with a web page is no registry', async (t) => {
  const host = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<!DOCTYPE html><title>Welcome</title>');
  });
  await using client = await RegistryClient.open(`${host}/team/app`);
  await assert.rejects(
    client.image(),
    (error) => error instanceof NetworkError && / answers with a web page: /.test(error.message),
  );
});

const get = { method: 'GET', headers: { accept: 'x', authorization: 'Basic x', cookie: 'a=b' } } as const;
const from = new URL('https://registry.example.com/v2/a/blobs/b');

const redirects: readonly (readonly [location: string, to: string | undefined, kept: readonly string[]])[] = [
  ['/other', 'https://registry.example.com/other', ['accept', 'authorization', 'cookie']],
  [
    'https://registry.example.com:443/x',
    'https://registry.example.com/x',
    ['accept', 'authorization', 'cookie'],
  ],
  ['https://registry.example.com:444/x', 'https://registry.example.com:444/x', ['accept']],
  ['//storage.example.com/x?sig=1#f', 'https://storage.example.com/x?sig=1', ['accept']],
  ['https://user:pass@storage.example.com/x', 'https://storage.example.com/x', ['accept']],
  ['http://registry.example.com/x', undefined, []],
  ['javascript:alert(1)', undefined, []],
  ['https://', undefined, []],
];

const follow = (location: string) => redirected({ ...get, url: from }, 307, location);

for (const [location, to, kept] of redirects) {
  test(`a redirect to ${location}`, () => {
    if (to === undefined) {
      assert.throws(() => follow(location), NetworkError);
      return;
    }
    const next = follow(location);
    assert.equal(next.url.href, to);
    assert.deepEqual(Object.keys(next.headers), kept);
  });
}

const words: readonly (readonly [body: string, text: string | undefined])[] = [
  ['', undefined],
  ['<html>', undefined],
  ['plain words', 'plain words'],
  ['{"errors":[{"code":"A","message":"b"},{"code":"C"},{"message":"d"}]}', 'b (A); C; d'],
  ['{"error":"Tag not found"}', 'Tag not found'],
  ['{"details":"token expired"}', 'token expired'],
  ['{"errors":null}', undefined],
  ['{"errors":[null,1,"x"]}', undefined],
  ['[]', undefined],
  ['"x"', undefined],
];

for (const [body, text] of words) {
  test(`a registry's words: ${body}`, () => {
    assert.equal(registryWords(Buffer.from(body)).text, text);
  });
}
