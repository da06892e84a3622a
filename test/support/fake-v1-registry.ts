import { randomUUID } from 'node:crypto';
import { createAuthority, type Authority } from './certificates.ts';
import type { Answer, Fault } from './fake-fault.ts';
import { FakeServers, type LoggedRequest } from './fake-server.ts';
import { fakeV1Images, type FakeV1Image, type StoredV1Image } from './fake-v1-image.ts';

export interface FakeV1Options {
  /** `standalone`: one server is index and registry. `split`: registries have other ports. */
  readonly mode?: 'standalone' | 'split';
  /** With `split`, the number of registries that the index names; default: 1. */
  readonly registries?: number;
  /**
   * Returns another value for `X-Docker-Endpoints`, given the registries' `host:port`; undefined: the header
   * is not sent.
   */
  readonly endpoints?: (hosts: readonly string[]) => string | readonly string[] | undefined;
  /** True: servers have a certificate for localhost and 127.0.0.1 from a new authority. */
  readonly tls?: true;
  /** Further names in that certificate. */
  readonly tlsNames?: readonly string[];
  /** Passwords by name. The index refuses other credentials. */
  readonly users?: Readonly<Record<string, string>>;
  /** Repositories that need a user. */
  readonly private?: RegExp;
  /**
   * True: a proxy requires Basic authentication for all requests but the ping, as with nginx at that time.
   */
  readonly basicEverywhere?: boolean;
  /** False: the index issues no tokens. */
  readonly tokens?: boolean;
  /** True: registries require a token of the index or a session of theirs. Default: true with `split`. */
  readonly checkTokens?: boolean;
  /** Number of requests for which a token is valid. */
  readonly tokenUses?: number;
  /** True: the token begins with the word `Token`, as that of the Python server. */
  readonly tokenWord?: boolean;
  /** False: a token is required for each request, and no session cookie is set. */
  readonly sessions?: boolean;
  /** Redirects requests for layers with this status to a server on another port. */
  readonly redirectLayers?: 301 | 302 | 303 | 307 | 308;
  /** False: the Range header is ignored and `Accept-Ranges` not sent. */
  readonly ranges?: boolean;
  /** True: `Content-Range` begins with `bytes`. The Python server omits it. */
  readonly rangeUnit?: boolean;
  /** Format of `X-Docker-Checksum-Payload`; default: `text`. */
  readonly checksums?: 'text' | 'list' | 'python-list' | 'tarsum-only' | 'none';
  /** False: `X-Docker-Size` is not sent. */
  readonly sizes?: boolean;
  /** Replaces headers of the ping. */
  readonly pingHeaders?: Answer['headers'];
  /** The response for `/v2/`; default: 404. */
  readonly v2?: Partial<Answer>;
  readonly faults?: readonly Fault[];
  /** Called first for every request; undefined: the registry answers. */
  readonly handler?: (request: LoggedV1Request) => Answer | undefined;
}

/** `server` is `index`, `registry0`, `registry1` …, or `storage`. With `standalone` it is always `index`. */
export type LoggedV1Request = LoggedRequest;

interface Repository {
  readonly tags: Map<string, string>;
  readonly images: Map<string, StoredV1Image>;
}

const json = { 'content-type': 'application/json' };
const nothing = Buffer.alloc(0);

function answer(status: number, value: unknown, headers: Answer['headers'] = {}): Answer {
  const body = Buffer.from(JSON.stringify(value));
  return { status, headers: { ...json, 'content-length': String(body.length), ...headers }, body };
}

function refuse(status: number, error: string, headers: Answer['headers'] = {}): Answer {
  return answer(status, { error }, headers);
}

/**
 * A registry of version 1 in this process, like the Python docker-registry and Docker Hub's index: HTTP(S)
 * servers on loopback with the images of `push` and the faults of `fault`.
 */
export class FakeV1Registry implements AsyncDisposable {
  readonly authority: Authority | undefined;
  readonly #options: FakeV1Options;
  readonly #repositories = new Map<string, Repository>();
  readonly #servers: FakeServers<string>;
  /** The repository of each signature, and how many requests it still allows. */
  readonly #tokens = new Map<string, { readonly repository: string; uses: number }>();
  /** The server and repository of each session. */
  readonly #sessions = new Map<string, string>();

  private constructor(options: FakeV1Options) {
    this.#options = options;
    this.authority = options.tls && createAuthority();
    this.#servers = new FakeServers({
      names: this.#names(),
      tls: this.authority?.issue('localhost', '127.0.0.1', ...(options.tlsNames ?? [])),
      faults: options.faults,
      // The pattern of a fault can name one of several registries.
      subject: ({ server, path }) => `${server} ${path}`,
      answer: (request, fault) => this.#answer(request, fault),
    });
  }

  static async start(options: FakeV1Options = {}): Promise<FakeV1Registry> {
    const registry = new FakeV1Registry(options);
    await registry.#servers.start();
    return registry;
  }

  /** All requests to the servers, in their order. */
  get requests(): LoggedV1Request[] {
    return this.#servers.requests;
  }

  #names(): string[] {
    const { mode, registries = 1 } = this.#options;
    const split = mode === 'split' ? Array.from({ length: registries }, (_, n) => `registry${n}`) : [];
    return ['index', ...split, 'storage'];
  }

  /** `host:port` of the index, for references. */
  get host(): string {
    return this.hostOf('index');
  }

  hostOf(server: string): string {
    return this.#servers.hostOf(server);
  }

  get url(): string {
    return this.#servers.url('index');
  }

  reference(repository: string, tag = 'latest'): string {
    return `${this.host}/${repository}:${tag}`;
  }

  /** Stores an image with a tag; returns the stored layers, base layer first. */
  push(repository: string, tag: string, image: FakeV1Image): readonly StoredV1Image[] {
    const stored = fakeV1Images(image);
    for (const each of stored) this.#repository(repository).images.set(each.id, each);
    this.tag(repository, tag, stored.at(-1)!.id);
    return stored;
  }

  tag(repository: string, tag: string, id: string): void {
    this.#repository(repository).tags.set(tag, id);
  }

  #repository(name: string): Repository {
    const full = name.includes('/') ? name : `library/${name}`;
    const known = this.#repositories.get(full);
    if (known) return known;
    const repository: Repository = { tags: new Map(), images: new Map() };
    this.#repositories.set(full, repository);
    return repository;
  }

  /** Adds a fault; faults are tried in their order, at most one for a request. */
  fault(fault: Fault): void {
    this.#servers.fault(fault);
  }

  /** `server METHOD path` of each request so far. */
  log(path = /(?:)/): string[] {
    return this.requests
      .filter((each) => path.test(each.path))
      .map((each) => `${each.server} ${each.method} ${each.path}`);
  }

  /** Closes the port of one server. */
  async stop(name: string): Promise<void> {
    await this.#servers.stop(name);
  }

  async close(): Promise<void> {
    await this.#servers.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #answer(request: LoggedV1Request, fault: Fault | undefined): Answer {
    const special = this.#options.handler?.(request);
    if (special) return special;
    const { server, headers } = request;
    const { pathname } = new URL(request.path, 'http://fake');
    if (server === 'storage') return this.#stored(pathname, request, fault);
    if (pathname === '/v2/') return { ...refuse(404, 'Not Found'), ...this.#options.v2 };
    if (/^(?:\/v1)?\/_ping$/.test(pathname)) return this.#ping();
    if (this.#options.basicEverywhere && this.#user(headers.authorization) === undefined) {
      return refuse(401, 'authorization required', { 'www-authenticate': 'Basic realm="nginx"' });
    }
    const repository = /^\/v1\/repositories\/([^/]+(?:\/.+?)?)\/(images|tags)(?:\/([^/]+))?$/.exec(pathname);
    const image = /^\/v1\/images\/([^/]+)\/(ancestry|json|layer)$/.exec(pathname);
    if (repository) {
      const [, path = '', kind, tag] = repository;
      const name = path.includes('/') ? path : `library/${path}`;
      if (kind === 'images') return this.#images(name, request);
      return this.#registry(request, name, (cookies) => this.#tags(name, tag, cookies));
    }
    if (!image) return refuse(404, 'Not Found');
    const [, id = '', kind = ''] = image;
    if (!/^(?:[0-9a-f]{16}|[0-9a-f]{64})$/.test(id)) return refuse(404, 'Invalid image ID');
    const found = [...this.#repositories].find(([, { images }]) => images.has(id));
    if (!found) return refuse(404, 'Image not found');
    const stored = found[1].images.get(id)!;
    return this.#registry(request, found[0], (cookies) => this.#image(stored, kind, request, fault, cookies));
  }

  #ping(): Answer {
    const standalone = this.#options.mode === 'split' ? 'False' : 'True';
    return answer(
      200,
      {},
      {
        'x-docker-registry-version': '0.9.1',
        'x-docker-registry-standalone': standalone,
        ...this.#options.pingHeaders,
      },
    );
  }

  #user(header: string | undefined): string | undefined {
    const encoded = /^Basic (.*)$/.exec(header ?? '')?.[1] ?? '';
    const [name = '', ...password] = Buffer.from(encoded, 'base64').toString().split(':');
    return this.#options.users?.[name] === password.join(':') ? name : undefined;
  }

  /** Answers as the index. */
  #images(name: string, { server, headers }: LoggedV1Request): Answer {
    const { mode, users, private: hidden, tokenUses = Infinity, tokenWord, endpoints } = this.#options;
    if (server !== 'index') return refuse(404, 'Not Found');
    const user = this.#user(headers.authorization);
    // A public image with wrong credentials is refused too.
    const wrong = users !== undefined && headers.authorization !== undefined && user === undefined;
    if (wrong || (hidden?.test(name) && user === undefined)) {
      return refuse(401, 'Unauthorized', { 'www-authenticate': 'Basic realm="index"' });
    }
    const repository = this.#repositories.get(name);
    if (!repository) return refuse(404, 'images not found');
    const registries =
      mode === 'split' ? this.#names().filter((each) => each.startsWith('registry')) : ['index'];
    const hosts = registries.map((each) => this.hostOf(each));
    const named = endpoints ? endpoints(hosts) : hosts.join(', ');
    const extra: Record<string, string | string[]> = { 'set-cookie': 'idx=1; Path=/; HttpOnly' };
    if (named !== undefined) extra['x-docker-endpoints'] = typeof named === 'string' ? named : [...named];
    if (headers['x-docker-token'] === 'true' && this.#options.tokens !== false) {
      const signature = randomUUID().replaceAll('-', '');
      this.#tokens.set(signature, { repository: name, uses: tokenUses });
      const token = `${tokenWord ? 'Token ' : ''}signature=${signature},repository="${name}",access=read`;
      extra['x-docker-token'] = token;
      extra['www-authenticate'] = token;
    }
    const list = [...repository.images.values()].map(({ id, checksum }) => ({ id, checksum }));
    return answer(200, list, extra);
  }

  /** Checks token or session, and answers as a registry. */
  #registry(
    { server, headers }: LoggedV1Request,
    repository: string,
    reply: (headers: Record<string, string>) => Answer,
  ): Answer {
    const split = this.#options.mode === 'split';
    if (split && server === 'index') return refuse(404, 'Not Found');
    if (!(this.#options.checkTokens ?? split)) return reply({});
    const session = /(?:^|; )session=([^;]*)/.exec(headers.cookie ?? '')?.[1] ?? '';
    if (this.#sessions.get(session) === `${server} ${repository}`) return reply({});
    const [, signature = ''] = /^Token .*?signature=([0-9a-f]+)/.exec(headers.authorization ?? '') ?? [];
    const token = this.#tokens.get(signature);
    if (!token || token.uses <= 0 || token.repository !== repository) {
      return refuse(401, 'Requires authorization', { 'www-authenticate': 'Token' });
    }
    token.uses -= 1;
    if (this.#options.sessions === false) return reply({});
    const fresh = randomUUID();
    this.#sessions.set(fresh, `${server} ${repository}`);
    return reply({ 'set-cookie': `session=${fresh}; Path=/; HttpOnly` });
  }

  #tags(name: string, tag: string | undefined, cookies: Record<string, string>): Answer {
    const repository = this.#repositories.get(name);
    if (!repository) return refuse(404, 'Repository not found');
    if (tag === undefined) return answer(200, Object.fromEntries(repository.tags), cookies);
    const id = repository.tags.get(tag);
    return id === undefined ? refuse(404, 'Tag not found') : answer(200, id, cookies);
  }

  #image(
    image: StoredV1Image,
    kind: string,
    request: LoggedV1Request,
    fault: Fault | undefined,
    cookies: Record<string, string>,
  ): Answer {
    const common = {
      'cache-control': 'public, max-age=31536000',
      'last-modified': 'Thu, 01 Jan 1970 00:00:00 GMT',
      ...cookies,
    };
    if (request.headers['if-modified-since'] !== undefined)
      return { status: 304, headers: common, body: nothing };
    if (kind === 'ancestry') return answer(200, image.ancestry, common);
    if (kind === 'layer') {
      const { redirectLayers } = this.#options;
      if (redirectLayers === undefined) return this.#layer(image, request, fault, common);
      const location = `${this.#servers.url('storage')}/${image.id}?Signature=secret&Expires=1`;
      return { status: redirectLayers, headers: { ...common, location }, body: nothing };
    }
    const checksum = this.#checksum(image);
    const headers = {
      ...json,
      ...common,
      'content-length': String(image.json.length),
      ...(checksum !== undefined && { 'x-docker-checksum-payload': checksum }),
      ...(this.#options.sizes !== false && { 'x-docker-size': String(image.blob.length) }),
    };
    return { status: 200, headers, body: image.json };
  }

  #checksum({ checksum }: StoredV1Image): string | undefined {
    const tarsum = `tarsum+sha256:${'ab'.repeat(32)}`;
    switch (this.#options.checksums) {
      case 'none':
        return undefined;
      case 'list':
        return JSON.stringify([checksum]);
      case 'python-list':
        return `[u'${tarsum}', u'${checksum}']`;
      case 'tarsum-only':
        return tarsum;
      default:
        return checksum;
    }
  }

  #stored(pathname: string, request: LoggedV1Request, fault: Fault | undefined): Answer {
    // S3, too, refuses a signed address together with an Authorization header.
    if (request.headers.authorization) return refuse(400, 'only one auth mechanism allowed');
    const image = [...this.#repositories.values()].flatMap(
      ({ images }) => images.get(pathname.slice(1)) ?? [],
    )[0];
    return image ? this.#layer(image, request, fault, {}) : refuse(404, 'no such key');
  }

  #layer(
    { blob }: StoredV1Image,
    request: LoggedV1Request,
    fault: Fault | undefined,
    common: Record<string, string>,
  ): Answer {
    const { ranges = true, rangeUnit = false } = this.#options;
    const headers = {
      ...common,
      'content-type': 'application/octet-stream',
      ...(ranges && { 'accept-ranges': 'bytes' }),
    };
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    if (ranges && start >= blob.length) return { status: 416, headers, body: nothing };
    if (!ranges || fault?.ignoreRange || !range) {
      return { status: 200, headers: { ...headers, 'content-length': String(blob.length) }, body: blob };
    }
    const end = range[2] ? Math.min(Number(range[2]) + 1, blob.length) : blob.length;
    const partial = {
      ...headers,
      'content-length': String(end - start),
      'content-range': `${rangeUnit ? 'bytes ' : ''}${start}-${end - 1}/${blob.length}`,
    };
    return { status: 206, headers: partial, body: blob.subarray(start, end) };
  }
}
