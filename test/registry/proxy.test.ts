/** Tests of proxies run the program itself, since the binary loads undici in another way. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { createAuthority } from '../support/certificates.ts';
import { FakeProxy, type FakeProxyOptions } from '../support/fake-proxy.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { closedHost, LocalServer } from '../support/local-server.ts';
import { runProgram, Scratch, type ProgramResult } from '../support/program.ts';

const layers = [Buffer.alloc(1024)];
const secret = 'hunter2';

interface Setting {
  readonly registry: FakeRegistry;
  readonly proxy: FakeProxy;
  /** Pulls `registry.test/team/app`; the environment may name the proxy. */
  readonly pull: (environment: Record<string, string>, ...argv: string[]) => Promise<ProgramResult>;
}

/** A registry with the name `registry.test`, which only the proxy can find. */
async function withProxy(
  options: FakeProxyOptions,
  tls: boolean,
  run: (setting: Setting) => Promise<void>,
): Promise<void> {
  using scratch = new Scratch();
  const authority = createAuthority();
  writeFileSync(scratch.join('ca.pem'), authority.cert);
  const certificate = authority.issue('registry.test');
  const settings: FakeRegistryOptions = tls ? { tls: { authority, certificate } } : {};
  await using registry = await FakeRegistry.start(settings);
  registry.push('team/app', 'latest', { layers });
  const hosts = { [`registry.test:${tls ? 443 : 80}`]: registry.host };
  const own = options.certificate && { certificate: authority.issue('localhost') };
  await using proxy = await FakeProxy.start({ hosts, ...options, ...own });
  const flags = [...(tls ? ['--ca-file', scratch.join('ca.pem')] : ['--plain-http']), '--no-cache'];
  await run({
    registry,
    proxy,
    pull: async (environment, ...argv) => {
      const command = ['registry.test/team/app', '-d', 'out', '-v', '--retry', '0', ...flags, ...argv];
      const result = await runProgram(command, { cwd: scratch.path, environment });
      assert.doesNotMatch(result.stdout + result.stderr, /hunter2|aHVudGVyM|^\s+at |this is a bug/m);
      return result;
    },
  });
}

for (const credentials of [undefined, `me:${secret}`]) {
  const what = credentials === undefined ? '' : ', with the credentials of its address';
  test(`proxy: a tunnel for https${what}`, async () => {
    await withProxy({ ...(credentials !== undefined && { credentials }) }, true, async ({ proxy, pull }) => {
      const result = await pull({ HTTPS_PROXY: proxy.url() });
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual([...new Set(proxy.log)], ['CONNECT registry.test:443']);
      const named = `debug: registry.test through the proxy ${proxy.url('').replace('@', '')}, from HTTPS_PROXY`;
      assert.equal(result.stderr.split('\n').filter((line) => line === named).length, 1, result.stderr);
    });
  });

  test(`proxy: requests in absolute form for http${what}`, async () => {
    await withProxy({ ...(credentials !== undefined && { credentials }) }, false, async ({ proxy, pull }) => {
      const result = await pull({ http_proxy: proxy.url() });
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /^debug: registry\.test through the proxy http:.*, from http_proxy$/m);
      assert.deepEqual(proxy.log.slice(0, 2), [
        'GET http://registry.test/v2/',
        'GET http://registry.test/v2/team/app/manifests/latest',
      ]);
    });
  });

  test(`proxy: one that speaks TLS itself${what}`, async () => {
    const certificate = createAuthority().issue('replaced');
    const options = { certificate, ...(credentials !== undefined && { credentials }) };
    await withProxy(options, true, async ({ proxy, pull }) => {
      const result = await pull({ HTTPS_PROXY: proxy.url().replace('127.0.0.1', 'localhost') });
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual([...new Set(proxy.log)], ['CONNECT registry.test:443']);
    });
  });
}

test('proxy: NO_PROXY goes past it', async () => {
  await withProxy({}, true, async ({ proxy, pull }) => {
    const result = await pull({ HTTPS_PROXY: proxy.url(), NO_PROXY: 'other.test,registry.test' });
    assert.equal(result.exitCode, 5);
    assert.match(result.stderr, /^error: .*registry\.test/m);
    assert.deepEqual(proxy.log, []);
  });
});

for (const tls of [true, false]) {
  test(`proxy: wrong credentials for ${tls ? 'https' : 'http'} are said without them`, async () => {
    await withProxy({ credentials: 'me:right' }, tls, async ({ proxy, registry, pull }) => {
      for (const given of [`me:${secret}`, '']) {
        const url = proxy.url(given).replace('//@', '//');
        const result = await pull({ HTTPS_PROXY: url, HTTP_PROXY: url });
        assert.equal(result.exitCode, 5, result.stderr);
        assert.match(
          result.stderr,
          tls
            ? /^error: the proxy did not connect to registry\.test: it answered 407\nhint: put the credentials of the proxy into HTTPS_PROXY: /m
            : /^error: the proxy did not connect to registry\.test: it answered 407\nhint: put the credentials of the proxy into HTTP_PROXY: /m,
        );
      }
      assert.deepEqual(registry.requests, []);
    });
  });
}

test('proxy: one that refuses, one that is not there, one that says nothing, and what is none', async () => {
  await withProxy({ refuse: 403 }, true, async ({ proxy, pull }) => {
    const refused = await pull({ HTTPS_PROXY: proxy.url() });
    assert.equal(refused.exitCode, 5);
    assert.match(refused.stderr, /^error: .*answered 403\nhint: check HTTPS_PROXY, or .*NO_PROXY/m);
    const host = await closedHost();
    const closed = await pull({ HTTPS_PROXY: `http://me:${secret}@${host}` });
    assert.equal(closed.exitCode, 5);
    assert.match(
      closed.stderr,
      new RegExp(
        `^error: cannot connect to the proxy ${host.replaceAll('.', '\\.')}: connection refused\nhint: check HTTPS_PROXY$`,
        'm',
      ),
    );
    const unknown = await pull({ https_proxy: `http://me:${secret}@proxy.invalid:3128` });
    assert.equal(unknown.exitCode, 5);
    // A name server that answers for every name would give an address, to which the connection fails.
    assert.match(
      unknown.stderr,
      /^error: cannot (?:resolve|connect to) the proxy proxy\.invalid.*\nhint: check https_proxy$/m,
    );
    const wrongName = await pull({ http_proxy: `ftp://me:${secret}@proxy.test` }, '--plain-http');
    assert.match(wrongName.stderr, /^error: http_proxy is not the address of a proxy$/m);
    for (const url of [
      `ftp://me:${secret}@proxy.test`,
      `http://me:${secret}%@proxy.test`,
      `http://me:${secret}%ff@proxy.test`,
      `http://me:${secret}/x@proxy.test`,
    ]) {
      const wrong = await pull({ HTTPS_PROXY: url });
      assert.equal(wrong.exitCode, 2, wrong.stderr);
      assert.match(wrong.stderr, /^error: HTTPS_PROXY /m);
    }
  });
});

/**
 * Starts a SOCKS 5 proxy (RFC 1928) without authentication that connects every name to `target`; `log` gets
 * the names.
 */
function socksProxy(target: string, log: string[]) {
  const [host, port] = target.split(':') as [string, string];
  return createServer((socket) => {
    socket.once('data', () => {
      socket.write(Uint8Array.of(5, 0));
      socket.once('data', (request) => {
        const length = request[4]!;
        log.push(`${request.toString('latin1', 5, 5 + length)}:${request.readUInt16BE(5 + length)}`);
        const upstream = connect({ host, port: Number(port) }, () => {
          socket.write(Uint8Array.of(5, 0, 0, 1, 127, 0, 0, 1, 0, 0));
          upstream.pipe(socket).pipe(upstream);
        });
        upstream.on('error', () => socket.destroy());
      });
    });
  });
}

for (const tls of [true, false]) {
  test(`proxy: SOCKS for ${tls ? 'https' : 'http'}`, async () => {
    await withProxy({}, tls, async ({ registry, pull }) => {
      const log: string[] = [];
      await using server = await LocalServer.start(socksProxy(registry.host, log));
      const url = `socks5h://${server.host}`;
      const result = await pull({ HTTPS_PROXY: url, HTTP_PROXY: url });
      assert.equal(result.exitCode, 0, result.stderr);
      // Without the binary's flags, Node prints a warning about undici.
      if (process.env['DLROOTFS_BINARY'] !== undefined) assert.doesNotMatch(result.stderr, /warning/i);
      assert.deepEqual([...new Set(log)], [`registry.test:${tls ? 443 : 80}`]);
    });
  });
}
