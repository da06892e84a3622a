/** A registry that holds the repository, and the first request to it, which finds its scheme and the version of its protocol. */
import { isLoopback } from '../oci/reference.ts';
import { type DlrootfsError, NetworkError, NotFoundError } from '../errors.ts';
import { isObject, parseJson } from '../oci/json.ts';
import { Authenticator } from './auth/authenticator.ts';
import { CredentialFinder } from './auth/credentials.ts';
import type { Location } from './config/registries-conf.ts';
import { Endpoint } from './endpoint.ts';
import { answerError, parseChallenges, readFailure } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import { openTransport, retryRequest, type Transport, type TransportSettings } from './http/transport.ts';
import { BROKEN, isTransient, NOT_HTTP, NOT_TLS, REFUSED, UNREACHABLE } from './http/transport-error.ts';

/** The registry of the reference or a mirror of it. */
export class RegistryHost {
  readonly location: Location;
  readonly transport: Transport;
  readonly credentials: CredentialFinder;
  /** The repository by version 2 of the protocol. */
  readonly endpoint: Endpoint;
  readonly #authenticator: Authenticator;
  #contact: Promise<Contact> | undefined;

  private constructor(location: Location, transport: Transport, credentials: CredentialFinder) {
    this.location = location;
    this.transport = transport;
    this.credentials = credentials;
    this.#authenticator = new Authenticator(location.repository, credentials, transport);
    this.endpoint = new Endpoint({
      name: location.registry,
      base: () => this.#base(),
      transport,
      authorization: this.#authenticator,
    });
  }

  /** @throws UsageError for unusable certificate files */
  static async open(location: Location, settings: TransportSettings): Promise<RegistryHost> {
    const { options } = settings;
    const own = location.mirrorOf === undefined;
    const insecure = location.insecure || options.tlsVerify === false;
    const plainHttp = location.plainHttp || (own && options.plainHttp === true);
    // The caller's credentials are for the registry of the reference; those of mirrors are in files.
    const asked = own ? options : { ...options, credentials: undefined, registryToken: undefined };
    const transport = await openTransport(location.registry, insecure, settings);
    return new RegistryHost(
      { ...location, insecure, plainHttp },
      transport,
      new CredentialFinder(location, asked),
    );
  }

  /** The answer to `GET /v2/`, which is sent once. */
  contact(): Promise<Contact> {
    this.#contact ??= contactVersion2(this, this.#authenticator);
    return this.#contact;
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
}

type Scheme = 'http' | 'https';

/** Retries at a closed port: the first answer must not take long. */
const REFUSED_RETRIES = 2;

const HUB_API = 'registry-1.docker.io';

/** Codes of errors after which the other scheme may be right. */
const WRONG_SCHEME: readonly string[] = [NOT_TLS, NOT_HTTP, BROKEN, REFUSED];
/** Codes of errors of a second scheme that say less than the error of the first one. */
const SAYS_LESS: readonly string[] = [...WRONG_SCHEME, UNREACHABLE];

function schemesOf({ location, transport }: RegistryHost): readonly [Scheme, Scheme?] {
  const { plainHttp, insecure, registry } = location;
  if (plainHttp) return ['http'];
  if (isLoopback(registry)) return transport.certificates ? ['https', 'http'] : ['http', 'https'];
  return insecure ? ['https', 'http'] : ['https'];
}

/** Calls `ping` with the schemes that are allowed, see `withEither`; retries after transient errors. */
function firstContact<T>(host: RegistryHost, ping: (scheme: Scheme) => Promise<T>): Promise<T> {
  const most = host.location.mirrorOf === undefined ? Infinity : 1;
  const retries = ({ code }: DlrootfsError) => (code === REFUSED ? Math.min(most, REFUSED_RETRIES) : most);
  return retryRequest(() => withEither(schemesOf(host), ping), host.transport.policy, retries);
}

/**
 * Calls `ping` with the first scheme, and with the second where the registry may speak that one:
 *
 * | error of the first | of the second                | result                  |
 * | ------------------ | ---------------------------- | ----------------------- |
 * | none               | not called                   | the first answer        |
 * | another            | not called                   | the error of the first  |
 * | of `WRONG_SCHEME`  | none                         | the second answer       |
 * | of `WRONG_SCHEME`  | of `SAYS_LESS`               | the error of the first  |
 * | of `WRONG_SCHEME`  | another                      | the error of the second |
 */
async function withEither<T>(
  [first, second]: readonly [Scheme, Scheme?],
  ping: (scheme: Scheme) => Promise<T>,
): Promise<T> {
  try {
    return await ping(first);
  } catch (error) {
    if (second === undefined || !isNetworkError(error, WRONG_SCHEME)) throw error;
    return await ping(second).catch((other: unknown) => {
      throw isNetworkError(other, SAYS_LESS) ? error : other;
    });
  }
}

function isNetworkError(error: unknown, codes: readonly string[]): boolean {
  return error instanceof NetworkError && codes.includes(error.code);
}

/** The answer of a registry to `GET /v2/`. */
export interface Contact {
  /** Ends in `/v2/`. */
  readonly base: URL;
  /** Yes: `/v2/` is answered 401, or 200. Perhaps: 200 with a web page, as from servers that answer so to everything. */
  readonly version2: 'yes' | 'perhaps' | 'no';
  /** The error for the answer to `/v2/`, unless that is 404. */
  readonly refusal?: DlrootfsError | undefined;
}

/** The answer to a GET without credentials, and the error for it, unless its status is 200; throws that where a retry may help. */
async function getOpenly({ transport, location }: RegistryHost, url: URL) {
  const response = await transport.send({ method: 'GET', url, headers: {} });
  const body = await readFailure(response);
  const subject = `the registry API of ${location.registry}`;
  const error = response.status === 200 ? undefined : answerError(response, body, { subject });
  if (isTransient(error)) throw error;
  // A registry may redirect to https, or to another port.
  const moved = response.url.hostname === url.hostname && response.url.pathname === url.pathname;
  return { response, body, error, base: new URL('.', moved ? response.url : url) };
}

/**
 * Sends `GET /v2/` to find scheme and version; `authenticator` gets the challenge.
 *
 * | answer              | version 2                                              |
 * | ------------------- | ------------------------------------------------------ |
 * | 200, 401            | yes, or perhaps                                        |
 * | 404                 | no                                                     |
 * | of no registry      | no, with that error as refusal                         |
 * | any other           | an error: only a server that does not know the address |
 * |                     | may speak version 1                                    |
 */
async function contactVersion2(host: RegistryHost, authenticator: Authenticator): Promise<Contact> {
  const { registry } = host.location;
  const name = registry === 'docker.io' ? HUB_API : registry;
  return firstContact(host, async (scheme) => {
    const { response, body, error, base } = await getOpenly(host, new URL(`${scheme}://${name}/v2/`));
    const { status } = response;
    if (scheme === 'http' && wantsHttps(status, body)) throw notHttp(name);
    if (status === 401) authenticator.learn(parseChallenges(response.headers('www-authenticate')), base);
    if (!error || status === 401) return { base, version2: isWebPage(response) ? 'perhaps' : 'yes' };
    if (status === 404) return { base, version2: 'no' };
    if (error instanceof NotFoundError || error instanceof NetworkError)
      return { base, version2: 'no', refusal: error };
    throw error;
  });
}

/** Whether a server says that it got plain HTTP at a port for HTTPS. */
function wantsHttps(status: number, body: Uint8Array): boolean {
  return status === 400 && /HTTPS/i.test(Buffer.from(body).toString('latin1'));
}

function notHttp(name: string): NetworkError {
  return new NetworkError(`${name} speaks HTTPS, not plain HTTP`, {
    code: NOT_HTTP,
    hint: 'leave out --plain-http',
  });
}

function isWebPage({ header }: Response): boolean {
  return isHtml(header) && header('docker-distribution-api-version') === undefined;
}

function isHtml(header: Response['header']): boolean {
  return /\bhtml\b/i.test(header('content-type') ?? '');
}

/** The answer of a server to `GET /v1/_ping`. */
export interface Ping {
  readonly status: number;
  /** Ends in `/v1/`. */
  readonly base: URL;
  /** The answer looks like one of registry version 1. */
  readonly version1: boolean;
  /** Index and registry in one. */
  readonly standalone: boolean;
}

/**
 * Sends `GET /v1/_ping`, without credentials.
 *
 * @param known address of an earlier answer of the registry
 */
export async function contactVersion1(host: RegistryHost, known: URL | undefined): Promise<Ping> {
  const { transport, location } = host;
  const ping = async (url: URL): Promise<Ping> => {
    const { response, body, base } = await getOpenly(host, url);
    return {
      status: response.status,
      base,
      version1: looksLikeVersion1(response),
      standalone: isStandalone(response.header('x-docker-registry-standalone'), parsed(body)),
    };
  };
  if (known) return retryRequest(() => ping(new URL('/v1/_ping', known)), transport.policy);
  return firstContact(host, (scheme) => ping(new URL(`${scheme}://${location.registry}/v1/_ping`)));
}

/**
 * Whether a registry is also the index: `X-Docker-Registry-Standalone`, else `standalone` in the body, else yes (Docker 1.4,
 * registry/endpoint.go).
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

function parsed(body: Uint8Array): unknown {
  try {
    return parseJson(body, 'the answer to a ping');
  } catch {
    return undefined;
  }
}
