import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { NetworkError, NotFoundError, UnauthorizedError } from '../../src/errors.ts';
import { FakeProxy } from '../support/fake-proxy.ts';
import { FakeV1Registry, type LoggedV1Request } from '../support/fake-v1-registry.ts';
import { Scratch } from '../support/program.ts';
import { RegistryClient } from '../support/registry-client.ts';
import { withLayers } from '../support/v1-setting.ts';

const layers = [Buffer.from('base layer'), Buffer.from('middle layer'), Buffer.from('top layer')];
const repository = 'team/app';
const bob = { username: 'bob', password: 'hunter2:colon', source: '--user' };
const users = { bob: 'hunter2:colon' };
const basic = `Basic ${Buffer.from('bob:hunter2:colon').toString('base64')}`;

const withRegistry = withLayers(repository, layers);

const at = (registry: FakeV1Registry, server: string): LoggedV1Request[] =>
  registry.requests.filter((request) => request.server === server);

const authorizations = (requests: readonly LoggedV1Request[]): Set<string | undefined> =>
  new Set(
    requests.map(({ headers }) => headers.authorization?.replace(/signature=[0-9a-f]+/, 'signature=…')),
  );

test('split: the index hears who we are, registries the token of the index', async () => {
  const options = { mode: 'split', users, private: /./, sessions: false, redirectLayers: 302 } as const;
  await withRegistry(options, { credentials: bob }, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    const [, ping, images] = at(registry, 'index');
    assert.equal(ping!.headers.authorization, undefined);
    assert.equal(images!.headers.authorization, basic);
    assert.equal(images!.headers['x-docker-token'], 'true');
    assert.deepEqual(
      authorizations(at(registry, 'registry0')),
      new Set(['Token signature=…,repository="team/app",access=read']),
    );
    assert.deepEqual(authorizations(at(registry, 'storage')), new Set([undefined]));
    for (const { headers } of registry.requests.slice(3)) assert.equal(headers['x-docker-token'], undefined);
  });
});

test('split: without credentials a public repository gives its token to everybody', async () => {
  await withRegistry({ mode: 'split', users }, {}, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.deepEqual(authorizations(at(registry, 'index')), new Set([undefined]));
  });
});

test('the token of the Python server begins with the word Token, which is not said twice', async () => {
  await withRegistry({ mode: 'split', tokenWord: true }, {}, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.match(at(registry, 'registry0')[0]!.headers.authorization!, /^Token signature=/);
  });
});

test('several tokens are sent together', async () => {
  const faults = [
    {
      path: /images$/,
      headers: { 'x-docker-token': ['signature=00,repository="a/b",access=read', 'second=1'] },
    },
  ];
  await withRegistry({ faults }, {}, async (registry, client) => {
    await client.image();
    const tags = registry.requests.find(({ path }) => path.endsWith('/tags'));
    assert.equal(tags!.headers.authorization, 'Token signature=00,repository="a/b",access=read,second=1');
  });
});

test('without a token nothing is said', async () => {
  await withRegistry({ tokens: false }, {}, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.deepEqual(authorizations(registry.requests), new Set([undefined]));
  });
});

test('standalone behind a proxy that wants a password for everything', async () => {
  await withRegistry({ users, basicEverywhere: true }, { credentials: bob }, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.deepEqual(authorizations(registry.requests.slice(2)), new Set([basic]));
    assert.deepEqual(authorizations(registry.requests.slice(0, 2)), new Set([undefined]));
  });
});

test('the same where the ping says that it is not standalone: a refused token makes way for the password, once', async () => {
  const pingHeaders = { 'x-docker-registry-standalone': 'False' };
  await withRegistry(
    { users, basicEverywhere: true, pingHeaders },
    { credentials: bob },
    async (registry, client) => {
      assert.deepEqual(await client.pull(), layers);
      assert.equal(
        registry.requests.filter(({ headers }) => headers.authorization?.startsWith('Token')).length,
        1,
      );
    },
  );
});

test('a ping that wants a password is one of version 1 nevertheless', async () => {
  const faults = [
    { path: /_ping/, status: 401, headers: { 'www-authenticate': 'Basic realm="x"' }, times: 9 },
  ];
  await withRegistry({ users, basicEverywhere: true, faults }, { credentials: bob }, async (_, client) => {
    assert.deepEqual(await client.pull(), layers);
  });
});

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

test('wrong credentials are refused, and where they came from is said', async () => {
  const credentials = { ...bob, password: 'wrong-pw' };
  await withRegistry({ mode: 'split', users }, { credentials }, async (registry, client) => {
    await assert.rejects(client.image(), (error) => {
      assert.ok(error instanceof UnauthorizedError);
      assert.equal(error.exitCode, 4);
      assert.match(
        error.message,
        /cannot read the list of images of team\/app: .* answered 401: Unauthorized; used bob's credentials from --user/,
      );
      assert.doesNotMatch(error.message, /wrong-pw/);
      return true;
    });
    assert.equal(registry.requests.length, 3);
  });
});

test('a private repository without credentials', async () => {
  await withRegistry({ mode: 'split', users, private: /./ }, {}, async (_, client) => {
    await assert.rejects(
      client.image(),
      (error) =>
        error instanceof UnauthorizedError &&
        /used no credentials/.test(error.message) &&
        /--user/.test(error.hint!),
    );
  });
});

test('an unknown repository', async () => {
  await using registry = await FakeV1Registry.start({ mode: 'split' });
  await using client = await RegistryClient.open(registry.reference('team/other'));
  await assert.rejects(
    client.image(),
    (error) =>
      error instanceof NotFoundError &&
      /team\/other does not exist \(.* 404: images not found\)/.test(error.message),
  );
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

test('a token that runs out on the way is renewed, once for all that need it', async () => {
  const options = { mode: 'split', sessions: false, tokenUses: 4 } as const;
  await withRegistry(options, {}, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    assert.ok(registry.log(/images$/).length > 1);
  });
});

test('a token that was never good is not renewed', async () => {
  await withRegistry({ mode: 'split', tokenUses: 0 }, {}, async (registry, client) => {
    await assert.rejects(client.image(), UnauthorizedError);
    assert.equal(registry.log(/images$/).length, 1);
    assert.equal(at(registry, 'registry0').length, 1);
  });
});

test('a token that is renewed and refused again is the end', async () => {
  await withRegistry({ mode: 'split', sessions: false }, {}, async (registry, client) => {
    const { layers: found } = await client.image();
    registry.fault({ path: /layer$/, status: 401, times: 99 });
    await assert.rejects(client.blob(found[0]!), UnauthorizedError);
    assert.equal(registry.log(/layer$/).length, 2);
  });
});

test('session cookies go back to the server that set them, and to no other', async () => {
  const options = { mode: 'split', tokenUses: 1, redirectLayers: 307 } as const;
  await withRegistry(options, {}, async (registry, client) => {
    assert.deepEqual(await client.pull(), layers);
    const cookies = (server: string) =>
      at(registry, server).map(({ headers }) => headers.cookie?.replace(/=.*/, ''));
    assert.deepEqual(cookies('index'), [undefined, undefined, undefined]);
    assert.deepEqual(cookies('registry0'), [undefined, ...Array.from({ length: 7 }, () => 'session')]);
    assert.deepEqual(cookies('storage'), [undefined, undefined, undefined]);
  });
});

test('a standalone registry that knows its visitors by a cookie', async () => {
  await withRegistry({}, {}, async (registry, client) => {
    await client.pull();
    const later = registry.requests.slice(3);
    assert.deepEqual(new Set(later.map(({ headers }) => headers.cookie)), new Set(['idx=1']));
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

for (const status of [301, 302, 303, 307, 308] as const) {
  test(`layers behind a redirect ${status}`, async () => {
    await withRegistry({ mode: 'split', redirectLayers: status }, {}, async (registry, client) => {
      assert.deepEqual(await client.pull(), layers);
      for (const { headers } of at(registry, 'storage')) {
        assert.equal(headers.authorization, undefined);
        assert.equal(headers.cookie, undefined);
      }
    });
  });
}

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

test('TLS: certificates are checked at registries too, and a client’s certificates come from the registry’s own directory', async () => {
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
