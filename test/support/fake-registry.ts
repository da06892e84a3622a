import { createAuthority, type Authority, type Certificate } from './certificates.ts';
import { errorAnswer, FakeAuth, type FakeAuthOptions } from './fake-auth.ts';
import type { Answer, Fault } from './fake-fault.ts';
import {
  fakeIndex,
  fakeManifest,
  mediaTypes,
  sha256,
  type FakeImage,
  type FakeManifest,
  type FakePlatform,
} from './fake-image.ts';
import { FakeServers, type LoggedRequest as AnyRequest } from './fake-server.ts';

export interface FakeRegistryOptions {
  readonly auth?: FakeAuthOptions;
  /** `true`: a certificate for localhost, 127.0.0.1 and ::1 from a new authority. */
  readonly tls?:
    | true
    | {
        readonly authority: Authority;
        readonly certificate?: Certificate;
        readonly clientCertificates?: boolean;
      };
  /** Redirects requests for blobs with this status to a server on another port. */
  readonly redirectBlobs?: 301 | 302 | 303 | 307 | 308;
  /** False: the Range header is ignored and `Accept-Ranges` not sent. */
  readonly ranges?: boolean;
  /** False: blobs have no ETag. */
  readonly etags?: boolean;
  /** Number of tags, or of referrers, in one page of the list; default: all. */
  readonly pageSize?: number;
  /** False: the API for referrers is answered with 404, as by registries before OCI 1.1. */
  readonly referrers?: boolean;
  /** Headers of every manifest, for example `ratelimit-limit`. */
  readonly manifestHeaders?: Readonly<Record<string, string>>;
  readonly faults?: readonly Fault[];
  /** False: `/v2/` is answered with 404, as by a registry of version 1. */
  readonly v2?: boolean;
  /** Called first for every request; undefined: the registry answers. */
  readonly handler?: (request: LoggedRequest) => Answer | undefined;
  /** Awaited before each request is answered. */
  readonly hold?: (request: LoggedRequest) => Promise<void>;
  readonly host?: '127.0.0.1' | '::1' | 'localhost';
}

type Server = 'registry' | 'token' | 'storage';

export type LoggedRequest = AnyRequest<Server>;

/** A pushed image with all of its digests. */
export type PushedImage = FakeManifest;

interface Repository {
  readonly tags: Map<string, string>;
  readonly manifests: Map<
    string,
    { readonly mediaType: string; readonly bytes: Uint8Array; readonly digest: string }
  >;
  readonly blobs: Map<string, Uint8Array>;
}

interface FakeArtifact {
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly subject?: { readonly digest?: string };
  readonly config?: { readonly mediaType?: string };
}

function jsonOf(bytes: Uint8Array): object {
  try {
    return JSON.parse(Buffer.from(bytes).toString()) as object;
  } catch {
    return {};
  }
}

/**
 * A registry in this process: an HTTP(S) server on loopback with the images of `push` and the faults of
 * `fault`.
 */
export class FakeRegistry implements AsyncDisposable {
  /** The authority of `tls`. */
  readonly authority: Authority | undefined;
  readonly #options: FakeRegistryOptions;
  readonly #auth: FakeAuth | undefined;
  readonly #repositories = new Map<string, Repository>();
  readonly #servers: FakeServers<Server>;

  private constructor(options: FakeRegistryOptions) {
    this.#options = options;
    this.#auth = options.auth && new FakeAuth(options.auth);
    this.authority = options.tls === true ? createAuthority() : options.tls?.authority;
    this.#servers = new FakeServers({
      names: ['registry', 'token', 'storage'],
      host: options.host,
      tls: this.#tls(),
      faults: options.faults,
      hold: options.hold,
      answer: (request, fault) => this.#answer(request, fault),
    });
  }

  static async start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
    const registry = new FakeRegistry(options);
    await registry.#servers.start();
    return registry;
  }

  #tls() {
    const { tls } = this.#options;
    if (!tls || !this.authority) return undefined;
    const given = tls === true ? undefined : tls;
    const certificate = given?.certificate ?? this.authority.issue('localhost', '127.0.0.1', '::1');
    const client = given?.clientCertificates === true;
    return { ...certificate, ca: this.authority.cert, requestCert: client, rejectUnauthorized: client };
  }

  /** All requests to the three servers, in their order. */
  get requests(): LoggedRequest[] {
    return this.#servers.requests;
  }

  /** `host:port` of this registry, for references. */
  get host(): string {
    return this.#servers.hostOf('registry');
  }

  /** `host:port` of the server to which blobs are redirected. */
  get storageHost(): string {
    return this.#servers.hostOf('storage');
  }

  /** `host:port` of the token server, if it has a port of its own. */
  get tokenHost(): string {
    return this.#servers.hostOf('token');
  }

  get url(): string {
    return this.#servers.url('registry');
  }

  /** Returns the reference to an image in this registry; `target` is a tag or a digest. */
  reference(repository: string, target = 'latest'): string {
    return `${this.host}/${repository}${target.includes(':') ? '@' : ':'}${target}`;
  }

  /** Stores an image, with a tag if one is given. */
  push(repository: string, tag: string | undefined, image: FakeImage): PushedImage {
    const manifest = fakeManifest(image);
    for (const blob of manifest.blobs.values()) this.putBlob(repository, blob);
    this.putManifest(repository, tag, manifest);
    return manifest;
  }

  /** Stores images for several platforms and an index of them; an image may have its own `platform`. */
  pushIndex(
    repository: string,
    tag: string | undefined,
    images: readonly FakeImage[],
    format: 'oci' | 'docker' = 'oci',
  ): { readonly digest: string; readonly images: readonly PushedImage[] } {
    const pushed = images.map((image) => this.push(repository, undefined, { format, ...image }));
    const platform = (n: number): FakePlatform =>
      images[n]!.platform ?? { os: 'linux', architecture: 'amd64' };
    const index = fakeIndex(
      pushed.map((manifest, n) => ({ manifest, platform: platform(n) })),
      format,
    );
    this.putManifest(repository, tag, index);
    return { digest: index.digest, images: pushed };
  }

  /** Stores any bytes as a manifest. */
  putManifest(
    name: string,
    tag: string | undefined,
    manifest: { readonly mediaType: string; readonly bytes: Uint8Array; readonly digest?: string },
  ): string {
    const repository = this.#repository(name);
    const digest = manifest.digest ?? sha256(manifest.bytes);
    repository.manifests.set(digest, { ...manifest, digest });
    if (tag !== undefined) repository.tags.set(tag, digest);
    return digest;
  }

  /** Returns the parsed manifest with a digest. */
  manifestOf(name: string, digest: string): object {
    return jsonOf(this.#repository(name).manifests.get(digest)!.bytes);
  }

  digestOfTag(name: string, tag: string): string | undefined {
    return this.#repository(name).tags.get(tag);
  }

  /** Stores any bytes as a blob; `digest` may be wrong. */
  putBlob(name: string, bytes: Uint8Array, digest = sha256(bytes)): string {
    this.#repository(name).blobs.set(digest, bytes);
    return digest;
  }

  #repository(name: string): Repository {
    const known = this.#repositories.get(name);
    if (known) return known;
    const repository: Repository = { tags: new Map(), manifests: new Map(), blobs: new Map() };
    this.#repositories.set(name, repository);
    return repository;
  }

  /** Adds a fault; faults are tried in their order, at most one for a request. */
  fault(fault: Fault): void {
    this.#servers.fault(fault);
  }

  /** Returns `METHOD path` of each request so far; `path` is compared with path and query. */
  log(path = /(?:)/): string[] {
    return this.requests.filter((each) => path.test(each.path)).map((each) => `${each.method} ${each.path}`);
  }

  async close(): Promise<void> {
    await this.#servers.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #answer(request: LoggedRequest, fault: Fault | undefined): Answer {
    const special = this.#options.handler?.(request);
    if (special) return special;
    const url = new URL(request.path, 'http://fake');
    if (request.server === 'storage') return this.#stored(url, request, fault);
    if (this.#auth && url.pathname === '/token') {
      return this.#auth.token(request.method, url, request.headers.authorization, request.body);
    }
    if (request.server === 'token' || this.#options.v2 === false)
      return errorAnswer(404, 'UNSUPPORTED', 'not found');
    return this.#v2(url, request, fault);
  }

  #v2(url: URL, request: LoggedRequest, fault: Fault | undefined): Answer {
    const path = /^\/v2\/(?:(.+)\/(manifests|blobs|tags|referrers)\/([^/]+))?$/.exec(url.pathname);
    if (!path) return errorAnswer(404, 'UNSUPPORTED', 'not found');
    const [, name, kind, target = ''] = path;
    const { auth } = this.#options;
    const realm = `${this.#servers.url(auth?.type === 'bearer' && auth.ownServer ? 'token' : 'registry')}/token`;
    const refusal = this.#auth?.refusal(request.headers.authorization, name, realm);
    if (refusal) return refusal;
    const version = { 'docker-distribution-api-version': 'registry/2.0' };
    if (name === undefined) {
      return {
        status: 200,
        headers: { ...version, 'content-type': 'application/json', 'content-length': '2' },
        body: Buffer.from('{}'),
      };
    }
    const repository = this.#repositories.get(name);
    if (!repository) return errorAnswer(404, 'NAME_UNKNOWN', 'repository name not known to registry');
    if (kind === 'tags') return this.#tags(repository, name, url);
    if (kind === 'referrers') return this.#referrers(repository, name, url);
    if (kind === 'manifests') return this.#manifest(repository, target, request);
    if (this.#options.redirectBlobs && repository.blobs.has(target)) {
      const location = `${this.#servers.url('storage')}/${encodeURIComponent(name)}/${target}?signature=secret`;
      return { status: this.#options.redirectBlobs, headers: { location }, body: Buffer.alloc(0) };
    }
    return this.#blob(repository, target, request, fault);
  }

  #stored(url: URL, request: LoggedRequest, fault: Fault | undefined): Answer {
    const [, name = '', digest = ''] = url.pathname.split('/');
    // S3, too, refuses a signed address together with an Authorization header.
    if (request.headers.authorization) return errorAnswer(400, 'INVALID', 'only one auth mechanism allowed');
    return this.#blob(this.#repository(decodeURIComponent(name)), digest, request, fault);
  }

  #tags(repository: Repository, name: string, url: URL): Answer {
    const all = [...repository.tags.keys()].toSorted();
    const last = url.searchParams.get('last');
    const rest = last === null ? all : all.filter((tag) => tag > last);
    const size = Math.min(
      this.#options.pageSize ?? rest.length,
      Number(url.searchParams.get('n') ?? rest.length),
    );
    const tags = rest.slice(0, size);
    const link = `</v2/${name}/tags/list?n=${size}&last=${tags.at(-1)}>; rel="next"`;
    const headers = { 'content-type': 'application/json', ...(tags.length < rest.length && { link }) };
    return { status: 200, headers, body: Buffer.from(JSON.stringify({ name, tags })) };
  }

  #referrers(repository: Repository, name: string, url: URL): Answer {
    if (this.#options.referrers === false) return errorAnswer(404, 'UNSUPPORTED', 'not found');
    const subject = url.pathname.slice(url.pathname.lastIndexOf('/') + 1);
    const all = [...repository.manifests.values()].flatMap(({ mediaType, bytes, digest }) => {
      const { artifactType, annotations, ...document } = jsonOf(bytes) as FakeArtifact;
      if (document.subject?.digest !== subject) return [];
      const type = artifactType ?? document.config?.mediaType;
      return [{ mediaType, digest, size: bytes.length, artifactType: type, annotations }];
    });
    const start = Number(url.searchParams.get('from') ?? 0);
    const end = start + (this.#options.pageSize ?? all.length);
    const link = `</v2/${name}/referrers/${subject}?from=${end}>; rel="next"`;
    const headers = { 'content-type': mediaTypes.oci.index, ...(end < all.length && { link }) };
    const index = { schemaVersion: 2, mediaType: mediaTypes.oci.index, manifests: all.slice(start, end) };
    return { status: 200, headers, body: Buffer.from(JSON.stringify(index)) };
  }

  #manifest(repository: Repository, target: string, request: LoggedRequest): Answer {
    const manifest = repository.manifests.get(repository.tags.get(target) ?? target);
    if (!manifest) return errorAnswer(404, 'MANIFEST_UNKNOWN', 'manifest unknown');
    if (!(request.headers.accept ?? '').includes(manifest.mediaType)) {
      return errorAnswer(404, 'MANIFEST_UNKNOWN', 'manifest found, but accept header does not support it');
    }
    const headers = {
      'content-type': manifest.mediaType,
      'content-length': String(manifest.bytes.length),
      'docker-content-digest': manifest.digest,
      ...this.#options.manifestHeaders,
    };
    return { status: 200, headers, body: manifest.bytes };
  }

  #blob(repository: Repository, digest: string, request: LoggedRequest, fault: Fault | undefined): Answer {
    const blob = repository.blobs.get(digest);
    if (!blob) return errorAnswer(404, 'BLOB_UNKNOWN', 'blob unknown to registry');
    const { ranges = true, etags = true } = this.#options;
    const etag = `"${digest}"`;
    const common = {
      'content-type': 'application/octet-stream',
      ...(ranges && { 'accept-ranges': 'bytes' }),
      ...(etags && { etag }),
    };
    const whole = { status: 200, headers: { ...common, 'content-length': String(blob.length) }, body: blob };
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const ifRange = request.headers['if-range'];
    if (!ranges || fault?.ignoreRange || !range || (ifRange !== undefined && ifRange !== etag)) return whole;
    const start = Number(range[1]);
    if (start >= blob.length) {
      return { status: 416, headers: { 'content-range': `bytes */${blob.length}` }, body: Buffer.alloc(0) };
    }
    const end = range[2] ? Math.min(Number(range[2]) + 1, blob.length) : blob.length;
    const headers = {
      ...common,
      'content-length': String(end - start),
      'content-range': `bytes ${start}-${end - 1}/${blob.length}`,
    };
    return { status: 206, headers, body: blob.subarray(start, end) };
  }
}
