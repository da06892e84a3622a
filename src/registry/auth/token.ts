import { NetworkError, UnauthorizedError } from '../../errors.ts';
import { isObject } from '../../oci/json.ts';
import { readDocument } from '../http/body.ts';
import type { Challenge } from './challenge.ts';
import { type Credential, describeCredential } from './credentials.ts';
import type { Request } from '../http/exchange.ts';
import { isLoopback } from '../http/loopback.ts';
import { answerError } from '../http/answer-error.ts';
import { COMMON_HEADERS, type Transport } from '../http/transport.ts';

/** A Bearer token and how long it is good for. */
export interface Token {
  readonly text: string;
  /** On the monotonic clock, in milliseconds. */
  readonly until: number;
}

/** What a Bearer challenge asks for. */
export interface TokenRequest {
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
}

const MAX_TOKEN_BYTES = 1024 * 1024;
/** Default and least lifetime of a token, in seconds (distribution's token specification). */
const LEAST_LIFETIME = 60;

/** Milliseconds before its end from which a token is not used any more. */
const MARGIN = 5000;

/** The realm of a challenge; undefined when it is not a web address. */
export function realmOf(challenge: Challenge, base: URL): URL | undefined {
  const realm = URL.parse(challenge.parameters.get('realm') ?? '', base.href);
  return realm && /^https?:$/.test(realm.protocol) && challenge.parameters.get('realm') ? realm : undefined;
}

/**
 * Whether a token server may receive the credentials of its registry: over https always, over http only on this machine or when the
 * registry itself is talked to over http.
 */
export function mayAsk(realm: URL, registry: URL): boolean {
  return realm.protocol === 'https:' || isLoopback(realm.host) || registry.protocol === 'http:';
}

/** The HTTP request for a token: GET, or POST with an identity token (distribution's token and OAuth2 specifications). */
function tokenHttpRequest(
  { realm, service, scopes }: TokenRequest,
  credential: Credential | undefined,
): Request {
  const url = new URL(realm);
  url.username = '';
  url.password = '';
  url.hash = '';
  const headers = { ...COMMON_HEADERS, accept: 'application/json' };
  if (credential?.kind === 'identity-token') {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: credential.token,
      client_id: 'dlrootfs',
    });
    if (service !== undefined) form.set('service', service);
    form.set('scope', scopes.join(' '));
    const body = form.toString();
    return {
      method: 'POST',
      url,
      headers: { ...headers, 'content-type': 'application/x-www-form-urlencoded' },
      body,
    };
  }
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  if (credential?.kind !== 'password') return { method: 'GET', url, headers };
  url.searchParams.set('account', credential.username);
  return { method: 'GET', url, headers: { ...headers, authorization: basic(credential) } };
}

/** The value of an Authorization header for a user name and a password. */
export function basic({
  username,
  password,
}: {
  readonly username: string;
  readonly password: string;
}): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}

/** Reads a token server's answer. Undefined when it holds no usable token. */
function parseToken(document: unknown, now: number): Token | undefined {
  if (!isObject(document)) return undefined;
  const { token, access_token: accessToken, expires_in: lifetime } = document;
  const text = [token, accessToken].find((each) => typeof each === 'string' && each !== '');
  // A header can hold visible ASCII only.
  if (typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text)) return undefined;
  const seconds = typeof lifetime === 'number' && lifetime > LEAST_LIFETIME ? lifetime : LEAST_LIFETIME;
  return { text, until: now + seconds * 1000 - MARGIN };
}

/**
 * Gets a token.
 *
 * @throws UnauthorizedError when the server refuses, NetworkError when it answers something else
 */
export async function fetchToken(
  request: TokenRequest,
  credential: Credential | undefined,
  transport: Transport,
  signal: AbortSignal,
): Promise<Token> {
  const start = performance.now();
  const { realm } = request;
  const response = await transport.send(tokenHttpRequest(request, credential), signal);
  const body = await readDocument(response, MAX_TOKEN_BYTES);
  if (response.status === 401 || response.status === 403 || (response.status === 400 && credential)) {
    const used = credential ? describeCredential(credential) : 'a request without credentials';
    throw new UnauthorizedError(`the token server ${realm.host} refused ${used}`, {
      hint: credential
        ? 'check user name and password, or log in again'
        : 'log in with docker or podman, or use --user',
    });
  }
  if (response.status !== 200) {
    throw answerError(response, body, { subject: `a token from ${realm.host}` });
  }
  const token = parseToken(parse(body), start);
  if (!token)
    throw new NetworkError(`the answer of the token server ${realm.host} holds no token`, {
      hint: 'report it to the operator of the registry; -v shows the requests',
    });
  return token;
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body).toString('utf8'));
  } catch {
    return undefined;
  }
}
