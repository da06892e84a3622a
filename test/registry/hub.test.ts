import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { UnauthorizedError } from '../../src/errors.ts';
import { createAuthority } from '../support/certificates.ts';
import { FakeProxy } from '../support/fake-proxy.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { Scratch } from '../support/program.ts';
import { RegistryClient, type ClientOptions } from '../support/registry-client.ts';

const layers = [Buffer.from('base layer')];

/** Imitates Docker Hub: its names, over TLS, behind a proxy that connects them to this process. */
class FakeHub implements AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly proxy: FakeProxy;
  readonly options: ClientOptions;
  readonly #scratch: Scratch;

  private constructor(registry: FakeRegistry, proxy: FakeProxy, scratch: Scratch) {
    this.registry = registry;
    this.proxy = proxy;
    this.#scratch = scratch;
    writeFileSync(scratch.join('ca.pem'), registry.authority!.cert);
    const environment = { HTTPS_PROXY: proxy.url(), HOME: scratch.path };
    this.options = { caFile: scratch.join('ca.pem'), environment };
  }

  static async start(): Promise<FakeHub> {
    const authority = createAuthority();
    const registry = await FakeRegistry.start({
      tls: { authority, certificate: authority.issue('registry-1.docker.io', 'auth.docker.io') },
      auth: {
        type: 'bearer',
        users: { bob: 'hunter2' },
        private: /^bob\//,
        challenge: 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="{scope}"',
      },
      manifestHeaders: { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '57;w=21600' },
    });
    const hosts = { 'registry-1.docker.io:443': registry.host, 'auth.docker.io:443': registry.host };
    return new FakeHub(registry, await FakeProxy.start({ hosts }), new Scratch());
  }

  logIn(config: unknown): void {
    mkdirSync(this.#scratch.join('.docker'), { recursive: true });
    writeFileSync(this.#scratch.join('.docker/config.json'), JSON.stringify(config));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry.close();
    await this.proxy[Symbol.asyncDispose]();
    this.#scratch[Symbol.dispose]();
  }
}

test('Hub: an official image, anonymously', async () => {
  await using hub = await FakeHub.start();
  hub.registry.push('library/alpine', 'latest', { layers });
  await using client = await RegistryClient.open('alpine', hub.options);
  assert.deepEqual(await client.pull(), layers);
  assert.deepEqual(
    new Set(hub.proxy.log),
    new Set(['CONNECT registry-1.docker.io:443', 'CONNECT auth.docker.io:443']),
  );
  assert.deepEqual(hub.registry.log().slice(0, 3), [
    'GET /v2/',
    'GET /token?service=registry.docker.io&scope=repository%3Alibrary%2Falpine%3Apull',
    'GET /v2/library/alpine/manifests/latest',
  ]);
});

test('Hub: a private image with what docker login wrote', async () => {
  await using hub = await FakeHub.start();
  hub.registry.push('bob/secret', 'latest', { layers });
  const auth = Buffer.from('bob:hunter2').toString('base64');
  hub.logIn({ auths: { 'https://index.docker.io/v1/': { auth } } });
  await using client = await RegistryClient.open('bob/secret', hub.options);
  assert.deepEqual(await client.pull(), layers);
  const asked = hub.registry.requests.filter(({ headers }) => headers.authorization?.startsWith('Basic'));
  assert.deepEqual(
    asked.map(({ headers }) => headers.host),
    ['auth.docker.io'],
  );
});

test('Hub: an unknown or private repository says both, with the registry’s words', async () => {
  await using hub = await FakeHub.start();
  await using client = await RegistryClient.open('bob/nothing', hub.options);
  await assert.rejects(
    client.image(),
    (error) =>
      error instanceof UnauthorizedError &&
      /cannot read the manifest of bob\/nothing:latest: registry-1\.docker\.io answered 401/.test(
        error.message,
      ),
  );
});
