// A registry that repeats received data in every text of its responses: no output of any command has a
// secret, in any spelling.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { DlrootfsError, listTags, pull, Secrets } from '../../src/index.ts';
import { file, tar } from '../support/archive.ts';
import { fakeManifest } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { LocalServer } from '../support/local-server.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { isThorough } from '../support/runs.ts';
import { encodings, secretsIn } from '../support/secret-spellings.ts';

const PASSWORD = 'S3cret/w0rd+"ü&x';
const PAIR = `bob:${PASSWORD}`;
const IDENTITY = 'identity.0123456789abcdef';
const GIVEN = 'given.0123456789abcdef';
const ISSUED = 'issued.0123456789abcdef';
const REFRESH = 'refresh.0123456789abcdef';
const COOKIE = 'cookie.0123456789abcdef';
const SIGNATURE = 'signature.0123456789abcdef';
const SECRETS = [PASSWORD, PAIR, IDENTITY, GIVEN, ISSUED, REFRESH, COOKIE, SIGNATURE];

const image = fakeManifest({ layers: [{ tar: tar(file('motd', 'hello\n')) }] });

interface Reply {
  readonly status?: number;
  /** The words of the status line. */
  readonly words?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string;
}

/** Responses with a text, by the place of the text. */
const places: Readonly<Record<string, (text: string) => Reply>> = {
  'the status line': (text) => ({ status: 400, words: text }),
  'the message of an error': (text) => ({ body: JSON.stringify({ errors: [{ code: 'X', message: text }] }) }),
  'the code of an error': (text) => ({ body: JSON.stringify({ errors: [{ code: text }] }) }),
  'the detail of an error': (text) => ({
    body: JSON.stringify({ errors: [{ code: 'DENIED', message: 'no', detail: { headers: text } }] }),
  }),
  'an error of another form': (text) => ({ status: 403, body: JSON.stringify({ error: text }) }),
  'a text': (text) => ({ status: 404, body: text }),
  'a text that is cut': (text) => ({ status: 404, body: `${'x'.repeat(185)} ${text}` }),
  'an error after which to try again': (text) => ({ status: 503, body: text }),
  'a rate limit': (text) => ({
    status: 429,
    headers: { 'ratelimit-limit': '1', 'docker-ratelimit-source': text, 'retry-after': '100' },
    body: text,
  }),
  'JSON that ends early': (text) => ({ status: 200, body: `{"schemaVersion":2,"x":"${text}` }),
  'no JSON': (text) => ({ status: 200, body: text }),
  'a manifest': (text) => ({
    status: 200,
    body: JSON.stringify({
      schemaVersion: 2,
      mediaType: text,
      config: { digest: text },
      layers: [{ mediaType: text }],
    }),
  }),
  'a challenge': (text) => ({
    status: 401,
    headers: { 'www-authenticate': `Bearer realm="${text}",error="${text}"` },
  }),
  'another scheme': (text) => ({
    status: 401,
    headers: { 'www-authenticate': `${text.slice(0, 9)} ${text}` },
  }),
  'an address without http': (text) => ({ status: 302, headers: { location: `ftp://${text}@host/${text}` } }),
  'a host': (text) => ({ status: 302, headers: { location: `http://${text.slice(0, 60)}.invalid/${text}` } }),
  'a path': (text) => ({ status: 302, headers: { location: `/${encodeURIComponent(text)}` } }),
  'a warning': (text) => ({ headers: { warning: `299 - "${text}"` }, body: text }),
  'an encoding': (text) => ({ status: 200, headers: { 'content-encoding': text }, body: 'x' }),
  'a media type': (text) => ({ status: 200, headers: { 'content-type': text }, body: '{"schemaVersion":3}' }),
  'a list of tags': (text) => ({
    status: 200,
    body: JSON.stringify({ tags: [text, text.replaceAll(/\W/g, '_')] }),
  }),
};

/** Returns the parts of a request that may have secrets, in one encoding. */
function knownOf(request: IncomingMessage, encode: (text: string) => string): string {
  const { authorization = '', cookie = '' } = request.headers;
  const pair = Buffer.from(authorization.replace(/^Basic /, ''), 'base64').toString('utf8');
  const texts = authorization.startsWith('Basic ')
    ? [authorization, pair, pair.slice(pair.indexOf(':') + 1)]
    : [authorization, authorization.replace(/^\w+ /, '')];
  return [...texts, cookie, request.url ?? ''].filter(Boolean).map(encode).join(' ');
}

type Scheme = 'basic' | 'bearer' | 'version 1';

/** Answers correctly until `stage`, whose response repeats the request. */
class Repeater {
  scheme: Scheme = 'basic';
  place = 'a text';
  encoding = 'plain';
  stage = /manifests|tags|images/;
  #server!: LocalServer;

  async start(): Promise<void> {
    this.#server = await LocalServer.start(
      createServer((request, response) => this.#answer(request, response)),
    );
  }

  async close(): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }

  get host(): string {
    return this.#server.host;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { status = 400, words = 'Words', headers = {}, body = '' } = this.#reply(request);
    const all = { 'set-cookie': `session=${COOKIE}; Path=/`, ...headers };
    response.writeHead(status, latin1(words), mapped(all));
    response.end(body);
  }

  #reply(request: IncomingMessage): Reply {
    const { url = '', headers } = request;
    const path = url.split('?')[0]!;
    if (path === '/token') return json({ token: ISSUED, refresh_token: REFRESH });
    if (this.scheme === 'version 1') {
      if (path === '/v2/') return { status: 404 };
      if (path === '/v1/_ping') return json({ standalone: true });
      const more = { 'x-docker-token': `signature=${ISSUED},repository="library/x",access=read` };
      if (path.endsWith('/images')) return { ...json([]), headers: more };
    } else if (headers.authorization === undefined) {
      const realm = `http://${this.host}/token?access_key=${SIGNATURE}`;
      const challenge = this.scheme === 'basic' ? 'Basic realm="x"' : `Bearer realm="${realm}",service="x"`;
      return { status: 401, headers: { 'www-authenticate': challenge } };
    }
    if (path === '/v2/') return json({});
    if (this.stage.test(path)) return places[this.place]!(knownOf(request, encodings[this.encoding]!));
    if (path.includes('/manifests/'))
      return {
        status: 200,
        headers: { 'content-type': image.mediaType },
        body: Buffer.from(image.bytes).toString(),
      };
    const blob = [...image.blobs].find(([digest]) => path.endsWith(digest))?.[1];
    // The address is signed, as those of storage servers.
    if (blob && !url.includes('?'))
      return { status: 307, headers: { location: `${path}?X-Amz-Signature=${SIGNATURE}` } };
    return blob ? { status: 200, body: Buffer.from(blob).toString('latin1') } : { status: 404 };
  }
}

const json = (value: unknown): Reply => ({ status: 200, body: JSON.stringify(value) });

/** Returns the bytes for a header; characters that no header can have become question marks. */
const latin1 = (text: string) =>
  Buffer.from(text, 'utf8')
    .toString('latin1')
    .replaceAll(/[^\t\x20-\x7e\x80-\xff]/g, '?');

function mapped(headers: NonNullable<Reply['headers']>): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      typeof value === 'string' ? latin1(value) : value.map(latin1),
    ]),
  );
}

/** Sources of a secret, and the server's demand for it. */
const schemes: Readonly<
  Record<string, { readonly scheme: Scheme; readonly environment: (host: string) => Record<string, string> }>
> = {
  Basic: { scheme: 'basic', environment: () => ({ DLROOTFS_CREDS: PAIR }) },
  'Bearer for a password': { scheme: 'bearer', environment: () => ({ DLROOTFS_CREDS: PAIR }) },
  'Bearer for an identity token': {
    scheme: 'bearer',
    environment: (host) => ({
      DOCKER_AUTH_CONFIG: JSON.stringify({ auths: { [host]: { identitytoken: IDENTITY } } }),
    }),
  },
  'a registry token': { scheme: 'bearer', environment: () => ({ DLROOTFS_REGISTRY_TOKEN: GIVEN }) },
  'version 1': { scheme: 'version 1', environment: () => ({ DLROOTFS_CREDS: PAIR }) },
};

const server = new Repeater();
before(() => server.start());
after(() => server.close());

const FLAGS = ['-v', '--retry', '1', '--retry-delay', '1ms'];

/** True for every third encoding, another one for each place and scheme; with DLROOTFS_RUNS for all. */
const isChosen = (...indices: readonly number[]) =>
  isThorough || indices.reduce((sum, index) => sum + index, 0) % 3 === 0;

describe('a registry that repeats what it got', () => {
  for (const [at, place] of Object.keys(places).entries())
    test(`in ${place}`, async () => {
      for (const [which, [name, { scheme, environment }]] of Object.entries(schemes).entries())
        for (const [index, encoding] of Object.keys(encodings).entries()) {
          if (!isChosen(at, which, index)) continue;
          Object.assign(server, { scheme, place, encoding });
          const inspecting = ['inspect', '--progress', index % 2 ? 'json' : 'plain'];
          const [command, ...flags] =
            place === 'a list of tags' || (at + index) % 4 === 0 ? ['tags'] : inspecting;
          const argv = [command!, `${server.host}/library/x`, ...flags, ...FLAGS];
          const { stdout, stderr } = await runHere(argv, environment(server.host));
          assert.deepEqual(
            secretsIn(stdout + stderr, SECRETS),
            [],
            `${name}, ${encoding}\n${stdout}${stderr}`,
          );
        }
    });
});

/** Each command and each form of output; the image is written into the current directory. */
const commands: readonly (readonly string[])[] = [
  ['IMAGE', '-d', 'root'],
  ['IMAGE', '-d', 'root', '--json'],
  ['IMAGE', '-d', 'root', '--progress', 'json', '-v'],
  ['IMAGE', '-d', 'root', '--progress', 'tty', '-v'],
  ['IMAGE', '-d', 'root', '-q'],
  ['IMAGE', '-d', 'root', '-g', '-v'],
  ['IMAGE', '--dry-run', '--json'],
  ['IMAGE', '-o', 'root.tar', '-v'],
  ['IMAGE', '-o', '-', '-v'],
  ['inspect', 'IMAGE', '-v', '--json'],
  ['tags', 'IMAGE', '-v'],
  ['tags', 'IMAGE', '--json'],
  ['verify', 'IMAGE', '-d', 'root', '-v'],
  ['diff', 'IMAGE', 'IMAGE', '--json', '-v'],
  ['cat', 'IMAGE', '/motd', '-v'],
  ['cache', 'add', 'IMAGE', '-v'],
];

test('by the program, through each command and form of output', async () => {
  using scratch = new Scratch();
  for (const [index, argv] of commands.entries()) {
    const { scheme, environment } = Object.values(schemes)[index % 5]!;
    const place = Object.keys(places)[index % 6]!;
    const encoding = Object.keys(encodings)[index % 12]!;
    const stage = index % 2 === 0 ? /manifests|tags|ancestry/ : /blobs|tags|layer|json/;
    Object.assign(server, { scheme, place, encoding, stage });
    const words = [...argv, ...FLAGS.slice(1)].map((word) =>
      word.replace('IMAGE', `${server.host}/library/x`),
    );
    const { stdout, stderr, exitCode } = await runProgram(words, {
      cwd: scratch.path,
      environment: { ...environment(server.host), HOME: scratch.path },
    });
    assert.ok(exitCode > 1 || argv[0] === 'tags', `${exitCode} of ${argv.join(' ')}\n${stderr}`);
    assert.deepEqual(secretsIn(stdout + stderr, SECRETS), [], `${argv.join(' ')}\n${stdout}${stderr}`);
  }
});

test('a proxy that repeats its credentials', async () => {
  Object.assign(server, { scheme: 'basic', place: 'a text', encoding: 'plain' });
  const repeater = createServer((request, response) => {
    const got = request.headers['proxy-authorization'] ?? '';
    const pair = Buffer.from(got.replace('Basic ', ''), 'base64').toString();
    response.writeHead(403, latin1(`no ${got}`)).end(`${got} ${pair} ${encodeURIComponent(pair)}`);
  });
  await using proxy = await LocalServer.start(repeater);
  const HTTP_PROXY = `http://bob:${encodeURIComponent(PASSWORD)}@${proxy.host}`;
  const argv = ['inspect', 'registry.invalid/x', '--plain-http', ...FLAGS];
  const { stderr } = await runProgram(argv, { environment: { HTTP_PROXY } });
  assert.match(stderr, /answered 403: Basic \*\*\*/);
  assert.deepEqual(secretsIn(stderr, SECRETS), [], stderr);
});

test('the library: errors, causes, stacks, events, and texts that the caller masks', async () => {
  Object.assign(server, { scheme: 'basic', place: 'a text', encoding: 'plain', stage: /manifests|tags/ });
  const reported: unknown[] = [];
  const secrets = new Secrets();
  const error: unknown = await pull(`${server.host}/library/x`, {
    secrets,
    cache: false,
    report: (event) => reported.push(event),
    registry: { credentials: { username: 'bob', password: PASSWORD }, retry: 0 },
  }).catch((each: unknown) => each);
  assert.ok(error instanceof DlrootfsError);
  assert.match(error.message, /\*\*\*/);
  assert.deepEqual(secretsIn(inspect([error, reported], { depth: null }), SECRETS), []);
  assert.equal(secrets.mask(`my own log: ${PAIR}`), 'my own log: ***');
});

test('the library: tags, as they come and all together', async () => {
  Object.assign(server, { scheme: 'bearer', place: 'a list of tags', encoding: 'plain', stage: /tags/ });
  const told: string[] = [];
  const tags = await listTags(`${server.host}/library/x`, {
    onTag: (tag) => told.push(tag),
    registry: { registryToken: 'given_0123456789abcdef' },
  });
  assert.deepEqual(tags, told);
  assert.ok(tags.length > 0);
  assert.deepEqual(secretsIn(tags.join(' '), ['given_0123456789abcdef']), []);
});

test('the credentials of a redirect to no web address', async () => {
  using scratch = new Scratch();
  writeFileSync(scratch.join('auth.json'), '{}');
  const redirect = createServer((_, response) => {
    response.writeHead(302, { location: `ftp://bob:${encodeURIComponent(PASSWORD)}@host/` }).end();
  });
  await using other = await LocalServer.start(redirect);
  const { stderr } = await runHere(['inspect', `${other.host}/x`, '--authfile', scratch.join('auth.json')]);
  assert.match(stderr, /is not a web address/);
  assert.deepEqual(secretsIn(stderr, SECRETS), [], stderr);
});
