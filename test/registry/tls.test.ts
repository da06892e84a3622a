import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { NetworkError, UsageError } from '../../src/errors.ts';
import { sortCertificates } from '../../src/registry/config/certificates.ts';
import { file, tar } from '../support/archive.ts';
import { createAuthority } from '../support/certificates.ts';
import { FakeProxy } from '../support/fake-proxy.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { LocalServer } from '../support/local-server.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { RegistryClient, type ClientOptions } from '../support/registry-client.ts';

const run = promisify(execFile);
const layers = [Buffer.from('base layer')];

function write(name: string, text: string): string {
  mkdirSync(path.dirname(name), { recursive: true });
  writeFileSync(name, text);
  return name;
}

async function serve(options: FakeRegistryOptions): Promise<FakeRegistry> {
  const registry = await FakeRegistry.start(options);
  registry.push('team/app', 'latest', { layers });
  return registry;
}

async function pull(reference: string, options: ClientOptions): Promise<void> {
  await using client = await RegistryClient.open(reference, { retry: 0, ...options });
  assert.deepEqual(await client.pull(), layers);
}

async function fails(reference: string, options: ClientOptions, expected: RegExp): Promise<void> {
  await assert.rejects(pull(reference, options), (error) => {
    assert.ok(error instanceof NetworkError || error instanceof UsageError, String(error));
    assert.match(`${error.message}\n${error.hint}`, expected);
    return true;
  });
}

test('NODE_EXTRA_CA_CERTS that names nothing is said, and gone on without', async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers: [{ tar: tar(file('a', 'b')) }] });
  const argv = [registry.reference('team/app'), '--no-cache'];
  const environment = { NODE_EXTRA_CA_CERTS: '/nowhere/ca.crt' };
  const { exitCode, stderr } = await runProgram(argv, { cwd: scratch.path, environment });
  assert.equal(exitCode, 0, stderr);
  assert.match(
    stderr,
    /^notice: cannot read NODE_EXTRA_CA_CERTS \/nowhere\/ca\.crt: .*ENOENT.*; going on without it$/m,
  );
});

test('an error about a certificate file names the file', async () => {
  using scratch = new Scratch();
  for (const [options, what] of [
    [{ caFile: scratch.path }, 'the certificate authority'],
    [{ certFile: scratch.path, keyFile: '/dev/null' }, 'the client certificate'],
  ] as const)
    await fails('127.0.0.1:1/x', options, new RegExp(`cannot read ${what} ${scratch.path}: .*EISDIR`));
});

test('an authority by --ca-file, --cert-dir, certs.d of docker and containers, and NODE_EXTRA_CA_CERTS', async () => {
  using scratch = new Scratch();
  await using registry = await serve({ tls: true });
  const reference = registry.reference('team/app');
  const { cert } = registry.authority!;
  await fails(
    reference,
    {},
    /cannot trust the certificate of 127\.0\.0\.1:\d+: its authority is unknown on this machine\n.*certs\.d\/127\.0\.0\.1:\d+\/ca\.crt.*--ca-file/s,
  );
  await pull(reference, { caFile: write(scratch.join('ca.pem'), cert) });
  write(scratch.join('dir/any.crt'), cert);
  await pull(reference, { certDir: scratch.join('dir') });
  await pull(reference, { environment: { NODE_EXTRA_CA_CERTS: scratch.join('ca.pem') } });
  for (const place of ['etc/docker', 'etc2/containers', 'home/.config/docker', 'home2/.config/containers']) {
    write(scratch.join(place, 'certs.d', registry.host, 'ca.crt'), cert);
    const home = place.split('/')[0]!;
    await pull(reference, { configDirs: [scratch.join(home)], environment: { HOME: scratch.join(home) } });
  }
});

test('an authority of the system’s store', async () => {
  using scratch = new Scratch();
  await using registry = await serve({ tls: true });
  const SSL_CERT_FILE = write(scratch.join('store.pem'), registry.authority!.cert);
  const program = new URL('../support/pull-once.ts', import.meta.url).pathname;
  const { stdout } = await run(process.execPath, [program, registry.reference('team/app')], {
    env: { ...process.env, SSL_CERT_FILE },
  });
  assert.equal(stdout, 'ok');
});

test('connections that begin at the same time all fall back to the system’s store', async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start({ tls: true });
  const pushed = registry.push('team/app', 'latest', { layers: [Buffer.from('one'), Buffer.from('two')] });
  let connections = 0;
  // The first request has used http already when the others fail.
  const passOn = (socket: Socket) => {
    const server = connect(Number(registry.host.split(':')[1]), '127.0.0.1');
    for (const each of [socket, server]) each.on('error', () => socket.destroy());
    server.pipe(socket);
    setTimeout(() => socket.pipe(server), connections === 0 ? 0 : 500);
    connections += 1;
  };
  await using storage = await LocalServer.start(createServer(passOn));
  for (const { digest } of pushed.layers) {
    const location = `https://${storage.host}/v2/team/app/blobs/${digest}`;
    registry.fault({ path: new RegExp(`blobs/${digest}`), status: 307, headers: { location } });
  }
  const SSL_CERT_FILE = write(scratch.join('store.pem'), registry.authority!.cert);
  const program = new URL('../support/pull-once.ts', import.meta.url).pathname;
  const { stdout } = await run(process.execPath, [program, registry.reference('team/app')], {
    env: { ...process.env, SSL_CERT_FILE },
  });
  assert.equal(stdout, 'ok');
  assert.ok(connections > 1);
});

test('only the first certs.d directory that exists counts', async () => {
  using scratch = new Scratch();
  await using registry = await serve({ tls: true });
  write(scratch.join('etc/docker/certs.d', registry.host, 'ca.crt'), registry.authority!.cert);
  mkdirSync(scratch.join('etc/containers/certs.d', registry.host), { recursive: true });
  await fails(
    registry.reference('team/app'),
    { configDirs: [scratch.join('etc')] },
    /cannot trust the certificate/,
  );
});

test('--tls-verify=false goes on without a check, over https where there is https', async () => {
  await using registry = await serve({ tls: true });
  await pull(registry.reference('team/app'), { tlsVerify: false });
});

test('an expired certificate and one for another name say so', async () => {
  using scratch = new Scratch();
  const authority = createAuthority();
  const caFile = write(scratch.join('ca.pem'), authority.cert);
  await using expired = await serve({ tls: { authority, certificate: authority.issueExpired('127.0.0.1') } });
  await fails(expired.reference('team/app'), { caFile }, /: it has expired\n.*renew/s);
  await using other = await serve({
    tls: { authority, certificate: authority.issue('registry.example.com') },
  });
  await fails(
    other.reference('team/app'),
    { caFile },
    /cannot trust the certificate.*: it is for registry\.example\.com, not for 127\.0\.0\.1\n.*use the name/s,
  );
});

test('a client certificate by --cert-file and --key-file, and by certs.d', async () => {
  using scratch = new Scratch();
  const authority = createAuthority();
  await using registry = await serve({ tls: { authority, clientCertificates: true } });
  const reference = registry.reference('team/app');
  const client = authority.issue('client');
  const caFile = write(scratch.join('ca.pem'), authority.cert);
  const certFile = write(scratch.join('c.pem'), client.cert);
  const keyFile = write(scratch.join('k.pem'), client.key);
  await pull(reference, { caFile, certFile, keyFile });
  write(scratch.join('dir/ca.crt'), authority.cert);
  write(scratch.join('dir/client.cert'), client.cert);
  write(scratch.join('dir/client.key'), client.key);
  await pull(reference, { certDir: scratch.join('dir') });
  await fails(reference, { caFile }, /client certificate|broke/);
  await fails(reference, { caFile, certFile }, /--cert-file and --key-file/);
  await fails(reference, { caFile, certFile, keyFile: scratch.join('none') }, /cannot read the key/);
  await fails(reference, { caFile, certFile, keyFile: caFile }, /cannot use the certificate or key/);
});

test('certificates given for this machine mean https first', async () => {
  using scratch = new Scratch();
  await using registry = await serve({ tls: true });
  await pull(registry.reference('team/app'), {
    caFile: write(scratch.join('ca.pem'), registry.authority!.cert),
  });
  assert.deepEqual(registry.log().slice(0, 1), ['GET /v2/']);
  await using plain = await serve({});
  await pull(plain.reference('team/app'), { caFile: scratch.join('ca.pem') });
});

test('sorting a certs.d directory: pairs must be whole', () => {
  assert.deepEqual(sortCertificates('/d', ['a.crt', 'b.crt', 'x.cert', 'x.key', 'readme']), {
    authorities: ['/d/a.crt', '/d/b.crt'],
    clientCertificate: { cert: '/d/x.cert', key: '/d/x.key' },
  });
  assert.throws(() => sortCertificates('/d', ['x.cert']), /\/d has x\.cert but no x\.key/);
  assert.throws(() => sortCertificates('/d', ['x.key']), /\/d has x\.key but no x\.cert/);
});

test('a certificate directory that is not there is a usage error', async () => {
  await fails('localhost:1/team/app', { certDir: '/nonexistent' }, /certificate directory/);
});

/** A registry under the name of another machine, reached through a proxy. */
async function named(
  options: FakeRegistryOptions,
  port: number,
): Promise<{ registry: FakeRegistry; proxy: FakeProxy }> {
  const registry = await serve(options);
  return { registry, proxy: await FakeProxy.start({ hosts: { [`registry.test:${port}`]: registry.host } }) };
}

function proxied(proxy: FakeProxy): ClientOptions {
  return { environment: { HTTP_PROXY: proxy.url(), HTTPS_PROXY: proxy.url() } };
}

test('another host is asked over https only, and an http answer there says so', async () => {
  const { registry, proxy } = await named({}, 443);
  await fails('registry.test/team/app', proxied(proxy), /speaks plain HTTP, not HTTPS.*--plain-http/s);
  assert.deepEqual(proxy.log, ['CONNECT registry.test:443']);
  assert.deepEqual(registry.requests, []);
  await registry.close();
  await proxy[Symbol.asyncDispose]();
});

test('http on another host: by --plain-http, by --tls-verify=false after https, by registries.conf', async () => {
  using scratch = new Scratch();
  const { registry, proxy } = await named({}, 5000);
  const reference = 'registry.test:5000/team/app';
  await pull(reference, { ...proxied(proxy), plainHttp: true });
  assert.equal(proxy.log[0], 'GET http://registry.test:5000/v2/');
  proxy.log.length = 0;
  await pull(reference, { ...proxied(proxy), tlsVerify: false });
  assert.deepEqual(proxy.log.slice(0, 2), [
    'CONNECT registry.test:5000',
    'GET http://registry.test:5000/v2/',
  ]);
  write(
    scratch.join('containers/registries.conf'),
    '[[registry]]\nlocation = "registry.test:5000"\ninsecure = true\n',
  );
  await pull(reference, { ...proxied(proxy), configDirs: [scratch.path] });
  await registry.close();
  await proxy[Symbol.asyncDispose]();
});

test('--plain-http to a server that speaks TLS is an error', async () => {
  await using registry = await serve({ tls: true });
  await fails(registry.reference('team/app'), { plainHttp: true }, /broke|https/);
});

test('a redirect from https to http is refused', async () => {
  using scratch = new Scratch();
  await using registry = await serve({ tls: true });
  registry.fault({ path: /manifests/, status: 302, headers: { location: 'http://127.0.0.1:1/x' } });
  const caFile = write(scratch.join('ca.pem'), registry.authority!.cert);
  await fails(
    registry.reference('team/app'),
    { caFile },
    /refused: .* redirects from https to plain http at 127\.0\.0\.1:1/,
  );
});

test('a proxy: tunnels for https, credentials from its address, NO_PROXY', async () => {
  using scratch = new Scratch();
  const authority = createAuthority();
  const certificate = authority.issue('registry.test');
  await using registry = await serve({ tls: { authority, certificate }, redirectBlobs: 307 });
  const caFile = write(scratch.join('ca.pem'), authority.cert);
  const credentials = 'me:s%3Acret';
  await using proxy = await FakeProxy.start({
    hosts: { 'registry.test:443': registry.host },
    credentials: 'me:s:cret',
  });
  const environment = { HTTPS_PROXY: proxy.url(credentials) };
  await assert.rejects(pull('registry.test/team/app', { caFile, environment }), NetworkError);
  assert.equal(proxy.log[0], 'CONNECT registry.test:443');
  const withoutRedirect = await serve({ tls: { authority, certificate } });
  await using second = await FakeProxy.start({
    hosts: { 'registry.test:443': withoutRedirect.host },
    credentials: 'me:s:cret',
  });
  await pull('registry.test/team/app', { caFile, environment: { HTTPS_PROXY: second.url(credentials) } });
  const wrong = { caFile, environment: { HTTPS_PROXY: second.url('me:wrong-pw') } };
  await fails(
    'registry.test/team/app',
    wrong,
    /the proxy did not connect to registry\.test: it answered 407.*HTTPS_PROXY/s,
  );
  await assert.rejects(pull('registry.test/team/app', wrong), (error) => !/wrong-pw/.test(String(error)));
  const exempt = { HTTPS_PROXY: second.url(credentials), NO_PROXY: 'registry.test' };
  await fails('registry.test/team/app', { caFile, environment: exempt }, /cannot resolve registry\.test: /);
  await withoutRedirect.close();
});

test('a proxy for plain http wants its credentials too', async () => {
  await using registry = await serve({});
  await using proxy = await FakeProxy.start({
    hosts: { 'registry.test:80': registry.host },
    credentials: 'a:b',
  });
  const options = { plainHttp: true, environment: { HTTP_PROXY: proxy.url() } };
  await pull('registry.test/team/app', options);
  await fails('registry.test/team/app', { ...options, environment: { HTTP_PROXY: proxy.url('a:c') } }, /407/);
});

test('a proxy that refuses to connect', async () => {
  await using proxy = await FakeProxy.start({ refuse: 403 });
  await fails('registry.test/team/app', proxied(proxy), /answered 403.*NO_PROXY/s);
});

test('a proxy that speaks TLS itself', async () => {
  using scratch = new Scratch();
  const authority = createAuthority();
  await using registry = await serve({ tls: { authority, certificate: authority.issue('registry.test') } });
  await using proxy = await FakeProxy.start({
    hosts: { 'registry.test:443': registry.host },
    certificate: authority.issue('localhost'),
  });
  const caFile = write(scratch.join('ca.pem'), authority.cert);
  await pull('registry.test/team/app', {
    caFile,
    environment: { HTTPS_PROXY: proxy.url().replace('127.0.0.1', 'localhost') },
  });
});
