import { isLoopback } from '../../oci/reference.ts';
import { LOG_IN, NetworkError, UnauthorizedError, UsageError } from '../../errors.ts';
import { basic, type Credential, credentialText } from './credentials.ts';
import type { RegistryLocation } from '../config/registries-conf.ts';
import type { EndpointResponse, Authorization, NextStep } from '../endpoint.ts';
import { isObject, jsonOf, textOf } from '../../oci/json.ts';
import { answerError, parseChallenges, readDocument } from '../http/answer.ts';
import type { HttpHeaders, Request, Response } from '../http/exchange.ts';
import type { Transport } from '../http/transport.ts';

/** A supported scheme of a challenge. */
type AuthScheme = { readonly kind: 'basic' } | Bearer;

interface Bearer {
  readonly kind: 'bearer';
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  /** Why a token was refused (RFC 6750, 3.1). */
  readonly error: string | undefined;
}

function sameScopes(one: readonly string[], other: readonly string[]): boolean {
  return one.toSorted().join(' ') === other.toSorted().join(' ');
}

/**
 * Returns the challenge of a 401 to answer: the first Bearer one whose realm is a web address, else Basic;
 * undefined without either.
 */
function schemeOf(response: Response): AuthScheme | undefined {
  const challenges = parseChallenges(response.headers('www-authenticate'));
  for (const { scheme, parameters } of challenges) {
    const address = parameters.get('realm');
    const realm = address ? URL.parse(address, response.url.href) : null;
    if (scheme !== 'bearer' || !realm || !/^https?:$/.test(realm.protocol)) continue;
    return {
      kind: 'bearer',
      realm,
      service: parameters.get('service'),
      scopes: (parameters.get('scope') ?? '').split(' ').filter(Boolean),
      error: parameters.get('error'),
    };
  }
  return challenges.some(({ scheme }) => scheme === 'basic') ? { kind: 'basic' } : undefined;
}

/** Authorizes the reading of one repository by Basic or Bearer, as the challenges of its registry demand. */
export class Authenticator implements Authorization {
  readonly #find: () => Promise<Credential | undefined>;
  readonly #transport: Transport;
  readonly #place: Pick<RegistryLocation, 'registry' | 'repository'>;
  /** The address that sent the challenge. */
  #base: URL | undefined;
  #scheme: AuthScheme | undefined;
  #credential: Credential | undefined;
  /** Rejected if the token server refuses the credentials, which is final. */
  #token: Promise<Token> | undefined;
  /** The headers that were accepted. */
  readonly #accepted = new Set<string | undefined>();

  constructor(
    place: Pick<RegistryLocation, 'registry' | 'repository'>,
    find: () => Promise<Credential | undefined>,
    transport: Transport,
  ) {
    this.#place = place;
    this.#find = find;
    this.#transport = transport;
  }

  /**
   * Takes the challenge of the first 401, so that the first request for the repository has a token already.
   */
  learn(response: Response): void {
    this.#base = response.url;
    const scheme = schemeOf(response);
    // The scope in this challenge is not the repository's.
    this.#scheme = scheme?.kind === 'bearer' ? { ...scheme, scopes: [] } : scheme;
  }

  async headers(_: URL, refused: readonly (string | undefined)[]): Promise<HttpHeaders | undefined> {
    const authorization = await this.#header();
    return refused.includes(authorization) ? undefined : { authorization };
  }

  /** Returns the Authorization header to send next; undefined for none. */
  async #header(): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (!scheme) return undefined;
    this.#credential ??= await this.#find();
    const credential = this.#credential;
    if (credential?.kind === 'registry-token') return asHeader(credential);
    if (scheme.kind === 'basic') return credential?.kind === 'password' ? basic(credential) : undefined;
    const token = (this.#token ??= this.#fetch(scheme));
    const { text, until } = await token;
    if (performance.now() < until) return `Bearer ${text}`;
    if (this.#token === token) this.#token = undefined;
    return this.#header();
  }

  #fetch(scheme: Bearer): Promise<Token> {
    const wanted = { ...scheme, scopes: this.#scopes(scheme) };
    const token = fetchToken(wanted, this.#base!, this.#credential, this.#transport);
    token.catch((error: unknown) => {
      if (!(error instanceof UnauthorizedError)) this.#token = undefined;
    });
    return token;
  }

  /** After a 401 the first condition that applies decides. */
  async judge(
    { response, error, unauthorized }: EndpointResponse,
    _: URL,
    sent: HttpHeaders,
  ): Promise<NextStep> {
    const header = sent['authorization'];
    if (!error) this.#accepted.add(header);
    if (!unauthorized) return 'final';
    const before = this.#scheme;
    const scheme = schemeOf(response) ?? before;
    this.#base = response.url;
    this.#scheme = scheme;
    // Nothing else to send: the scheme is unknown, or the credentials stay the same.
    if (!scheme) return 'final';
    if (header === undefined) return scheme.kind === 'bearer' || !before ? 'other' : 'final';
    if (scheme.kind === 'basic' || this.#credential?.kind === 'registry-token') return 'final';
    const token = this.#token;
    // Another request has renewed the token already.
    if (header !== `Bearer ${(await token)?.text}` || this.#token !== token) return 'other';
    this.#token = undefined;
    // The token has expired, or is for other scopes.
    if (this.#accepted.has(header)) return 'other';
    if (before?.kind === 'bearer' && !sameScopes(this.#scopes(before), this.#scopes(scheme))) return 'other';
    // A fresh token may be invalid for a moment: clocks differ, and token servers replicate.
    if (scheme.error !== 'invalid_token') return 'final';
    return { notice: `${this.#place.registry} refused a fresh token as invalid; trying another one` };
  }

  #scopes(scheme: Bearer): readonly string[] {
    return scheme.scopes.length > 0 ? scheme.scopes : [`repository:${this.#place.repository}:pull`];
  }

  get used(): string | undefined {
    return this.#credential && credentialText(this.#credential);
  }
}

/** Visible ASCII: any other character could end the header. */
const VISIBLE_ASCII = /^[\x21-\x7e]+$/;

function asHeader(credential: Extract<Credential, { kind: 'registry-token' }>): string {
  if (VISIBLE_ASCII.test(credential.token)) return `Bearer ${credential.token}`;
  throw new UsageError(`cannot use ${credentialText(credential)}: it has characters that no token has`);
}

/** A Bearer token and when it expires. */
interface Token {
  readonly text: string;
  /** The time of expiry in milliseconds, by `performance.now()`. */
  readonly until: number;
}

const MAX_TOKEN_BYTES = 1024 * 1024;
/** Default and minimum lifetime of a token, in seconds (distribution's token specification). */
const LEAST_LIFETIME = 60;

/** Milliseconds before its expiry at which a token is replaced. */
const MARGIN = 5000;

/**
 * Returns the request for a token: GET, or POST with an identity token (distribution's token and OAuth2
 * specifications).
 */
function tokenRequest({ realm, service, scopes }: Bearer, credential: Credential | undefined): Request {
  const url = new URL(realm);
  url.username = '';
  url.password = '';
  url.hash = '';
  const headers = { accept: 'application/json' };
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

/**
 * Parses a token server's answer; undefined without a usable token.
 *
 * @param tell called with each secret in it
 */
function parseToken(body: Uint8Array, now: number, tell: (token: string) => void): Token | undefined {
  const document = jsonOf(Buffer.from(body).toString('utf8'));
  if (!isObject(document)) return undefined;
  const { token, access_token: accessToken, refresh_token: refreshToken, expires_in: lifetime } = document;
  const [own, access, refresh] = [token, accessToken, refreshToken].map(textOf);
  for (const each of [own, access, refresh]) if (each !== undefined) tell(each);
  const text = own ?? access;
  if (text === undefined || !VISIBLE_ASCII.test(text)) return undefined;
  const seconds = typeof lifetime === 'number' && lifetime > LEAST_LIFETIME ? lifetime : LEAST_LIFETIME;
  return { text, until: now + seconds * 1000 - MARGIN };
}

/**
 * Requests a token. Credentials go to a token server over https; over http only on this machine, or if the
 * registry itself uses http.
 *
 * @param registry address of the registry
 * @throws UnauthorizedError if the server refuses, NetworkError if its answer has no token; errors of
 * `answerError`
 */
async function fetchToken(
  scheme: Bearer,
  registry: URL,
  credential: Credential | undefined,
  transport: Transport,
): Promise<Token> {
  const start = performance.now();
  const { realm } = scheme;
  const { secrets } = transport.settings;
  secrets.addAddress(realm);
  if (realm.protocol !== 'https:' && !isLoopback(realm.host) && registry.protocol !== 'http:') {
    throw new NetworkError(`refused: the token server of ${registry.host}, ${realm.host}, does not use TLS`, {
      hint: 'report it to the operator of the registry',
    });
  }
  const response = await transport.send(tokenRequest(scheme, credential));
  const body = await readDocument(response, MAX_TOKEN_BYTES);
  if (response.status === 401 || response.status === 403 || (response.status === 400 && credential)) {
    const used = credential ? credentialText(credential) : 'a request without credentials';
    throw new UnauthorizedError(`the token server ${realm.host} refused ${used}`, {
      hint: credential ? 'check user name and password, or log in again' : LOG_IN,
    });
  }
  if (response.status !== 200) {
    throw answerError(response, body, { subject: `a token from ${realm.host}` });
  }
  const token = parseToken(body, start, (secret) => secrets.addIssued(secret));
  if (!token)
    throw new NetworkError(`the answer of the token server ${realm.host} holds no token`, {
      hint: 'report it to the operator of the registry; -v shows the requests',
    });
  return token;
}
