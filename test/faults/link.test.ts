import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createHash, randomBytes } from 'node:crypto';
import { file, tar } from '../support/archive.ts';
import type { FakeAuthOptions } from '../support/fake-auth.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram } from '../support/program.ts';
import { Setting, assertOriginalLines, noise, threeLayers } from './setting.ts';
import { HANG } from '../support/hang.ts';

const sum = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

test('a link that drops every 2 MiB: every byte comes once, each break is said, exit 0', async () => {
  const content = randomBytes(9 * 2 ** 20);
  await using setting = await Setting.open(
    { layers: [{ tar: tar(file('big', content)) }, { tar: tar(noise('other', 5 * 2 ** 20)) }] },
    { faults: [{ path: /\/blobs\//, cutAfter: 2 * 2 ** 20, times: 999 }] },
  );
  const { stdout, stderr } = await setting.pullWell();
  assertOriginalLines(stdout, setting.image);
  assert.equal(sum(readFileSync(setting.scratch.join('out/big'))), sum(content));
  for (const [n, layer] of setting.image.layers.entries()) {
    const breaks = setting.asked(n).length - 1;
    assert.ok(breaks >= Math.floor(layer.size / (2 * 2 ** 20)), `${breaks} breaks`);
  }
  assert.match(stderr, /^notice: layer 1 of 2 .* resuming from byte \d+$/m);
  assert.doesNotMatch(stderr, /from byte 0$/m);
});

test('the same with a server without ranges ends in an error after the retries, and nothing is left', async () => {
  await using setting = await Setting.open(
    { layers: [{ tar: tar(noise('big', 3 * 2 ** 20)) }] },
    { ranges: false, faults: [{ path: /\/blobs\//, skip: 1, cutAfter: 2 * 2 ** 20, times: 999 }] },
  );
  const { exitCode, stderr } = await setting.pull(['--retry', '2']);
  assert.equal(exitCode, 5, stderr);
  assert.match(stderr, /^error: .*\nhint: .*\nkept: run it again to resume the download\n$/m);
  assert.deepEqual(setting.names, []);
});

interface Healing {
  readonly what: string;
  readonly faults: readonly Fault[];
  /** Fails the first request for each layer. A pull that starts again requests some of them twice. */
  readonly eachLayer?: Omit<Fault, 'path'>;
  readonly says: RegExp;
}

const healing: readonly Healing[] = [
  {
    what: '429 with Retry-After in seconds, at the manifest',
    faults: [{ path: /\/manifests\//, status: 429, headers: { 'retry-after': '1' } }],
    says: /^notice: retry 1 of \d+ in 1\.0 s: .*$/m,
  },
  {
    what: '429 with Retry-After as a date, at a layer',
    faults: [
      {
        path: /\/blobs\//,
        skip: 1,
        status: 429,
        headers: { 'retry-after': new Date(Date.now() + 500).toUTCString() },
      },
    ],
    says: /^notice: retry 1 of \d+ in .* s: .*$/m,
  },
  {
    what: '503 twice, at the ping',
    faults: [{ path: /\/v2\/$/, status: 503, times: 2 }],
    says: /^notice: retry 2 of /m,
  },
  {
    what: 'a reset before the answer',
    faults: [{ path: /\/manifests\//, before: 'reset' }],
    says: /^notice: retry 1 of /m,
  },
  {
    what: 'a wrong byte in every layer, once each',
    faults: [],
    eachLayer: { corruptAt: 30 },
    says: /^notice: .*digest sha256/m,
  },
  {
    what: 'a layer that ends early, with a sound end',
    faults: [{ path: /\/blobs\//, skip: 1, endAfter: 70_000, times: 2 }],
    says: /^notice: layer .* from byte \d+$/m,
  },
];

for (const { what, faults, eachLayer, says } of healing) {
  test(`healed, and said: ${what}`, async () => {
    await using setting = await Setting.open(undefined, { faults });
    for (const { digest } of eachLayer ? setting.image.layers : []) {
      setting.registry.fault({ ...eachLayer, path: new RegExp(digest) });
    }
    const { stdout, stderr } = await setting.pullWell();
    assertOriginalLines(stdout, setting.image);
    assert.match(stderr, says);
    const notices = stderr.match(/^notice: .*$/gm)!;
    assert.equal(new Set(notices).size, notices.length, stderr);
    assert.match(setting.tree(), /etc\/motd/);
    assert.deepEqual(setting.names, ['out']);
  });
}

interface Bounded {
  readonly what: string;
  readonly faults: readonly Fault[];
  readonly exitCode: number;
  readonly says: RegExp;
}

const layers = /\/blobs\//;
const bounded: readonly Bounded[] = [
  {
    what: 'an endless manifest',
    faults: [{ path: /\/manifests\//, endless: true, times: 99 }],
    exitCode: 5,
    says: /more than the limit of 4194304 bytes/,
  },
  {
    what: 'an endless config',
    faults: [{ path: layers, endless: true, times: 99 }],
    exitCode: 5,
    says: /more than the limit of \d+ bytes/,
  },
  {
    what: 'an endless layer',
    faults: [{ path: layers, skip: 1, endless: true, times: 99 }],
    exitCode: 6,
    says: /more than its \d+ bytes/,
  },
  {
    what: 'a layer that claims another length',
    faults: [{ path: layers, skip: 1, headers: { 'content-length': '5' }, endAfter: 5, times: 99 }],
    exitCode: 6,
    says: /server has 5 bytes of it, but the manifest says/,
  },
  {
    what: 'a wait of an hour',
    faults: [{ path: /\/manifests\//, status: 429, headers: { 'retry-after': '3600' }, times: 99 }],
    exitCode: 8,
    says: /the limit is 60 s/,
  },
  {
    what: 'a redirect in a circle',
    faults: [{ path: layers, status: 307, headers: { location: '/v2/lib/img/blobs/x' }, times: 99 }],
    exitCode: 5,
    says: /redirect/,
  },
];

for (const { what, faults, exitCode, says } of bounded) {
  test(`bounded: ${what}: exit ${exitCode}, and nothing is left`, async () => {
    await using setting = await Setting.open(undefined, { faults });
    const begin = performance.now();
    const result = await setting.pull(['--retry', '2']);
    assert.equal(result.exitCode, exitCode, result.stderr);
    assert.match(result.stderr, says);
    assert.match(result.stderr, /^error: /m);
    assert.doesNotMatch(result.stderr, /^\s+at /m);
    assert.ok(performance.now() - begin < HANG);
    assert.deepEqual(setting.names, []);
  });
}

test('names from the server never reach the terminal raw', async () => {
  const evil = '\u001b]0;owned\u0007\u001b[31m\u202e';
  // eslint-disable-next-line no-control-regex
  const raw = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/;
  const answers: readonly Fault[] = [
    {
      path: /\/manifests\//,
      status: 403,
      body: JSON.stringify({ errors: [{ code: evil, message: evil, detail: evil }] }),
      times: 9,
    },
    {
      path: /\/v2\/$/,
      status: 401,
      headers: { 'www-authenticate': 'Bearer realm="http://127.0.0.1:1/\u0080\u009b31m",service="x"' },
      times: 9,
    },
    { path: /\/manifests\//, status: 500, body: `<html>${evil}</html>`, times: 9 },
    {
      path: /\/manifests\//,
      body: `{"schemaVersion":2,"mediaType":${JSON.stringify(evil)},"layers":[{"digest":${JSON.stringify(evil)}}]}`,
      times: 9,
    },
    { path: /\/manifests\//, headers: { warning: '299 - "\u009b31m"' }, times: 9 },
    { path: /\/blobs\//, status: 302, headers: { location: 'http://\u009b31m/' }, times: 9 },
  ];
  for (const answer of answers) {
    await using setting = await Setting.open(undefined, { faults: [answer] });
    const { stdout, stderr } = await setting.pull(['--retry', '0', '-v', '--no-cache']);
    assert.doesNotMatch(stdout + stderr, raw, JSON.stringify(stderr));
    assert.doesNotMatch(stderr, /^\s+at /m);
  }
  const names = tar(file('ok'), file(`../${evil}`), file(`${evil}/../../x`));
  await using setting = await Setting.open({
    layers: [{ tar: names }],
    config: { history: [{ created_by: evil }], author: evil, architecture: evil },
  });
  const { stdout, stderr } = await setting.pull(['-v', '--no-cache']);
  assert.doesNotMatch(stdout + stderr, raw, JSON.stringify(stderr));
});

test('a token for two requests, and one that expires during the pull: renewed silently', async () => {
  for (const auth of [
    { type: 'bearer', uses: 2 },
    { type: 'bearer', expiresIn: 1 },
  ] as const) {
    await using setting = await Setting.open(undefined, {
      auth,
      // The config is requested first, and alone.
      faults: [{ path: /\/blobs\//, skip: 1, cutAfter: 600_000, delay: 1200, times: 3 }],
    });
    const { stdout, stderr } = await setting.pullWell();
    assertOriginalLines(stdout, setting.image);
    assert.doesNotMatch(stderr, /unauthorized|\b401\b/i);
    assert.ok(setting.registry.log(/^\/token/).length > 1);
  }
});

const blobs = Array.from({ length: 4 }, () => 'GET blob');
const secret = { me: 'word' };
const healthy: readonly (readonly [
  what: string,
  auth: FakeAuthOptions | undefined,
  reference: 'tag' | 'digest' | 'index',
  first: readonly string[],
  again: readonly string[],
])[] = [
  ['a tag', undefined, 'tag', ['GET ping', 'GET manifest', ...blobs], ['GET ping', 'HEAD manifest']],
  ['a digest', undefined, 'digest', ['GET ping', 'GET manifest', ...blobs], []],
  [
    'a tag of an index',
    undefined,
    'index',
    ['GET ping', 'GET manifest', 'GET manifest', ...blobs],
    ['GET ping', 'HEAD manifest'],
  ],
  [
    'a tag, Basic',
    { type: 'basic', users: secret },
    'tag',
    ['GET ping', 'GET manifest', ...blobs],
    ['GET ping', 'HEAD manifest'],
  ],
  [
    'a tag, Bearer',
    { type: 'bearer', users: secret },
    'tag',
    ['GET ping', 'GET token', 'GET manifest', ...blobs],
    ['GET ping', 'GET token', 'HEAD manifest'],
  ],
  [
    'a digest, Bearer',
    { type: 'bearer', users: secret },
    'digest',
    ['GET ping', 'GET token', 'GET manifest', ...blobs],
    [],
  ],
];

for (const [what, auth, kind, first, again] of healthy) {
  test(`a healthy pull makes the requests that it needs and no other: ${what}`, async () => {
    await using setting = await Setting.open(undefined, auth ? { auth } : {});
    const { registry, image } = setting;
    registry.pushIndex('lib/img', 'many', [threeLayers()]);
    const named = {
      tag: setting.reference,
      digest: registry.reference('lib/img', image.digest),
      index: registry.reference('lib/img', 'many'),
    };
    const environment: Record<string, string> = auth ? { DLROOTFS_CREDS: 'me:word' } : {};
    const kinds = () =>
      registry.requests.map(({ method, path }) => {
        const name = /^\/v2\/$/.test(path)
          ? 'ping'
          : /^\/(token)|\/(blob|manifest)s\//.exec(path)?.slice(1).join('');
        return `${method} ${name}`;
      });
    const pull = async (destination: string, ...flags: readonly string[]) => {
      registry.requests.length = 0;
      const argv = [named[kind], '-d', destination, '--cache-dir', setting.store, ...flags];
      const { exitCode, stderr } = await runProgram(argv, { cwd: setting.scratch.path, environment });
      assert.equal(exitCode, 0, stderr);
      return kinds();
    };
    assert.deepEqual(await pull('uncached'), first);
    assert.deepEqual(await pull('cached'), again);
    assert.deepEqual(await pull('without', '--no-cache'), first);
  });
}

test('--mirror: everything comes from there, and from the registry when it has gone', async () => {
  await using setting = await Setting.open();
  const mirror = await FakeRegistry.start();
  try {
    for (const blob of setting.image.blobs.values()) mirror.putBlob('lib/img', blob);
    mirror.putManifest('lib/img', '1', setting.image);
    await setting.pullWell(['--no-cache', '--mirror', mirror.host]);
    assert.deepEqual(setting.registry.log(/\/(?:blobs|manifests)\//), []);
  } finally {
    await mirror.close();
  }
  const { stderr } = await setting.pullWell(['--no-cache', '--mirror', mirror.host, '-d', 'two']);
  assert.equal(stderr.match(/^notice: .*instead$/gm)?.length, 1, stderr);
  assert.equal(setting.tree('two'), setting.tree('out'));
});
