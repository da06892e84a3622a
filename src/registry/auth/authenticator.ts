import { NetworkError, UnauthorizedError, UsageError } from '../../errors.ts';
import type { Challenge } from './challenge.ts';
import { type Credential, type Credentials, describeCredential } from './credentials.ts';
import { basic, fetchToken, mayAsk, realmOf, type Token } from './token.ts';
import type { Authorization, Refusal, Tried, Verdict } from '../endpoint.ts';
import type { Transport } from '../http/transport.ts';

/** The scheme that the registry asks for, of those that are known here. */
type Scheme = { readonly kind: 'basic' } | Bearer;

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

/** Chooses among challenges: Bearer before Basic, the first of each; unknown schemes are ignored. */
function chooseScheme(challenges: readonly Challenge[], base: URL): Scheme | undefined {
  const bearer = challenges.filter((each) => each.scheme === 'bearer');
  for (const challenge of bearer) {
    const realm = realmOf(challenge, base);
    if (!realm) continue;
    const scopes = (challenge.parameters.get('scope') ?? '').split(' ').filter(Boolean);
    const { parameters } = challenge;
    return {
      kind: 'bearer',
      realm,
      service: parameters.get('service'),
      scopes,
      error: parameters.get('error'),
    };
  }
  return challenges.some((each) => each.scheme === 'basic') ? { kind: 'basic' } : undefined;
}

/** The authorization to read one repository, by Basic or Bearer, as the challenges of its registry ask for. */
export class Authenticator implements Authorization {
  readonly #credentials: Credentials;
  readonly #transport: Transport;
  readonly #ownScope: string;
  #base: URL | undefined;
  #scheme: Scheme | undefined;
  #credential: Credential | undefined;
  #token: Token | undefined;
  /** A request with `#token` succeeded. */
  #accepted = false;
  #fetching: Promise<Token> | undefined;
  /** The token server's refusal of the credentials is final. */
  #refusal: UnauthorizedError | undefined;

  constructor(repository: string, credentials: Credentials, transport: Transport) {
    this.#credentials = credentials;
    this.#transport = transport;
    this.#ownScope = `repository:${repository}:pull`;
  }

  /** Takes the challenge of the ping's 401, so that the first request has its token. */
  learn(challenges: readonly Challenge[], base: URL): void {
    this.#base = base;
    const scheme = chooseScheme(challenges, base);
    // What the ping names as scope is not the repository's.
    this.#scheme = scheme?.kind === 'bearer' ? { ...scheme, scopes: [] } : scheme;
  }

  /** The Authorization header to send, undefined for none. */
  async header(_: Tried, signal: AbortSignal): Promise<string | undefined> {
    return this.#header(signal);
  }

  async #header(signal: AbortSignal): Promise<string | undefined> {
    const scheme = this.#scheme;
    if (!scheme) return undefined;
    this.#credential ??= await this.#credentials.find(signal);
    const credential = this.#credential;
    if (credential?.kind === 'registry-token') return asHeader(credential);
    if (scheme.kind === 'basic') return credential?.kind === 'password' ? basic(credential) : undefined;
    if (!this.#token || this.#token.until < performance.now())
      this.#token = await this.#renew(scheme, signal);
    return `Bearer ${this.#token.text}`;
  }

  /**
   * Another try makes sense after an unknown challenge, or with another token in place of one that was good until now. A fresh token
   * that is called invalid may be replaced by a valid one: clocks differ, and token servers replicate.
   */
  async refused(refusal: Refusal, _: Tried, signal: AbortSignal): Promise<Verdict> {
    const verdict = this.#judge(refusal);
    if (verdict !== 'again') return verdict;
    return (await this.#header(signal)) === refusal.header ? 'final' : 'again';
  }

  #judge({ header, challenges, base }: Refusal): Verdict {
    this.#base = base;
    const before = this.#scheme;
    this.#scheme = chooseScheme(challenges, base) ?? before;
    const scheme = this.#scheme;
    if (!scheme) return 'final';
    if (header === undefined) return scheme.kind === 'bearer' || before === undefined ? 'again' : 'final';
    if (scheme.kind === 'basic' || this.#credential?.kind === 'registry-token') return 'final';
    // Another request may have renewed the token already.
    if (header !== `Bearer ${this.#token?.text}`) return 'again';
    this.#token = undefined;
    if (this.#accepted) return 'again';
    if (before?.kind === 'bearer' && !sameScopes(this.#scopes(before), this.#scopes(scheme))) return 'again';
    return scheme.error === 'invalid_token' ? 'later' : 'final';
  }

  /** Takes note that a request with `header` succeeded. */
  accepted(header: string | undefined): void {
    if (header === `Bearer ${this.#token?.text}`) this.#accepted = true;
  }

  #scopes(scheme: Bearer): readonly string[] {
    return scheme.scopes.length > 0 ? scheme.scopes : [this.#ownScope];
  }

  get used(): string | undefined {
    return this.#credential && describeCredential(this.#credential);
  }

  async #renew(scheme: Bearer, signal: AbortSignal): Promise<Token> {
    const { realm, service } = scheme;
    if (!mayAsk(realm, this.#base!)) {
      throw new NetworkError(
        `refused: the token server of ${this.#base!.host}, ${realm.host}, does not use TLS`,
        { hint: 'report it to the operator of the registry' },
      );
    }
    if (this.#refusal) throw this.#refusal;
    this.#fetching ??= fetchToken(
      { realm, service, scopes: this.#scopes(scheme) },
      this.#credential,
      this.#transport,
      signal,
    )
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

/** What comes from a file or a flag must not end the header. */
function asHeader(credential: Extract<Credential, { kind: 'registry-token' }>): string {
  if (/^[\x21-\x7e]+$/.test(credential.token)) return `Bearer ${credential.token}`;
  throw new UsageError(`cannot use ${describeCredential(credential)}: it has characters that no token has`);
}
