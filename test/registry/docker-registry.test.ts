import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { NotFoundError, UnauthorizedError } from '../../src/errors.ts';
import { createAuthority } from '../support/certificates.ts';
import { missing } from '../support/debian.ts';
import { DockerRegistry, TokenServer } from '../support/docker-registry.ts';
import { Scratch } from '../support/program.ts';
import { RegistryClient } from '../support/registry-client.ts';

const skip = missing('docker-registry');
const layers = [randomBytes(100_000), randomBytes(50_000)];
const credentials = { username: 'bob', password: 'hunter2' };
/** A line of htpasswd for bob:hunter2, with bcrypt. */
const htpasswd = 'bob:$2y$05$LsIke30ke7vgd4WYwKIDRe6bmxXnH07qmVoo0Lda6WKR9.34XrbVO\n';
const basic = `Basic ${Buffer.from('bob:hunter2').toString('base64')}`;

test('a real registry: OCI and Docker images, ranges, tags, what is not there', { skip }, async () => {
  await using registry = await DockerRegistry.start();
  for (const format of ['oci', 'docker'] as const) {
    const pushed = await registry.push('team/app', format, { layers, format });
    await using client = await RegistryClient.open(registry.reference('team/app', format));
    const image = await client.image();
    assert.equal(image.digest, pushed.digest);
    assert.deepEqual(await client.pull(), layers);
    const response = await image.layers[0]!.open({ start: 0 }, client.signal);
    assert.equal(response.ranges, true);
    assert.equal(response.size, layers[0]!.length);
    const rest = await client.blob(image.layers[0]!, { start: 1000, etag: response.etag });
    assert.equal(rest.equals(layers[0]!.subarray(1000)), true);
    const nothing = await image.layers[0]!.open({ start: layers[0]!.length }, client.signal);
    assert.equal(nothing.start, layers[0]!.length);
    assert.deepEqual((await client.tags()).toSorted(), format === 'oci' ? ['oci'] : ['docker', 'oci']);
  }
  await using other = await RegistryClient.open(registry.reference('team/app', 'none'));
  await assert.rejects(
    other.image(),
    (error) => error instanceof NotFoundError && /MANIFEST_UNKNOWN/.test(error.message),
  );
});

test(
  'a real registry: the digest of a config or a layer where that of a manifest belongs',
  { skip },
  async () => {
    await using registry = await DockerRegistry.start();
    const pushed = await registry.push('team/app', 'latest', { layers });
    const rows = [
      [
        pushed.configDigest,
        /that is the digest of the config of an image \(its image ID\), not of a manifest/,
      ],
      [pushed.layers[0]!.digest, /that is the digest of a layer, not of a manifest/],
    ] as const;
    for (const [digest, words] of rows) {
      await using client = await RegistryClient.open(registry.reference('team/app', digest));
      await assert.rejects(
        client.image(),
        (error) =>
          error instanceof NotFoundError && words.test(error.message) && /inspect -q/.test(error.hint!),
      );
      // This registry answers 500, which is retried otherwise.
      assert.deepEqual(client.notices, []);
    }
  },
);

test('a real registry: htpasswd', { skip }, async () => {
  await using registry = await DockerRegistry.start({ htpasswd });
  await registry.push('team/app', 'latest', { layers }, basic);
  await using client = await RegistryClient.open(registry.reference('team/app'), { credentials });
  assert.deepEqual(await client.pull(), layers);
  await using wrong = await RegistryClient.open(registry.reference('team/app'), {
    credentials: { ...credentials, password: 'wrong' },
  });
  await assert.rejects(wrong.image(), UnauthorizedError);
  await using anonymous = await RegistryClient.open(registry.reference('team/app'));
  await assert.rejects(
    anonymous.image(),
    (error) => error instanceof UnauthorizedError && /used no credentials/.test(error.message),
  );
});

test('a real registry: tokens, a private repository, a token that runs out', { skip }, async () => {
  await using token = await TokenServer.start({ bob: 'hunter2' });
  await using registry = await DockerRegistry.start({ token });
  await registry.push(
    'team/app',
    'latest',
    { layers },
    `Bearer ${token.issue(['repository:team/app:pull,push'])}`,
  );
  await using client = await RegistryClient.open(registry.reference('team/app'), { credentials });
  assert.deepEqual(await client.pull(), layers);
  assert.equal(token.log.length, 1);
  await using anonymous = await RegistryClient.open(registry.reference('team/app'));
  await assert.rejects(anonymous.image(), UnauthorizedError);
  await using registryToken = await RegistryClient.open(registry.reference('team/app'), {
    registryToken: token.issue(['repository:team/app:pull']),
  });
  assert.deepEqual(await registryToken.pull(), layers);
});

test('a real registry: a token that runs out in the middle of a pull is renewed', { skip }, async () => {
  // Distribution accepts a clock difference of one minute.
  await using token = await TokenServer.start({ bob: 'hunter2' }, -58);
  await using registry = await DockerRegistry.start({ token });
  await registry.push(
    'team/app',
    'latest',
    { layers },
    `Bearer ${token.issue(['repository:team/app:pull,push'], 600)}`,
  );
  await using client = await RegistryClient.open(registry.reference('team/app'), { credentials });
  const image = await client.image();
  // The registry refuses the token after two seconds.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal((await client.blob(image.layers[0]!)).equals(layers[0]!), true);
  assert.ok(token.log.length >= 2);
});

test('a real registry: TLS with its own authority, and client certificates', { skip }, async () => {
  using scratch = new Scratch();
  const authority = createAuthority();
  const file = (name: string, text: string) => {
    writeFileSync(scratch.join(name), text);
    return scratch.join(name);
  };
  const caFile = file('ca.pem', authority.cert);
  await using registry = await DockerRegistry.start({ tls: { authority } });
  await registry.push('team/app', 'latest', { layers });
  await using client = await RegistryClient.open(registry.reference('team/app'), { caFile });
  assert.deepEqual(await client.pull(), layers);
  await using found = await RegistryClient.open(registry.reference('team/app'), { tlsVerify: false });
  assert.deepEqual(await found.pull(), layers);
  await using strict = await DockerRegistry.start({ tls: { authority, clientCertificates: true } });
  await strict.push('team/app', 'latest', { layers });
  const { cert, key } = authority.issue('client');
  const certFile = file('c.pem', cert);
  const keyFile = file('k.pem', key);
  await using known = await RegistryClient.open(strict.reference('team/app'), { caFile, certFile, keyFile });
  assert.deepEqual(await known.pull(), layers);
  await using unknown = await RegistryClient.open(strict.reference('team/app'), { caFile, retry: 0 });
  await assert.rejects(unknown.image(), /client certificate/);
});

test(
  'a real registry as pull-through mirror: asked first, filled from the registry, enough when that is gone',
  { skip },
  async () => {
    await using origin = await DockerRegistry.start();
    const pushed = await origin.push('team/app', 'latest', { layers });
    await using mirror = await DockerRegistry.start({ proxy: { remoteurl: origin.url } });
    await using client = await RegistryClient.open(origin.reference('team/app'), { mirrors: [mirror.host] });
    assert.deepEqual(await client.pull(), layers);
    await Promise.all([pushed.digest, ...pushed.blobs.keys()].map((digest) => mirror.stored(digest)));
    await origin[Symbol.asyncDispose]();
    await using later = await RegistryClient.open(`${origin.host}/team/app@${pushed.digest}`, {
      mirrors: [mirror.host],
    });
    assert.deepEqual(await later.pull(), layers);
  },
);

test(
  'a real registry: schema 1 as skopeo pushes it',
  { skip: missing('docker-registry', 'skopeo') },
  async () => {
    await using registry = await DockerRegistry.start({ schema1: true });
    await registry.push('team/app', 'latest', { layers, format: 'docker' });
    execFileSync(
      'skopeo',
      [
        'copy',
        '--insecure-policy',
        '--src-tls-verify=false',
        '--dest-tls-verify=false',
        '--format=v2s1',
        `docker://${registry.reference('team/app')}`,
        `docker://${registry.reference('team/app', 'old')}`,
      ],
      { stdio: 'pipe' },
    );
    await using client = await RegistryClient.open(registry.reference('team/app', 'old'));
    const image = await client.image();
    assert.match(image.mediaType ?? '', /manifest\.v1\+prettyjws/);
    assert.deepEqual(await Promise.all(image.layers.map((layer) => client.blob(layer))), layers);
  },
);
