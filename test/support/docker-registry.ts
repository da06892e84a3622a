import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID, sign } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createAuthority, type Authority } from './certificates.ts';
import { fakeManifest, type FakeImage, type FakeManifest, mediaTypes, sha256 } from './fake-image.ts';
import { LocalServer } from './local-server.ts';
import { Scratch } from './program.ts';
import { until } from './until.ts';

export interface DockerRegistryOptions {
  /** Lines of an htpasswd file (bcrypt). */
  readonly htpasswd?: string;
  /** Token authorization by this server. */
  readonly token?: TokenServer;
  readonly tls?: { readonly authority: Authority; readonly clientCertificates?: boolean };
  /** Pull-through: missing blobs and manifests are fetched from this registry. */
  readonly proxy?: { readonly remoteurl: string; readonly username?: string; readonly password?: string };
  /** True: schema 1 may be pushed. */
  readonly schema1?: boolean;
}

/** Returns a descriptor. */
const described = (mediaType: string, bytes: Uint8Array) => ({
  mediaType,
  size: bytes.length,
  digest: sha256(bytes),
});

function configuration(options: DockerRegistryOptions, scratch: Scratch): object {
  const { htpasswd, token, tls, proxy, schema1 } = options;
  const file = (name: string, text: string) => {
    writeFileSync(scratch.join(name), text);
    return scratch.join(name);
  };
  const certificate = tls?.authority.issue('localhost', '127.0.0.1');
  return {
    version: 0.1,
    log: { level: 'info', formatter: 'json' },
    storage: { filesystem: { rootdirectory: scratch.join('data') }, delete: { enabled: true } },
    http: {
      addr: '127.0.0.1:0',
      secret: 'for tests only',
      ...(tls &&
        certificate && {
          tls: {
            certificate: file('server.crt', certificate.cert),
            key: file('server.key', certificate.key),
            ...(tls.clientCertificates && { clientcas: [file('ca.crt', tls.authority.cert)] }),
          },
        }),
    },
    ...(schema1 && { compatibility: { schema1: { enabled: true } } }),
    ...(proxy && { proxy }),
    ...(htpasswd !== undefined && {
      auth: { htpasswd: { realm: 'test', path: file('htpasswd', htpasswd) } },
    }),
    ...(token && {
      auth: {
        token: {
          realm: token.url,
          service: 'docker registry',
          issuer: 'test issuer',
          rootcertbundle: file('bundle.crt', token.authority.cert),
        },
      },
    }),
  };
}

/** A process of Debian's docker-registry 2.8 on a free port; its data are removed afterwards. */
export class DockerRegistry implements AsyncDisposable {
  readonly host: string;
  readonly #process: ChildProcess;
  readonly #scratch: Scratch;
  readonly #options: DockerRegistryOptions;

  private constructor(host: string, process: ChildProcess, scratch: Scratch, options: DockerRegistryOptions) {
    this.host = host;
    this.#process = process;
    this.#scratch = scratch;
    this.#options = options;
  }

  static async start(options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
    const scratch = new Scratch();
    // This is JSON, which is also YAML.
    writeFileSync(scratch.join('config.yml'), JSON.stringify(configuration(options, scratch)));
    const child = spawn('docker-registry', ['serve', scratch.join('config.yml')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const port = await new Promise<string>((resolve, reject) => {
      let log = '';
      child.once('error', reject);
      child.once('exit', () => reject(new Error(`docker-registry ended: ${log}`)));
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        log += text;
        const [, found] = /listening on 127\.0\.0\.1:(\d+)/.exec(log) ?? [];
        if (found !== undefined) resolve(found);
      });
    });
    return new DockerRegistry(`127.0.0.1:${port}`, child, scratch, options);
  }

  reference(repository: string, target = 'latest'): string {
    return `${this.host}/${repository}${target.includes(':') ? '@' : ':'}${target}`;
  }

  /** Stores an image with the requests of the protocol. */
  async push(
    repository: string,
    tag: string,
    image: FakeImage,
    authorization?: string,
  ): Promise<FakeManifest> {
    const manifest = fakeManifest(image);
    await this.#pushManifest(repository, tag, manifest, authorization);
    return manifest;
  }

  /** Stores a signature of a manifest under the tag that cosign uses. */
  async pushSignature(
    repository: string,
    digest: string,
    payload: Uint8Array,
    annotations: Readonly<Record<string, string>>,
  ): Promise<void> {
    const config = Buffer.from('{}');
    const document = {
      schemaVersion: 2,
      mediaType: mediaTypes.oci.manifest,
      config: described(mediaTypes.oci.config, config),
      layers: [{ ...described('application/vnd.dev.cosign.simplesigning.v1+json', payload), annotations }],
    };
    const blobs = new Map([config, payload].map((bytes) => [sha256(bytes), bytes]));
    const bytes = Buffer.from(JSON.stringify(document));
    const manifest = { mediaType: mediaTypes.oci.manifest, bytes, blobs };
    await this.#pushManifest(repository, `${digest.replace(':', '-')}.sig`, manifest);
  }

  async #pushManifest(
    repository: string,
    tag: string,
    manifest: Pick<FakeManifest, 'mediaType' | 'bytes' | 'blobs'>,
    authorization?: string,
  ): Promise<void> {
    for (const [digest, blob] of manifest.blobs) {
      const started = await this.#send(
        'POST',
        `/v2/${repository}/blobs/uploads/`,
        {},
        undefined,
        authorization,
      );
      const location = new URL(started.location ?? '', this.url);
      location.searchParams.set('digest', digest);
      await this.#send(
        'PUT',
        location.pathname + location.search,
        { 'content-type': 'application/octet-stream' },
        blob,
        authorization,
      );
    }
    const headers = { 'content-type': manifest.mediaType };
    await this.#send('PUT', `/v2/${repository}/manifests/${tag}`, headers, manifest.bytes, authorization);
  }

  /** Resolves when a blob is in the store: a pull-through registry stores it after the response. */
  async stored(digest: string): Promise<void> {
    const hex = digest.slice('sha256:'.length);
    const file = this.#scratch.join('data/docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
    await until(`${digest} in the store`, () => existsSync(file));
  }

  get url(): string {
    return `${this.#options.tls ? 'https' : 'http'}://${this.host}`;
  }

  #send(
    method: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    body: Uint8Array | undefined,
    authorization: string | undefined,
  ): Promise<{ readonly location: string | undefined }> {
    const { tls } = this.#options;
    const client = tls?.authority.issue('client');
    const send = tls ? httpsRequest : httpRequest;
    const all = {
      ...headers,
      ...(authorization !== undefined && { authorization }),
      'content-length': body?.length ?? 0,
    };
    return new Promise((resolve, reject) => {
      const request = send(
        new URL(path, this.url),
        { method, headers: all, ca: tls?.authority.cert, ...client },
        (response) => {
          response.resume();
          const { statusCode = 0 } = response;
          if (statusCode >= 200 && statusCode < 300) resolve({ location: response.headers.location });
          else reject(new Error(`${method} ${path} answered ${statusCode}`));
        },
      );
      request.on('error', reject);
      request.end(body);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGKILL');
    await ended;
    this.#scratch[Symbol.dispose]();
  }
}

const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token server that distribution accepts: ES256 JWTs with the certificate in the header. */
export class TokenServer implements AsyncDisposable {
  readonly authority = createAuthority('token issuer');
  /** `METHOD path` of each request. */
  readonly log: string[] = [];
  #server!: LocalServer;
  readonly #users: Readonly<Record<string, string>>;
  readonly #lifetime: number;

  private constructor(users: Readonly<Record<string, string>>, lifetime: number) {
    this.#users = users;
    this.#lifetime = lifetime;
  }

  /** @param lifetime of the tokens, in seconds */
  static async start(users: Readonly<Record<string, string>>, lifetime = 300): Promise<TokenServer> {
    const tokens = new TokenServer(users, lifetime);
    tokens.#server = await LocalServer.start(
      createServer((request, response) => tokens.#answer(request, response)),
    );
    return tokens;
  }

  get url(): string {
    return `http://${this.#server.host}/token`;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.log.push(`${request.method} ${request.url}`);
    const url = new URL(request.url ?? '', 'http://token');
    const [name, password] = Buffer.from((request.headers.authorization ?? '').slice(6), 'base64')
      .toString()
      .split(':');
    const known = name !== undefined && password !== undefined && this.#users[name] === password;
    if (request.headers.authorization !== undefined && !known)
      response.writeHead(401).end('{"details":"incorrect"}');
    else response.end(JSON.stringify({ token: this.issue(known ? url.searchParams.getAll('scope') : []) }));
  }

  /** Returns a token with these scopes (`repository:NAME:ACTIONS`); `lifetime` is in seconds. */
  issue(scopes: readonly string[], lifetime = this.#lifetime): string {
    const leaf = this.authority.issue('token signer');
    const der = leaf.cert.replaceAll(/-----.*?-----|\s/g, '');
    const now = Math.floor(Date.now() / 1000);
    const access = scopes.map((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',') };
    });
    const claims = {
      iss: 'test issuer',
      sub: '',
      aud: 'docker registry',
      exp: now + lifetime,
      nbf: now - 10,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const text = `${encode({ typ: 'JWT', alg: 'ES256', x5c: [der] })}.${encode(claims)}`;
    const signature = sign('sha256', Buffer.from(text), { key: leaf.key, dsaEncoding: 'ieee-p1363' });
    return `${text}.${signature.toString('base64url')}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}
