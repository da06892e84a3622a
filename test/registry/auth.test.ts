import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { inspect } from 'node:util';
import { isTransient, NetworkError, NotFoundError, UnauthorizedError } from '../../src/errors.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { RegistryClient, type ClientOptions } from '../support/registry-client.ts';
import { until } from '../support/until.ts';

const layers = [Buffer.from('base layer'), Buffer.from('top layer')];
const bob = { username: 'bob', password: 'hunter2:colon', source: '--user' };
const users = { bob: 'hunter2:colon' };

interface Setting {
  readonly registry: FakeRegistry;
  readonly client: RegistryClient;
}

async function withRegistry(
  options: FakeRegistryOptions,
  client: ClientOptions,
  run: (setting: Setting) => Promise<void>,
): Promise<void> {
  await using registry = await FakeRegistry.start(options);
  registry.push('team/app', 'latest', { layers });
  await using session = await RegistryClient.open(registry.reference('team/app'), client);
  await run({ registry, client: session });
  assert.doesNotMatch(session.everything, /hunter2/);
  assert.doesNotMatch(session.everything, new RegExp(Buffer.from('bob:hunter2:colon').toString('base64')));
}

function unauthorized(...words: readonly RegExp[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof UnauthorizedError, String(error));
    assert.equal(error.exitCode, 4);
    const text = `${error.message}\n${error.hint}`;
    for (const word of words) assert.match(text, word);
    assert.doesNotMatch(inspect(error, { depth: 9 }), /hunter2|wrong-pw/);
    return true;
  };
}

test('Basic: credentials are sent when they are asked for, and not with the ping', async () => {
  await withRegistry(
    { auth: { type: 'basic', users } },
    { credentials: bob },
    async ({ registry, client }) => {
      assert.deepEqual(await client.pull(), layers);
      assert.equal(registry.requests[0]!.headers.authorization, undefined);
      assert.equal(registry.requests.length, 5);
    },
  );
});

test('requests one after another use one connection', async () => {
  for (const auth of [undefined, { type: 'basic', users }, { type: 'bearer', users }] as const) {
    await withRegistry({ auth }, { credentials: auth && bob }, async ({ registry, client }) => {
      await client.image();
      const sent = registry.requests.filter(({ path }) => path.startsWith('/v2/'));
      assert.equal(sent.length, 3, 'ping, manifest, config');
      assert.equal(new Set(sent.map(({ clientPort }) => clientPort)).size, 1);
    });
  }
});

test('Basic: without credentials one request is refused, and what can be known is said', async () => {
  await withRegistry({ auth: { type: 'basic', users } }, {}, async ({ registry, client }) => {
    await assert.rejects(
      client.image(),
      unauthorized(/cannot read the manifest/, /used no credentials/, /-u USER/),
    );
    assert.deepEqual(registry.log(), ['GET /v2/', 'GET /v2/team/app/manifests/latest']);
  });
});

test('Basic: wrong credentials are final, and where they came from is said', async () => {
  const credentials = { ...bob, password: 'wrong-pw' };
  await withRegistry({ auth: { type: 'basic', users } }, { credentials }, async ({ registry, client }) => {
    await assert.rejects(
      client.image(),
      unauthorized(/bob's credentials from --user/, /authentication required/),
    );
    assert.equal(registry.requests.length, 2);
  });
});

test('Bearer: password, with account and service as docker sends them', async () => {
  const auth = { type: 'bearer', users, private: /./ } as const;
  await withRegistry({ auth }, { credentials: bob }, async ({ registry, client }) => {
    assert.deepEqual(await client.pull(), layers);
    const token = registry.requests.find(({ path }) => path.startsWith('/token'));
    assert.match(token!.path, /service=fake\+registry&scope=repository%3Ateam%2Fapp%3Apull&account=bob/);
    assert.match(token!.headers.authorization ?? '', /^Basic /);
    assert.equal(registry.log(/token/).length, 1);
  });
});

test('Bearer: wrong password is said by the token server', async () => {
  const auth = { type: 'bearer', users, ownServer: true } as const;
  await withRegistry(
    { auth },
    { credentials: { ...bob, password: 'wrong-pw' } },
    async ({ registry, client }) => {
      await assert.rejects(
        client.image(),
        unauthorized(/token server .* refused bob's credentials from --user/),
      );
      await assert.rejects(client.image(), UnauthorizedError);
      assert.equal(registry.log(/token/).length, 1);
    },
  );
});

test('Bearer: a private or unknown repository without credentials takes three requests to refuse', async () => {
  const auth = { type: 'bearer', users, private: /./ } as const;
  await withRegistry({ auth }, {}, async ({ registry, client }) => {
    await assert.rejects(client.image(), unauthorized(/cannot read the manifest/, /used no credentials/));
    assert.equal(registry.requests.length, 3);
  });
});

test('Bearer: an identity token is exchanged by POST, and never in an address', async () => {
  using scratch = new Scratch();
  const file = { auths: { '127.0.0.1': {} as object } };
  const auth = { type: 'bearer', identityTokens: ['refresh-secret'], private: /./ } as const;
  await using registry = await FakeRegistry.start({ auth });
  registry.push('team/app', 'latest', { layers });
  file.auths = {
    [registry.host]: { auth: Buffer.from('00000000:').toString('base64'), identitytoken: 'refresh-secret' },
  } as never;
  writeFileSync(scratch.join('auth.json'), JSON.stringify(file));
  await using client = await RegistryClient.open(registry.reference('team/app'), {
    authFile: scratch.join('auth.json'),
  });
  assert.deepEqual(await client.pull(), layers);
  const token = registry.requests.find(({ method }) => method === 'POST');
  assert.equal(token!.path, '/token');
  const form = Object.fromEntries(new URLSearchParams(token!.body));
  assert.deepEqual(form, {
    grant_type: 'refresh_token',
    refresh_token: 'refresh-secret',
    client_id: 'dlrootfs',
    service: 'fake registry',
    scope: 'repository:team/app:pull',
  });
  assert.doesNotMatch(client.everything, /refresh-secret/);
});

test('Bearer: a registry token is sent as it is', async () => {
  const auth = { type: 'bearer', registryTokens: ['the-token'], private: /./ } as const;
  await withRegistry({ auth }, { registryToken: 'the-token' }, async ({ registry, client }) => {
    assert.deepEqual(await client.pull(), layers);
    assert.equal(registry.log(/token/).length, 0);
  });
  await withRegistry({ auth }, { registryToken: 'another' }, async ({ client }) => {
    await assert.rejects(client.image(), unauthorized(/the registry token from --registry-token/));
  });
});

for (const field of ['token', 'access_token'] as const) {
  test(`Bearer: the answer may call it ${field}`, async () => {
    await withRegistry({ auth: { type: 'bearer', field } }, {}, async ({ client }) => {
      assert.deepEqual(await client.pull(), layers);
    });
  });
}

test('Bearer: a token that runs out in the middle is renewed, once for all', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer', uses: 4 } });
  const many = Array.from({ length: 6 }, (_, n) => Buffer.from(`layer ${n}`));
  registry.push('team/app', 'latest', { layers: many });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  assert.deepEqual(await client.pull(), many);
  assert.ok(registry.log(/token/).length <= 3, registry.log(/token/).join());
  assert.deepEqual(client.notices, []);
});

test('Bearer: the abort of one request does not end the token request that others wait for', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer', uses: 2 } });
  registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'));
  // The manifest and the config are the two requests of the first token.
  const { layers: opened } = await client.image();
  registry.fault({ path: /token/, delay: 200 });
  const abort = new AbortController();
  const aborted = opened[0]!.open({ start: 0 }, abort.signal);
  await until('the second token request', () => registry.log(/token/).length === 2);
  const whole = client.blob(opened[1]!);
  await setTimeout(20);
  abort.abort(new Error('enough'));
  await assert.rejects(aborted, { message: 'enough' });
  assert.deepEqual(await whole, layers[1]);
  assert.equal(registry.log(/token/).length, 2);
});

test('Bearer: a token that stays refused after its renewal is final', async () => {
  await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
    const { layers: opened } = await client.image();
    registry.fault({
      path: /blobs/,
      times: 99,
      status: 401,
      headers: {
        'www-authenticate': `Bearer realm="${registry.url}/token",service="s",error="invalid_token"`,
      },
    });
    const before = registry.requests.length;
    await assert.rejects(client.blob(opened[0]!), unauthorized(/the layer sha256:/));
    assert.equal(
      registry
        .log()
        .slice(before)
        .filter((line) => line.includes('blobs')).length,
      3,
    );
  });
});

const invalid = (error: string) => (registry: FakeRegistry) => ({
  path: /manifests/,
  status: 401,
  body: '{"errors":[{"code":"UNAUTHORIZED","message":"token used before issued"}]}',
  headers: { 'www-authenticate': `Bearer realm="${registry.url}/token",service="s"${error}` },
});

test('Bearer: a fresh token that is called invalid is replaced by another, twice at most, after a pause', async () => {
  const refusal = invalid(',error="invalid_token"');
  await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
    registry.fault({ ...refusal(registry), times: 2 });
    assert.deepEqual(await client.pull(), layers);
    assert.equal(registry.log(/token/).length, 3);
    assert.equal(client.notices.length, 2);
    assert.match(client.notices[0]!, /refused a fresh token as invalid; trying another one$/);
  });
  await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
    registry.fault({ ...refusal(registry), times: 99 });
    await assert.rejects(client.image(), unauthorized(/401: token used before issued \(UNAUTHORIZED\)/));
    assert.equal(registry.log(/manifests/).length, 3);
  });
});

test('Bearer: the program tries three fresh tokens before it reports that they are refused', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer' } });
  registry.push('team/app', 'latest', { layers: [Buffer.alloc(1024)] });
  const refusal = invalid(',error="invalid_token"')(registry);
  for (const [times, exitCode] of [
    [2, 0],
    [99, 4],
  ] as const) {
    using scratch = new Scratch();
    registry.requests.length = 0;
    registry.fault({ ...refusal, times });
    const flags = ['--no-cache', '--retry-delay', '1ms', '--retry', '1'];
    const result = await runProgram([registry.reference('team/app'), '-d', 'out', ...flags], {
      cwd: scratch.path,
    });
    assert.equal(result.exitCode, exitCode, result.stderr);
    assert.equal(registry.log(/token/).length, 3);
    assert.equal(registry.log(/manifests/).length, 3);
    assert.equal(result.stderr.split('refused a fresh token as invalid; trying another one').length, 3);
    assert.equal(existsSync(scratch.join('out')), exitCode === 0);
    if (exitCode === 0) continue;
    assert.match(
      result.stderr,
      /^error: cannot read the manifest of .*: .* answered 401: token used before issued \(UNAUTHORIZED\); used no credentials\nhint: check the name; for a private image use -u USER, which asks for the password, --password-stdin or DLROOTFS_CREDS, or log in with docker, podman or skopeo$/m,
    );
  }
});

for (const error of ['', ',error="insufficient_scope"']) {
  test(`Bearer: a fresh token that is refused with "${error}" is final, with the registry's words`, async () => {
    await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
      registry.fault({ ...invalid(error)(registry), times: 99 });
      await assert.rejects(client.image(), unauthorized(/401: token used before issued \(UNAUTHORIZED\)/));
      assert.equal(registry.log(/manifests/).length, 1);
      assert.deepEqual(client.notices, []);
    });
  });
}

test('Bearer: a scope that the registry names instead is asked for, once', async () => {
  await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
    const challenge = `Bearer realm="${registry.url}/token",service="s",scope="repository:proxy/team/app:pull"`;
    registry.fault({ path: /manifests/, times: 99, status: 401, headers: { 'www-authenticate': challenge } });
    await assert.rejects(client.image(), UnauthorizedError);
    assert.deepEqual(
      registry.log(/token/).map((line) => new URL(line.slice(4), 'http://x').searchParams.get('scope')),
      ['repository:team/app:pull', 'repository:proxy/team/app:pull'],
    );
  });
});

const challenges: readonly (readonly [what: string, challenge: string | readonly string[]])[] = [
  ['Basic before Bearer in one header', 'Basic realm="x", Bearer realm="{realm}",service="s"'],
  [
    'unknown schemes first, in headers of their own',
    ['Negotiate', 'NTLM abc==', 'Bearer realm="{realm}",service="s"'],
  ],
  ['odd case and no service', 'BEARER Realm="{realm}"'],
  ['a realm without quotes', 'Bearer realm={realm},service=s'],
  ['a realm that has a query already', 'Bearer realm="{realm}?a=b",service="s"'],
  ['a relative realm', 'Bearer realm="/token",service="s"'],
  ['a first Bearer without a realm', 'Bearer service="s", Bearer realm="{realm}"'],
];

for (const [what, challenge] of challenges) {
  test(`challenge: ${what}`, async () => {
    await withRegistry({ auth: { type: 'bearer', challenge } }, {}, async ({ client }) => {
      assert.deepEqual(await client.pull(), layers);
    });
  });
}

for (const challenge of ['Negotiate', '', 'Bearer', 'Bearer realm="mailto:x"', 'Bearer realm=""']) {
  test(`challenge: only "${challenge}" ends in an error that says so`, async () => {
    await withRegistry(
      { auth: { type: 'bearer', challenge } },
      { credentials: bob },
      async ({ registry, client }) => {
        await assert.rejects(client.image(), UnauthorizedError);
        assert.ok(registry.requests.length <= 3);
      },
    );
  });
}

const openPing: FakeRegistryOptions['handler'] = ({ path }) =>
  path === '/v2/' ? { status: 200, headers: {}, body: Buffer.from('{}') } : undefined;

test('a challenge that comes only with the manifest is taken up', async () => {
  await withRegistry({ auth: { type: 'bearer' }, handler: openPing }, {}, async ({ client }) => {
    assert.deepEqual(await client.pull(), layers);
  });
  await withRegistry(
    { auth: { type: 'basic', users }, handler: openPing },
    { credentials: bob },
    async ({ client }) => {
      assert.deepEqual(await client.pull(), layers);
    },
  );
});

test('credentials go to a token server over http only on this machine', async () => {
  const challenge = 'Bearer realm="http://token.example.com/token",service="s"';
  await using registry = await FakeRegistry.start({ auth: { type: 'bearer', challenge }, tls: true });
  registry.push('team/app', 'latest', { layers });
  using scratch = new Scratch();
  writeFileSync(scratch.join('ca.crt'), registry.authority!.cert);
  await using client = await RegistryClient.open(registry.reference('team/app'), {
    caFile: scratch.join('ca.crt'),
    credentials: bob,
  });
  await assert.rejects(
    client.image(),
    (error) =>
      error instanceof NetworkError &&
      /refused: the token server of .*, token\.example\.com, does not use TLS/.test(error.message),
  );
});

test('Authorization and cookies never reach another origin', async () => {
  for (const redirectBlobs of [301, 302, 303, 307, 308] as const) {
    for (const auth of [
      { type: 'basic', users } as const,
      { type: 'bearer', users, private: /./ } as const,
    ]) {
      await withRegistry({ auth, redirectBlobs }, { credentials: bob }, async ({ registry, client }) => {
        registry.fault({ path: /manifests/, headers: { 'set-cookie': 'session=1; Path=/' } });
        assert.deepEqual(await client.pull(), layers);
        const stored = registry.requests.filter(({ server }) => server === 'storage');
        assert.equal(stored.length, 3);
        for (const { headers } of stored) {
          assert.equal(headers.authorization, undefined);
          assert.equal(headers.cookie, undefined);
        }
      });
    }
  }
});

test('a token request with credentials in its body follows no redirect to another origin', async () => {
  using scratch = new Scratch();
  const auth = { type: 'bearer', identityTokens: ['t'], private: /./ } as const;
  await using registry = await FakeRegistry.start({ auth });
  registry.push('team/app', 'latest', { layers });
  writeFileSync(
    scratch.join('auth.json'),
    JSON.stringify({ auths: { [registry.host]: { identitytoken: 't' } } }),
  );
  registry.fault({
    method: 'POST',
    path: /token/,
    times: 9,
    status: 307,
    headers: { location: `http://${registry.storageHost}/token` },
  });
  await using client = await RegistryClient.open(registry.reference('team/app'), {
    authFile: scratch.join('auth.json'),
  });
  await assert.rejects(client.image(), /redirects a token request/);
  assert.deepEqual(
    registry.requests.filter(({ server }) => server === 'storage'),
    [],
  );
});

const answers: readonly (readonly [what: string, body: string, status: number])[] = [
  ['no token', '{}', 200],
  ['no JSON', '<html>', 200],
  ['an empty token', '{"token":""}', 200],
  ['a token that is no header value', '{"token":"a\\r\\nHost: evil"}', 200],
  ['a token of another type', '{"token":{"a":1}}', 200],
  ['an unexpected status', '', 418],
];

for (const [what, body, status] of answers) {
  test(`a token server that answers ${what} is a network error`, async () => {
    await withRegistry({ auth: { type: 'bearer' } }, {}, async ({ registry, client }) => {
      registry.fault({ path: /token/, times: 9, body, status });
      await assert.rejects(client.image(), (error) => error instanceof NetworkError && !isTransient(error));
    });
  });
}

test('403 lists the possible reasons, 404 means that it does not exist', async () => {
  await withRegistry({}, {}, async ({ registry, client }) => {
    const denied = JSON.stringify({
      errors: [{ code: 'DENIED', message: 'requested access is denied\u001b[31m' }],
    });
    registry.fault({ path: /manifests/, status: 403, body: denied });
    await assert.rejects(
      client.image(),
      unauthorized(/403: requested access is denied\\x1b\[31m \(DENIED\)/),
    );
    registry.fault({ path: /manifests/, status: 404, body: '<html>not found</html>' });
    await assert.rejects(
      client.image(),
      (error) => error instanceof NotFoundError && error.message.endsWith('answered 404)'),
    );
  });
});

test('no credentials are read if none are demanded', async () => {
  using scratch = new Scratch();
  mkdirSync(scratch.join('.docker'));
  writeFileSync(scratch.join('.docker/config.json'), JSON.stringify({ credsStore: 'nowhere' }));
  await withRegistry({}, { environment: { HOME: scratch.path, PATH: '/bin' } }, async ({ client }) => {
    await client.pull();
    assert.deepEqual(client.notices, []);
  });
});
