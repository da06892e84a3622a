/**
 * Hostile servers against the program: each run ends in time, with an error that explains it, in little
 * memory.
 */
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../support/fake-image.ts';
import { LocalServer, onRequest } from '../support/local-server.ts';
import { resultWithPeak } from '../support/peak-memory.ts';
import { Scratch, startProgram } from '../support/program.ts';

const plain = Buffer.alloc(1024);
const layer = gzipSync(plain);
const config = Buffer.from(
  JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [sha256(plain)] },
  }),
);
const mediaType = 'application/vnd.oci.image.manifest.v1+json';
const manifest = JSON.stringify({
  schemaVersion: 2,
  mediaType,
  config: {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: sha256(config),
    size: config.length,
  },
  layers: [
    {
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: sha256(layer),
      size: layer.length,
    },
  ],
});

type Headers = Readonly<Record<string, string | number | readonly string[]>>;

function answer(status: number, body: string | Uint8Array = '', headers: Headers = {}): Buffer {
  const bytes = Buffer.from(body);
  const lines = Object.entries({ 'content-length': bytes.length, ...headers }).flatMap(([name, value]) =>
    [value].flat().map((each) => `${name}: ${each}\r\n`),
  );
  return Buffer.concat([Buffer.from(`HTTP/1.1 ${status} X\r\n${lines.join('')}\r\n`, 'latin1'), bytes]);
}

/** Returns the bytes of a response; undefined if `reply` writes to the socket itself. */
type Reply = (path: string, socket: Socket) => Buffer | undefined;

const sound: Reply = (path) => {
  if (path === '/v2/') return answer(200, '{}');
  if (path.includes('/manifests/')) return answer(200, manifest, { 'content-type': mediaType });
  if (path.includes(sha256(config))) return answer(200, config);
  return path.includes(sha256(layer)) ? answer(200, layer) : answer(404, '{}');
};

const at =
  (place: string, reply: Reply): Reply =>
  (path, socket) =>
    path.includes(place) ? reply(path, socket) : sound(path, socket);

const endless =
  (head: string, chunk: string | Uint8Array): Reply =>
  (_, socket) => {
    socket.write(`HTTP/1.1 ${head}\r\n`);
    const go = () => {
      while (socket.writable && socket.write(chunk));
      socket.once('drain', go);
    };
    go();
    return undefined;
  };

/** Serves a registry of version 1 with one image. */
const version1 =
  (ids: readonly string[], json: string, jsonHeaders: Headers, reply: Reply): Reply =>
  (path, socket) => {
    if (path === '/v2/') return answer(404);
    if (path.endsWith('_ping')) return answer(200, '{}');
    if (path.endsWith('/images')) return answer(200, '[]');
    if (path.endsWith('/tags')) return answer(200, JSON.stringify({ latest: ids[0] }));
    if (path.endsWith('/ancestry')) return answer(200, JSON.stringify(ids));
    return path.endsWith('/json') ? answer(200, json, jsonHeaders) : reply(path, socket);
  };

const id = (n: number) => n.toString(16).padStart(64, '0');
const checksum = { 'x-docker-checksum-payload': `sha256:${'0'.repeat(64)}` };
const close = '200 OK\r\nconnection: close\r\n';
const chunked = '200 OK\r\ntransfer-encoding: chunked\r\n';

interface Attack {
  readonly reply: Reply;
  readonly exitCode: number;
  readonly says: RegExp;
}

const attacks: Readonly<Record<string, Attack>> = {
  'a status of 000': {
    reply: at('manifests', () => Buffer.from('HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n')),
    exitCode: 5,
    says: /does not speak HTTP/,
  },
  'a manifest without end in chunks of a byte': {
    reply: at('manifests', endless(chunked, '1\r\n \r\n'.repeat(10_000))),
    exitCode: 5,
    // A busy machine reaches the limit of time first.
    says: /more than the limit of 4194304 bytes|did not send its whole answer within 60 s/,
  },
  'a layer without end in chunks of a byte': {
    reply: at(sha256(layer), endless(chunked, '1\r\n \r\n'.repeat(10_000))),
    exitCode: 6,
    says: /29 bytes/,
  },
  'headers without end': {
    reply: at('manifests', endless('200 OK', `x: ${'y'.repeat(5000)}\r\n`)),
    exitCode: 5,
    says: /headers/,
  },
  'one header without end': {
    reply: at('manifests', endless('200 OK\r\nx: ', Buffer.alloc(65_536, 'y'))),
    exitCode: 5,
    says: /headers/,
  },
  'trailers without end': {
    reply: at('manifests', endless(`${chunked}\r\n0`, `x: ${'y'.repeat(5000)}\r\n`)),
    exitCode: 5,
    says: /headers/,
  },
  'a body that inflates to 300 MB': {
    reply: at('manifests', () =>
      answer(200, gzipSync(Buffer.alloc(300_000_000)), { 'content-encoding': 'gzip' }),
    ),
    exitCode: 5,
    says: /more than the limit of 4194304 bytes/,
  },
  'JSON in a million arrays': {
    reply: at('manifests', () => answer(200, '['.repeat(1e6) + ']'.repeat(1e6))),
    exitCode: 6,
    says: /nested more than/,
  },
  'JSON in objects within what is left out': {
    reply: at('manifests', () =>
      answer(200, manifest.replace('{', `{"annotations":${'{"a":'.repeat(4e5)}1${'}'.repeat(4e5)},`)),
    ),
    exitCode: 6,
    says: /nested more than/,
  },
  'a length that is a lie': {
    reply: at('manifests', () => answer(200, '{}', { 'content-length': 4e9 })),
    exitCode: 5,
    says: /more than the limit of 4194304 bytes/,
  },
  'a redirect to a file': {
    reply: at('manifests', () => answer(302, '', { location: 'file:///etc/passwd' })),
    exitCode: 5,
    says: /file:/,
  },
  'a challenge of 14,000 characters': {
    reply: at('manifests', () =>
      answer(401, '{}', { 'www-authenticate': `Bearer realm="${'\\'.repeat(14_000)}` }),
    ),
    exitCode: 4,
    says: /401/,
  },
  'a layer of version 1 that is no tar, cannot be verified and has no end': {
    reply: version1([id(1)], '{}', {}, endless(close, Buffer.alloc(65_536, 1))),
    exitCode: 6,
    says: /layer/,
  },
  'a layer of version 1 that is no gzip, cannot be verified and has no end': {
    reply: version1([id(1)], '{}', {}, endless(`${close}\r\n\x1f\u008b`, Buffer.alloc(65_536, 1))),
    exitCode: 6,
    says: /layer/,
  },
  'a layer of version 1 with a checksum and no end': {
    reply: version1([id(1)], '{}', checksum, endless(close, Buffer.alloc(65_536, 1))),
    exitCode: 6,
    says: /layer/,
  },
  '4,000 images of version 1 with large JSON': {
    reply: version1(
      Array.from({ length: 4000 }, (_, n) => id(n)),
      JSON.stringify({ x: 'y'.repeat(100_000) }),
      {},
      () => answer(404),
    ),
    exitCode: 6,
    says: /have more than \d+ bytes/,
  },
};

describe('a hostile server', { concurrency: 2 }, () => {
  for (const [what, { reply, exitCode, says }] of Object.entries(attacks)) {
    test(`sends ${what}`, async () => {
      await using server = await LocalServer.start(
        createServer((socket) => {
          onRequest(socket, (path) => {
            const bytes = reply(path, socket);
            if (bytes !== undefined) socket.write(bytes);
          });
        }),
      );
      using scratch = new Scratch();
      const running = startProgram([`${server.host}/team/app`, '-d', 'out', '--no-cache', '--retry', '0'], {
        cwd: scratch.path,
      });
      const { peak, ...result } = await resultWithPeak(running);
      const said = `${result.exitCode}, ${peak} KiB\n${result.stderr}`;
      assert.equal(result.exitCode, exitCode, said);
      assert.match(/^error: .*$/m.exec(result.stderr)?.[0] ?? '', says, said);
      assert.doesNotMatch(result.stderr, /^\s+at |this is a bug/m, said);
      // The sources take more, since Node strips their types.
      if (process.env['DLROOTFS_BINARY'] !== undefined) assert.ok(peak < 200 * 1024, said);
    });
  }
});
