/**
 * Registries of a repository, and the first request to them, which finds the scheme and the protocol's
 * version.
 */
import { isLoopback } from '../oci/reference.ts';
import { type DlrootfsError, isTransient, NetworkError, NotFoundError } from '../errors.ts';
import { isObject, jsonOf } from '../oci/json.ts';
import { Authenticator } from './auth/authenticator.ts';
import { addCredential, type Credential, findCredential } from './auth/credentials.ts';
import type { RegistryLocation } from './config/registries-conf.ts';
import { Endpoint } from './endpoint.ts';
import { answerError, readFailure } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import { openTransport, retryRequest, type Transport } from './http/transport.ts';
import { hasCode } from '../sys/os-error.ts';
import type { RegistryOptions, SessionSettings } from './registry-options.ts';
import { BROKEN, NOT_HTTP, NOT_TLS, REFUSED, UNREACHABLE } from './http/transport-error.ts';

/** The answer of a registry to `GET /v2/`. */
export interface Contact {
  /** Ends in `/v2/`. */
  readonly base: URL;
  /**
   * `yes`: the status is 401, or 200. `perhaps`: 200 with a web page, which some servers send for every path.
   */
  readonly version2: 'yes' | 'perhaps' | 'no';
  /** The error for the answer to `/v2/`, unless that is 404. */
  readonly refusal?: DlrootfsError | undefined;
}

/** The answer of a server to `GET /v1/_ping`. */
export interface Ping {
  readonly status: number;
  /** Ends in `/v1/`. */
  readonly base: URL;
  /** True if the answer looks like one of registry version 1. */
  readonly version1: boolean;
  /** True if the registry is also the index. */
  readonly standalone: boolean;
}

/** The registry of a reference, or a mirror of it. */
export class RegistryHost {
  readonly location: RegistryLocation;
  readonly transport: Transport;
  /** The repository, by version 2 of the protocol. */
  readonly endpoint: Endpoint;
  /** Finds the credential for the repository, once. */
  readonly credential: () => Promise<Credential | undefined>;
  readonly #authenticator: Authenticator;
  #contact: Promise<Contact> | undefined;

  private constructor(location: RegistryLocation, transport: Transport, options: RegistryOptions) {
    this.location = location;
    this.transport = transport;
    const find = async (): Promise<Credential | undefined> => {
      const credential = await findCredential(location, options);
      if (credential) addCredential(transport.settings.secrets, credential);
      return credential;
    };
    let found: Promise<Credential | undefined> | undefined;
    this.credential = () => (found ??= find());
    this.#authenticator = new Authenticator(location, this.credential, transport);
    this.endpoint = new Endpoint({
      name: location.registry,
      base: () => this.#base(),
      transport,
      authorization: this.#authenticator,
    });
  }

  /** @throws UsageError for unusable certificate files */
  static async open(location: RegistryLocation, settings: SessionSettings): Promise<RegistryHost> {
    const { options } = settings;
    const own = location.mirrorOf === undefined;
    const insecure = location.insecure || options.tlsVerify === false;
    const plainHttp = location.plainHttp || (own && options.plainHttp === true);
    // The caller's credentials are for the registry of the reference; those of mirrors are in files.
    const asked = own ? options : { ...options, credentials: undefined, registryToken: undefined };
    const transport = await openTransport(location.registry, insecure, settings);
    return new RegistryHost({ ...location, insecure, plainHttp }, transport, asked);
  }

  async #base(): Promise<URL> {
    const { registry, repository } = this.location;
    const { version2, refusal, base } = await this.contact();
    if (version2 !== 'no') return new URL(`${repository}/`, base);
    if (refusal) throw refusal;
    throw new NetworkError(`${registry} does not speak version 2 of the registry protocol`, {
      code: 'NO_V2',
      hint: 'check whether this is a container registry',
    });
  }

  /** Returns the answer to `GET /v2/`, which is sent once. */
  contact(): Promise<Contact> {
    this.#contact ??= this.#contactVersion2();
    return this.#contact;
  }

  /**
   * Sends `GET /v2/` and judges the answer:
   *
   * | answer         | version 2                                                                         |
   * | -------------- | --------------------------------------------------------------------------------- |
   * | 200, 401       | yes, or perhaps                                                                   |
   * | 404            | no                                                                                |
   * | of no registry | no, with that error as refusal                                                    |
   * | any other      | an error: only a server that does not know the address may speak version 1        |
   */
  async #contactVersion2(): Promise<Contact> {
    const { response, error, base } = await this.#firstResponse('/v2/');
    const { status } = response;
    if (status === 401) this.#authenticator.learn(response);
    if (status === 401 || status === 200) return { base, version2: isWebPage(response) ? 'perhaps' : 'yes' };
    if (!(error instanceof NotFoundError || error instanceof NetworkError)) throw error;
    return { base, version2: 'no', refusal: status === 404 ? undefined : error };
  }

  /**
   * Sends `GET /v1/_ping`, except to Docker Hub, whose index does not have this address.
   *
   * @param known address of an earlier answer of the registry
   */
  async ping(known: URL | undefined): Promise<Ping> {
    if (this.location.registry === 'docker.io')
      return { status: 200, base: HUB_INDEX, version1: true, standalone: false };
    const { response, body, base } = await this.#firstResponse('/v1/_ping', known);
    return {
      status: response.status,
      base,
      version1: looksLikeVersion1(response),
      standalone: isStandalone(
        response.header('x-docker-registry-standalone'),
        jsonOf(Buffer.from(body).toString('utf8')),
      ),
    };
  }

  /**
   * Sends a GET without credentials by the first scheme that the registry speaks. Retries after transient
   * errors.
   *
   * | error by the first scheme | by the second             | result                  |
   * | ------------------------- | ------------------------- | ----------------------- |
   * | none                      | is not tried              | the first answer        |
   * | of the wrong scheme       | none                      | the second answer       |
   * | of the wrong scheme       | of the wrong scheme, late | the error of the first  |
   * | of the wrong scheme       | any other                 | the error of the second |
   * | any other                 | is not tried              | the error of the first  |
   */
  async #firstResponse(path: string, known?: URL): Promise<FirstResponse> {
    const { registry, mirrorOf } = this.location;
    const name = registry === 'docker.io' ? HUB_API : registry;
    const roots = known ? [known] : this.#schemes().map((scheme) => new URL(`${scheme}://${name}`));
    const [url, otherUrl] = roots.map((root) => new URL(path, root));
    const attempt = async () => {
      try {
        return await this.#ask(url!);
      } catch (error) {
        if (otherUrl === undefined || !isWrongScheme(error)) throw error;
        return await this.#ask(otherUrl).catch((second: unknown) => {
          // A time-out says less than the first answer.
          const timedOut = second instanceof NetworkError && second.code === UNREACHABLE;
          throw isWrongScheme(second) || timedOut ? error : second;
        });
      }
    };
    const most = mirrorOf === undefined ? Infinity : 1;
    const limit = (error: unknown) => (hasCode(error, REFUSED) ? Math.min(most, REFUSED_RETRIES) : most);
    return retryRequest(attempt, this.transport.settings, limit);
  }

  /**
   * Returns the schemes in the order to try them; the second only if the registry does not speak the first.
   */
  #schemes(): readonly ('http' | 'https')[] {
    const { plainHttp, insecure, registry } = this.location;
    if (plainHttp) return ['http'];
    if (isLoopback(registry)) return this.transport.tls.configured ? ['https', 'http'] : ['http', 'https'];
    return insecure ? ['https', 'http'] : ['https'];
  }

  /**
   * Sends one request.
   *
   * @throws transient errors, and errors after which the other scheme may succeed
   */
  async #ask(url: URL): Promise<FirstResponse> {
    const response = await this.transport.send({ method: 'GET', url, headers: {} });
    const body = await readFailure(response);
    const { status } = response;
    if (status === 400 && url.protocol === 'http:' && /HTTPS/i.test(Buffer.from(body).toString('latin1'))) {
      throw new NetworkError(`${url.host} speaks HTTPS, not plain HTTP`, {
        code: NOT_HTTP,
        hint: 'leave out --plain-http',
      });
    }
    const subject = `the registry API of ${this.location.registry}`;
    const error = status === 200 ? undefined : answerError(response, body, { subject });
    if (isTransient(error)) throw error;
    // A registry may redirect to https, or to another port.
    const moved = response.url.hostname === url.hostname && response.url.pathname === url.pathname;
    return { response, body, error, base: new URL('.', moved ? response.url : url) };
  }
}

interface FirstResponse {
  readonly response: Response;
  readonly body: Uint8Array;
  /** The error for this answer; undefined for status 200. */
  readonly error: DlrootfsError | undefined;
  /** The address without its last part. */
  readonly base: URL;
}

const HUB_API = 'registry-1.docker.io';
const HUB_INDEX = new URL('https://index.docker.io/v1/');

/** Retries at a closed port. Few, so that a user soon sees that nothing listens. */
const REFUSED_RETRIES = 2;

function isWrongScheme(error: unknown): boolean {
  return error instanceof NetworkError && [NOT_TLS, NOT_HTTP, BROKEN, REFUSED].includes(error.code);
}

function isWebPage({ header }: Response): boolean {
  return isHtml(header) && header('docker-distribution-api-version') === undefined;
}

function isHtml(header: Response['header']): boolean {
  return /\bhtml\b/i.test(header('content-type') ?? '');
}

/**
 * True if a registry is also the index: `X-Docker-Registry-Standalone` says so, else `standalone` in the
 * body, else it is (Docker 1.4, registry/endpoint.go).
 */
export function isStandalone(header: string | undefined, body: unknown): boolean {
  const said = header?.trim() ?? '';
  if (said !== '') return said === '1' || said.toLowerCase() === 'true';
  return !isObject(body) || body['standalone'] !== false;
}

function looksLikeVersion1({ status, header }: Response): boolean {
  if (status === 401) return true;
  if (status !== 200) return false;
  const named =
    header('x-docker-registry-version') !== undefined || header('x-docker-registry-standalone') !== undefined;
  return named || !isHtml(header);
}
