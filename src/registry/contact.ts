/** The first request to a registry: finds its scheme and the version of its protocol. */
import { isLoopback } from '../oci/reference.ts';
import { type DlrootfsError, NetworkError, NotFoundError } from '../errors.ts';
import { isObject, parseJson } from '../oci/json.ts';
import type { Authenticator } from './auth/authenticator.ts';
import { parseChallenges } from './auth/challenge.ts';
import type { Credentials } from './auth/credentials.ts';
import type { Location } from './config/registries-conf.ts';
import { answerError } from './http/answer-error.ts';
import { readFailure } from './http/body.ts';
import type { Response } from './http/exchange.ts';
import { COMMON_HEADERS, retryRequest, type Transport } from './http/transport.ts';
import { BROKEN, isTransient, NOT_HTTP, NOT_TLS, REFUSED, UNREACHABLE } from './http/transport-error.ts';
import type { RequestPolicy } from './registry-options.ts';

/** A registry and the means to use it. */
export interface Place {
  readonly location: Location;
  readonly transport: Transport;
  readonly credentials: Credentials;
  readonly policy: RequestPolicy;
}

type Scheme = 'http' | 'https';

/** Retries at a closed port: the first answer must not take long. */
const REFUSED_RETRIES = 2;

const HUB_API = 'registry-1.docker.io';

function schemesOf({ location, transport }: Place): readonly Scheme[] {
  const { plainHttp, insecure, registry } = location;
  if (plainHttp) return ['http'];
  if (isLoopback(registry)) return transport.certificates ? ['https', 'http'] : ['http', 'https'];
  return insecure ? ['https', 'http'] : ['https'];
}

function speaksOtherwise(error: unknown): boolean {
  return error instanceof NetworkError && [NOT_TLS, NOT_HTTP, BROKEN, REFUSED].includes(error.code);
}

/**
 * Calls `ping` with the first scheme that is allowed, and with the second where the registry does not speak the first; retries after
 * transient errors.
 */
async function firstContact<T>(
  place: Place,
  ping: (scheme: Scheme) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const most = place.location.mirrorOf === undefined ? Infinity : 1;
  const retries = ({ code }: DlrootfsError) => (code === REFUSED ? Math.min(most, REFUSED_RETRIES) : most);
  return retryRequest(() => eitherScheme(schemesOf(place), ping), place.policy, signal, retries);
}

async function eitherScheme<T>(
  [scheme, otherScheme]: readonly Scheme[],
  ping: (scheme: Scheme) => Promise<T>,
): Promise<T> {
  try {
    return await ping(scheme!);
  } catch (error) {
    if (otherScheme === undefined || !speaksOtherwise(error)) throw error;
    return await ping(otherScheme).catch((second: unknown) => {
      // A server that waits for the rest of a request says less than its first answer.
      const mute = second instanceof NetworkError && second.code === UNREACHABLE;
      throw speaksOtherwise(second) || mute ? error : second;
    });
  }
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

/** Sends `GET /v2/` to find scheme and version; `authenticator` gets the challenge. */
export async function contactVersion2(
  place: Place,
  authenticator: Authenticator,
  signal: AbortSignal,
): Promise<Contact> {
  const { registry } = place.location;
  const host = registry === 'docker.io' ? HUB_API : registry;
  const ping = async (scheme: Scheme): Promise<Contact> => {
    const url = new URL(`${scheme}://${host}/v2/`);
    const response = await place.transport.send({ method: 'GET', url, headers: COMMON_HEADERS }, signal);
    const { status } = response;
    const body = await readFailure(response);
    if (status === 400 && scheme === 'http' && /HTTPS/i.test(Buffer.from(body).toString('latin1'))) {
      throw new NetworkError(`${host} speaks HTTPS, not plain HTTP`, {
        code: NOT_HTTP,
        hint: 'leave out --plain-http',
      });
    }
    const base = new URL('/v2/', movedTo(response, url));
    if (status === 401) authenticator.learn(parseChallenges(response.headers('www-authenticate')), base);
    if (status === 401 || status === 200) return { base, version2: isWebPage(response) ? 'perhaps' : 'yes' };
    const error = answerError(response, body, { subject: `the registry API of ${registry}` });
    // Only a server that does not know the address may speak version 1; other answers are errors.
    const unknown = error instanceof NotFoundError || error instanceof NetworkError;
    if (!unknown || isTransient(error)) throw error;
    return { base, version2: 'no', refusal: status === 404 ? undefined : error };
  };
  return firstContact(place, ping, signal);
}

/** The address of a registry that only redirects to https, or to another port. */
function movedTo(response: Response, url: URL): URL {
  const same = response.url.hostname === url.hostname && response.url.pathname === url.pathname;
  return same ? response.url : url;
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
export async function contactVersion1(
  place: Place,
  known: URL | undefined,
  signal: AbortSignal,
): Promise<Ping> {
  const ping = async (url: URL): Promise<Ping> => {
    const response = await place.transport.send({ method: 'GET', url, headers: COMMON_HEADERS }, signal);
    const body = await readFailure(response);
    const { status } = response;
    if (status !== 200) {
      const error = answerError(response, body, { subject: `the registry API of ${url.host}` });
      if (isTransient(error)) throw error;
    }
    return {
      status,
      base: new URL('/v1/', movedTo(response, url)),
      version1: looksLikeVersion1(response),
      standalone: isStandalone(response.header('x-docker-registry-standalone'), parsed(body)),
    };
  };
  if (known) return retryRequest(() => ping(new URL('/v1/_ping', known)), place.policy, signal);
  const { registry } = place.location;
  const greet = (scheme: Scheme) => ping(new URL(`${scheme}://${registry}/v1/_ping`));
  return firstContact(place, greet, signal);
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
