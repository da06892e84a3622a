import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { DlrootfsError, NetworkError, printable } from '../../src/errors.ts';
import { RegistryClient } from '../support/registry-client.ts';
import { HANG } from '../support/hang.ts';
import { LocalServer } from '../support/local-server.ts';

const timeouts = { connect: 500, headers: 500, stall: 300, document: 600 };

async function refuses(answer: string | Uint8Array): Promise<void> {
  await using server = await LocalServer.start(
    createServer((socket) => socket.once('data', () => socket.end(answer))),
  );
  await using client = await RegistryClient.open(`${server.host}/team/app`, { timeouts, retry: 0 });
  await assert.rejects(client.image(), (error) => {
    assert.ok(error instanceof DlrootfsError, String(error));
    assert.equal(error.message, printable(error.message, 5000));
    return true;
  });
}

const answers: readonly (readonly [what: string, answer: string])[] = [
  ['nothing', ''],
  ['a banner of another protocol', '220 mail.example.com ESMTP\r\n'],
  ['SSH', 'SSH-2.0-OpenSSH_9.9\r\n'],
  ['a page of HTTP 0.9', '<html>hello</html>'],
  ['an unknown status', 'HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n'],
  ['half a head', 'HTTP/1.1 200 OK\r\ncontent-le'],
  ['two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab'],
  ['a negative length', 'HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab'],
  [
    'a length and chunks',
    'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  ['chunks that are none', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n'],
  ['interim answers only', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(100)],
  ['an upgrade', 'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n'],
  ['a head without end', `HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(20_000)}`],
  ['control characters in the reason', 'HTTP/1.1 500 \u001b[31m\r\ncontent-length: 3\r\n\r\n\u001b[2'],
  [
    'control characters in a challenge',
    'HTTP/1.1 401 No\r\nwww-authenticate: Bearer realm="\u0007"\r\ncontent-length: 0\r\n\r\n',
  ],
];

for (const [what, answer] of answers) {
  test(`a server that answers ${what} is an error that can be read`, async () => {
    await refuses(answer);
  });
}

test('any bytes, alone or as head or body, are an error that can be read', async () => {
  const bytes = fc.uint8Array({ maxLength: 200 });
  const head = Buffer.from('HTTP/1.1 200 OK\r\n');
  const answer = fc.oneof(
    bytes,
    bytes.map((rest) => Buffer.concat([head, rest])),
    bytes.map((rest) => Buffer.concat([head, Buffer.from('\r\n'), rest])),
  );
  await fc.assert(fc.asyncProperty(answer, refuses), { numRuns: 40 });
});

test('a local server that answers http by nonsense and TLS by nothing: the error is about http', async () => {
  const nonsense = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab';
  await using server = await LocalServer.start(
    createServer((socket) => {
      socket.on('data', (data) => {
        if (data.toString('latin1').startsWith('GET ')) socket.end(nonsense);
      });
    }),
  );
  const patient = { ...timeouts, headers: 10 * timeouts.headers };
  await using client = await RegistryClient.open(`${server.host}/team/app`, { timeouts: patient, retry: 0 });
  const outcome = await client.image().catch((error: unknown) => error);
  assert.ok(outcome instanceof NetworkError, String(outcome));
  assert.match(outcome.message, /broke/);
});

const hint103 = 'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n';
let redirections = 0;

/** Servers that send without end: `first`, and then `drip` every 20 ms. */
const endless: readonly (readonly [what: string, first: string, drip: () => string])[] = [
  ['nothing', '', () => ''],
  ['interim answers (1xx)', '', () => hint103],
  ['many interim answers at once', '', () => hint103.repeat(500)],
  ['a status line, byte by byte', 'HTTP/1.1 20', () => '0'],
  ['one header, byte by byte', 'HTTP/1.1 200 OK\r\nx: ', () => 'y'],
  ['headers, one by one', 'HTTP/1.1 200 OK\r\n', () => 'a: b\r\n'],
  ['an interim answer and then nothing', hint103, () => ''],
  ['a body, byte by byte', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n', () => '1\r\n{\r\n'],
  ['a chunk extension', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=', () => 'y'.repeat(500)],
  ['trailers', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n', () => 'a: b\r\n'],
];

for (const [what, first, drip] of endless) {
  for (const place of ['/v2/', 'manifests', 'proxy'] as const) {
    test(`a server that goes on for ever with ${what}, at ${place}, is given up`, async () => {
      const connected = (socket: Socket) => {
        socket.on('data', (data) => {
          const request = data.toString('latin1');
          if (place === 'manifests' && !request.includes('/manifests/')) {
            socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}');
            return;
          }
          socket.write(first);
          const timer = setInterval(() => socket.writable && socket.write(drip()), 20);
          socket.on('close', () => clearInterval(timer));
        });
      };
      await using server = await LocalServer.start(createServer(connected));
      const environment = { HTTPS_PROXY: `http://${server.host}` };
      const name = place === 'proxy' ? 'registry.test/team/app' : `${server.host}/team/app`;
      await using client = await RegistryClient.open(name, { timeouts, retry: 0, environment });
      const givenUp = client.image().then(
        () => undefined,
        (error: unknown) => error,
      );
      const outcome = await Promise.race([givenUp, sleep(HANG, 'never', { ref: false })]);
      assert.ok(outcome instanceof DlrootfsError, String(outcome));
    });
  }
}

test('redirects have one deadline together', async () => {
  await using server = await LocalServer.start(
    createServer((socket) => {
      socket.on('data', () => {
        redirections += 1;
        const answer = `HTTP/1.1 302 Found\r\nlocation: /v2/?${redirections}\r\ncontent-length: 0\r\n\r\n`;
        setTimeout(() => socket.write(answer), 400);
      });
    }),
  );
  await using client = await RegistryClient.open(`${server.host}/team/app`, { timeouts, retry: 0 });
  await assert.rejects(client.image(), /did not answer in time/);
  // The limit is two seconds: twice the time to connect and to get the headers.
  assert.ok(redirections <= 6, String(redirections));
});
