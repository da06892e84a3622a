import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import { FakeRegistry, type LoggedRequest, type PushedImage } from '../support/fake-registry.ts';
import type { Answer } from '../support/fake-fault.ts';
import { LocalServer, onRequest } from '../support/local-server.ts';
import { RegistryClient, type ClientOptions } from '../support/registry-client.ts';

/** A habit of real registries and of proxies before them; each pull must succeed. */
interface Habit {
  readonly what: string;
  readonly answer: (request: LoggedRequest, image: PushedImage, host: string) => Answer | undefined;
  readonly client?: ClientOptions;
}

const layers = [Buffer.from('base layer'), Buffer.from('top layer')];
const asked = ({ path }: LoggedRequest, what: RegExp) => what.test(path);
const manifests = /\/manifests\//;
const blobs = /\/blobs\//;

/** Returns the manifest with other headers. */
const manifest =
  (headers: Answer['headers'], status = 200): Habit['answer'] =>
  (request, image) =>
    asked(request, manifests) ? { status, headers, body: image.bytes } : undefined;

const blobOf = (request: LoggedRequest, image: PushedImage) =>
  [...image.blobs].find(([digest]) => request.path.includes(digest))?.[1];

/** Returns every blob with other headers. */
const blob =
  (headers: Answer['headers'], status = 200): Habit['answer'] =>
  (request, image) => {
    const body = asked(request, blobs) ? blobOf(request, image) : undefined;
    return body && { status, headers, body };
  };

const oci = 'application/vnd.oci.image.manifest.v1+json';
const bearer = (host: string) => `Bearer realm="http://${host}/token",service="s"`;

/** Answers 401 without a token; the token server sends this response. */
const withToken =
  (token: string, challenges: (host: string) => string | string[] = bearer): Habit['answer'] =>
  (request, _, host) => {
    const json = { 'content-type': 'application/json' };
    if (request.path.startsWith('/token')) return { status: 200, headers: json, body: Buffer.from(token) };
    if (request.headers.authorization === 'Bearer abc') return undefined;
    return { status: 401, headers: { 'www-authenticate': challenges(host) }, body: Buffer.from('{}') };
  };

const habits: readonly Habit[] = [
  {
    what: 'a content type with charset (Harbor)',
    answer: manifest({ 'content-type': `${oci}; charset=utf-8` }),
  },
  { what: 'a content type in capitals', answer: manifest({ 'content-type': oci.toUpperCase() }) },
  { what: 'text/plain for a manifest (a file server)', answer: manifest({ 'content-type': 'text/plain' }) },
  {
    what: 'octet-stream for a manifest (S3)',
    answer: manifest({ 'content-type': 'application/octet-stream' }),
  },
  { what: 'no content type, no digest, no length', answer: manifest({}) },
  {
    what: 'an empty Docker-Content-Digest',
    answer: manifest({ 'content-type': oci, 'docker-content-digest': '' }),
  },
  {
    what: 'Docker-Content-Digest of another algorithm',
    answer: (request, image) =>
      manifest({ 'content-type': oci, 'docker-content-digest': `md5:${'0'.repeat(32)}` })(request, image, ''),
  },
  {
    what: 'a manifest without mediaType in it',
    answer: (request, image) => {
      if (!asked(request, manifests)) return undefined;
      const { mediaType: _, ...rest } = JSON.parse(Buffer.from(image.bytes).toString()) as Record<
        string,
        unknown
      >;
      return { status: 200, headers: { 'content-type': oci }, body: Buffer.from(JSON.stringify(rest)) };
    },
  },
  {
    what: 'white space behind a manifest',
    answer: (request, image) =>
      asked(request, manifests)
        ? { status: 200, headers: {}, body: Buffer.concat([image.bytes, Buffer.from('\n\n')]) }
        : undefined,
  },
  {
    what: 'HEAD is not known (405)',
    answer: ({ method }) => (method === 'HEAD' ? { status: 405, headers: {}, body: Buffer.of() } : undefined),
  },
  {
    what: 'Content-Encoding: gzip on a blob that is not encoded (Google storage)',
    answer: blob({ 'content-encoding': 'gzip' }),
  },
  { what: 'Content-Encoding: identity on all', answer: blob({ 'content-encoding': 'identity' }) },
  { what: 'aws-chunked left in Content-Encoding (S3)', answer: blob({ 'content-encoding': 'aws-chunked' }) },
  { what: 'a blob without length and type', answer: blob({}) },
  { what: 'an ETag without quotes', answer: blob({ etag: 'abc', 'accept-ranges': 'bytes' }) },
  { what: 'Accept-Ranges: none', answer: blob({ 'accept-ranges': 'none' }) },
  {
    what: 'a relative redirect and with a query (Artifactory)',
    answer: (request, image) => {
      if (!asked(request, blobs)) return undefined;
      const digest = /sha256:[0-9a-f]+/.exec(request.path)![0];
      if (request.path.includes('?')) return blob({})(request, image, '');
      return {
        status: 302,
        headers: { location: `../blobs/${digest}?filename=a%20b&x=1+2` },
        body: Buffer.of(),
      };
    },
  },
  { what: 'a token without expires_in (Quay)', answer: withToken('{"token":"abc"}') },
  { what: 'a token that is good for 0 s', answer: withToken('{"token":"abc","expires_in":0}') },
  {
    what: 'expires_in as text, issued_at as nonsense',
    answer: withToken('{"token":"abc","expires_in":"300","issued_at":"now"}'),
  },
  {
    what: 'expires_in null, issued_at in another zone',
    answer: withToken(
      '{"access_token":"abc","token":"abc","expires_in":null,"issued_at":"2020-01-01T00:00:00.123456789+02:00"}',
    ),
  },
  {
    what: 'Bearer and Basic in two headers (Nexus)',
    answer: withToken('{"token":"abc"}', (host) => [
      'BASIC realm="Sonatype Nexus Repository Manager"',
      bearer(host),
    ]),
  },
  {
    what: 'a scope in the ping’s challenge (GHCR)',
    answer: withToken('{"token":"abc"}', (host) => `${bearer(host)},scope="repository:user/image:pull"`),
  },
  {
    what: 'an error in the challenge',
    answer: withToken(
      '{"token":"abc"}',
      (host) => `${bearer(host)},error="invalid_token",error_description="a, b=\\"c\\""`,
    ),
  },
  {
    what: 'a ping that is answered 200 with a page and no version header',
    answer: ({ path }) =>
      path === '/v2/'
        ? { status: 200, headers: { 'content-type': 'application/json' }, body: Buffer.from('{}') }
        : undefined,
  },
  {
    what: 'a ping that is redirected to one without the slash',
    answer: ({ path }) => {
      if (path === '/v2/') return { status: 301, headers: { location: '/v2' }, body: Buffer.of() };
      return path === '/v2' ? { status: 200, headers: {}, body: Buffer.from('{}') } : undefined;
    },
  },
  {
    what: 'a warning header, cookies and a long CSP with everything',
    answer: manifest({
      'content-type': oci,
      warning: '299 - "old"',
      'set-cookie': ['a=1', 'b=2; Domain=example.com'],
      'content-security-policy': 'x'.repeat(4000),
    }),
  },
];

for (const { what, answer, client: options = {} } of habits) {
  test(`a pull goes well with ${what}`, async () => {
    let image: PushedImage | undefined;
    await using registry = await FakeRegistry.start({
      handler: (request) => answer(request, image!, registry.host),
    });
    image = registry.push('team/app', 'latest', { layers });
    const reference = registry.reference('team/app');
    const seen = new Map<string, Uint8Array>();
    const manifestStore = {
      get: (digest: string) => Promise.resolve(seen.get(digest)),
      put: (digest: string, bytes: Uint8Array) => Promise.resolve(void seen.set(digest, bytes)),
      // The tag was pulled before, so each pull sends a HEAD.
      recall: () => Promise.resolve({ digest: digestOf(Buffer.of()), at: new Date(0) }),
      remember: () => Promise.resolve(),
    };
    for (const requests of [15, 30]) {
      await using client = await RegistryClient.open(reference, { retry: 0, manifestStore, ...options });
      assert.deepEqual(await client.pull(), layers);
      assert.ok(registry.requests.length < requests, registry.log(/./).join('\n'));
    }
  });
}

/** Starts a server that sends these bytes, which a library for servers would not send. */
async function rawRegistry(write: (status: number, body: Uint8Array) => Buffer, keepsOpen: boolean) {
  await using model = await FakeRegistry.start();
  const image = model.push('team/app', 'latest', { layers });
  const connected = (socket: Socket) => {
    onRequest(socket, (path) => {
      const digest = /sha256:[0-9a-f]+/.exec(path)?.[0] ?? '';
      const body = manifests.test(path) ? image.bytes : (image.blobs.get(digest) ?? Buffer.from('{}'));
      socket.write(write(200, body));
      if (!keepsOpen) socket.end();
    });
  };
  return await LocalServer.start(createServer(connected));
}

const chunked = (body: Uint8Array, step: number, trailer = '') => {
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += step) {
    const part = body.subarray(at, at + step);
    parts.push(
      Buffer.from(`${part.length.toString(16).toUpperCase()};x="y"\r\n`),
      Buffer.from(part),
      Buffer.from('\r\n'),
    );
  }
  return Buffer.concat([...parts, Buffer.from(`0\r\n${trailer}\r\n`)]);
};
const answerOf = (head: string, body: Uint8Array) => Buffer.concat([Buffer.from(`${head}\r\n\r\n`), body]);

const wire: readonly (readonly [what: string, keepsOpen: boolean, write: (body: Uint8Array) => Buffer])[] = [
  ['HTTP/1.0 without a length', false, (body) => answerOf('HTTP/1.0 200 OK', body)],
  [
    'HTTP/1.0 with a length',
    false,
    (body) => answerOf(`HTTP/1.0 200 OK\r\nContent-Length: ${body.length}`, body),
  ],
  [
    'Connection: close after each answer',
    false,
    (body) => answerOf(`HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ${body.length}`, body),
  ],
  [
    'HTTP/1.1 that ends a body by closing',
    false,
    (body) => answerOf('HTTP/1.1 200 OK\r\nConnection: close', body),
  ],
  [
    'chunks of three bytes with extensions',
    true,
    (body) => answerOf('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked', chunked(body, 3)),
  ],
  [
    'chunks with trailers',
    true,
    (body) =>
      answerOf(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum',
        chunked(body, 1000, 'x-sum: 1\r\n'),
      ),
  ],
  [
    '103 Early Hints before each answer',
    true,
    (body) =>
      answerOf(
        `HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: ${body.length}`,
        body,
      ),
  ],
  [
    'no reason behind the status',
    true,
    (body) => answerOf(`HTTP/1.1 200\r\nContent-Length: ${body.length}`, body),
  ],
  [
    'headers in odd case with spaces before the value',
    true,
    (body) => answerOf(`HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:   ${body.length}`, body),
  ],
  [
    'keep-alive that is good for one second',
    true,
    (body) =>
      answerOf(
        `HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1, max=1\r\nContent-Length: ${body.length}`,
        body,
      ),
  ],
];

for (const [what, keepsOpen, write] of wire) {
  test(`a pull goes well with ${what}`, async () => {
    await using server = await rawRegistry((_, body) => write(body), keepsOpen);
    await using client = await RegistryClient.open(`${server.host}/team/app`, { retry: 0 });
    assert.deepEqual(await client.pull(), layers);
  });
}
