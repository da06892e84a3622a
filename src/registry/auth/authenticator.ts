import { isLoopback } from '../../oci/reference.ts';
import { LOG_IN, NetworkError, UnauthorizedError, UsageError } from '../../errors.ts';
import type { Credential } from '../config/auth-file.ts';
import { basic, type CredentialFinder, describeCredential } from './credentials.ts';
import type { Authorization, Refusal, Verdict } from '../endpoint.ts';
import { isObject, jsonOf } from '../../oci/json.ts';
import { answerError, type Challenge, readDocument } from '../http/answer.ts';
import type { Request } from '../http/exchange.ts';
import type { Transport } from '../http/transport.ts';

/** The scheme of a challenge, if it is supported. */
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

/** A Bearer challenge; undefined for other schemes, and where its realm is not a web address. */
function bearerOf({ scheme, parameters }: Challenge, base: URL): Bearer | undefined {
  const address = parameters.get('realm');
  const realm = address ? URL.parse(address, base.href) : null;
  if (scheme !== 'bearer' || !realm || !/^https?:$/.test(realm.protocol)) return undefined;
  return {
    kind: 'bearer',
    realm,
    service: parameters.get('service'),
    scopes: (parameters.get('scope') ?? '').split(' ').filter(Boolean),
    error: parameters.get('error'),
  };
}

/** Chooses among challenges: Bearer before Basic, the first of each; unknown schemes are ignored. */
function chooseScheme(challenges: readonly Challenge[], base: URL): AuthScheme | undefined {
  const bearer = challenges.map((each) => bearerOf(each, base)).find((each) => each !== undefined);
  return bearer ?? (challenges.some(({ scheme }) => scheme === 'basic') ? { kind: 'basic' } : undefined);
}

/** The authorization to read one repository, by Basic or Bearer, as the challenges of its registry ask for. */
export class Authenticator implements Authorization {
  readonly #credentials: CredentialFinder;
  readonly #transport: Transport;
  readonly #ownScope: string;
  #base: URL | undefined;
  #scheme: AuthScheme | undefined;
  #credential: Credential | undefined;
  #token: Token | undefined;
  /** A request with `#token` succeeded. */
  #accepted = false;
  #fetching: Promise<Token> | undefined;
  /** The token server refused the credentials; this is final. */
  #refusal: UnauthorizedError | undefined;

  constructor(repository: string, credentials: CredentialFinder, transport: Transport) {
    this.#credentials = credentials;
    this.#transport = transport;
    this.#ownScope = `repository:${repository}:pull`;
  }

  /** Takes the challenge of the first 401, so that the next request has its token. */
  learn(challenges: readonly Challenge[], base: URL): void {
    this.#base = base;
    const scheme = chooseScheme(challenges, base);
    // The scope in this challenge is not the repository's.
    this.#scheme = scheme?.kind === 'bearer' ? { ...scheme, scopes: [] } : scheme;
  }

  async header(): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (!scheme) return undefined;
    this.#credential ??= await this.#credentials.find();
    const credential = this.#credential;
    if (credential?.kind === 'registry-token') return asHeader(credential);
    if (scheme.kind === 'basic') return credential?.kind === 'password' ? basic(credential) : undefined;
    if (!this.#token || this.#token.until < performance.now()) this.#token = await this.#renew(scheme);
    return `Bearer ${this.#token.text}`;
  }

  async refused(refusal: Refusal): Promise<Verdict> {
    const verdict = this.#judge(refusal);
    if (verdict !== 'again') return verdict;
    return (await this.header()) === refusal.header ? 'final' : 'again';
  }

  /** The first line that applies counts. */
  #judge({ header, challenges, base }: Refusal): Verdict {
    const before = this.#scheme;
    const scheme = chooseScheme(challenges, base) ?? before;
    this.#base = base;
    this.#scheme = scheme;
    const sent = this.#token && `Bearer ${this.#token.text}`;
    // Nothing to authenticate with: no known scheme, or credentials that stay the same.
    if (!scheme) return 'final';
    if (header === undefined) return scheme.kind === 'bearer' || !before ? 'again' : 'final';
    if (scheme.kind === 'basic' || this.#credential?.kind === 'registry-token') return 'final';
    // Another request has renewed the token already.
    if (header !== sent) return 'again';
    this.#token = undefined;
    // The token has expired, or is for other scopes.
    if (this.#accepted) return 'again';
    if (before?.kind === 'bearer' && !sameScopes(this.#scopes(before), this.#scopes(scheme))) return 'again';
    // A fresh token may be invalid for a moment: clocks differ, and token servers replicate.
    return scheme.error === 'invalid_token' ? 'later' : 'final';
  }

  accepted(header: string | undefined): void {
    if (header === `Bearer ${this.#token?.text}`) this.#accepted = true;
  }

  #scopes(scheme: Bearer): readonly string[] {
    return scheme.scopes.length > 0 ? scheme.scopes : [this.#ownScope];
  }

  get used(): string | undefined {
    return this.#credential && describeCredential(this.#credential);
  }

  async #renew(scheme: Bearer): Promise<Token> {
    const { realm } = scheme;
    if (!mayHaveCredentials(realm, this.#base!)) {
      throw new NetworkError(
        `refused: the token server of ${this.#base!.host}, ${realm.host}, does not use TLS`,
        { hint: 'report it to the operator of the registry' },
      );
    }
    if (this.#refusal) throw this.#refusal;
    const wanted = { ...scheme, scopes: this.#scopes(scheme) };
    this.#fetching ??= fetchToken(wanted, this.#credential, this.#transport)
      .catch((error: unknown) => {
        if (error instanceof UnauthorizedError) this.#refusal = error;
        throw error;
      })
      .finally(() => {
        this.#fetching = undefined;
        this.#accepted = false;
      });
    return this.#fetching;
  }
}

/** A header can hold visible ASCII only: any other token could end it. */
const TOKEN = /^[\x21-\x7e]+$/;

function asHeader(credential: Extract<Credential, { kind: 'registry-token' }>): string {
  if (TOKEN.test(credential.token)) return `Bearer ${credential.token}`;
  throw new UsageError(`cannot use ${describeCredential(credential)}: it has characters that no token has`);
}

/** A Bearer token and its end. */
interface Token {
  readonly text: string;
  /** On the monotonic clock, in milliseconds. */
  readonly until: number;
}

const MAX_TOKEN_BYTES = 1024 * 1024;
/** Default and least lifetime of a token, in seconds (distribution's token specification). */
const LEAST_LIFETIME = 60;

/** A token is not used in its last milliseconds: this many. */
const MARGIN = 5000;

/**
 * Whether a token server may receive the credentials of its registry: over https always, over http only on this machine or when the
 * registry itself uses http.
 */
function mayHaveCredentials(realm: URL, registry: URL): boolean {
  return realm.protocol === 'https:' || isLoopback(realm.host) || registry.protocol === 'http:';
}

/** The request for a token: GET, or POST with an identity token (distribution's token and OAuth2 specifications). */
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

/** Reads a token server's answer. Undefined when it holds no usable token. */
function parseToken(body: Uint8Array, now: number): Token | undefined {
  const document = jsonOf(Buffer.from(body).toString('utf8'));
  if (!isObject(document)) return undefined;
  const { token, access_token: accessToken, expires_in: lifetime } = document;
  const text = [token, accessToken].find((each) => typeof each === 'string' && each !== '');
  if (typeof text !== 'string' || !TOKEN.test(text)) return undefined;
  const seconds = typeof lifetime === 'number' && lifetime > LEAST_LIFETIME ? lifetime : LEAST_LIFETIME;
  return { text, until: now + seconds * 1000 - MARGIN };
}

/**
 * Gets a token.
 *
 * @throws UnauthorizedError when the server refuses, NetworkError when it answers something else
 */
async function fetchToken(
  scheme: Bearer,
  credential: Credential | undefined,
  transport: Transport,
): Promise<Token> {
  const start = performance.now();
  const { realm } = scheme;
  const response = await transport.send(tokenRequest(scheme, credential));
  const body = await readDocument(response, MAX_TOKEN_BYTES);
  if (response.status === 401 || response.status === 403 || (response.status === 400 && credential)) {
    const used = credential ? describeCredential(credential) : 'a request without credentials';
    throw new UnauthorizedError(`the token server ${realm.host} refused ${used}`, {
      hint: credential ? 'check user name and password, or log in again' : LOG_IN,
    });
  }
  if (response.status !== 200) {
    throw answerError(response, body, { subject: `a token from ${realm.host}` });
  }
  const token = parseToken(body, start);
  if (!token)
    throw new NetworkError(`the answer of the token server ${realm.host} holds no token`, {
      hint: 'report it to the operator of the registry; -v shows the requests',
    });
  return token;
}
