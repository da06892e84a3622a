import { NetworkError, UnauthorizedError, UsageError } from '../../errors.ts';
import type { Challenge } from './challenge.ts';
import { describeCredential, type Credential } from './credential.ts';
import type { Credentials } from './credentials.ts';
import type { Timeouts } from '../registry-options.ts';
import { basic, fetchToken, mayAsk, realmOf, type Token } from './token.ts';
import type { Transport } from '../http/transport.ts';

/** How the registry wants to be convinced, as far as we know how. */
type Scheme = { readonly kind: 'basic' } | Bearer;

interface Bearer {
  readonly kind: 'bearer';
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  /** Why a token was refused (RFC 6750, 3.1). */
  readonly error: string | undefined;
}

/** What to do after a 401: end with an error, send the request with another authorization, or do that after a pause. */
export type Verdict = 'final' | 'again' | 'later';

function sameScopes(one: readonly string[], other: readonly string[]): boolean {
  return one.toSorted().join(' ') === other.toSorted().join(' ');
}

/** Chooses among challenges: Bearer before Basic, the first of each; schemes that are not known are passed over. */
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

/** Knows what to send to one registry so that it lets us read one repository. */
export class Authenticator {
  readonly #credentials: Credentials;
  readonly #transport: Transport;
  readonly #timeouts: Timeouts;
  readonly #ownScope: string;
  #base: URL | undefined;
  #scheme: Scheme | undefined;
  #credential: Credential | undefined;
  #token: Token | undefined;
  /** A request was let through with `#token`. */
  #accepted = false;
  #fetching: Promise<Token> | undefined;
  /** What the token server said of our credentials does not change by asking again. */
  #refusal: UnauthorizedError | undefined;

  constructor(repository: string, credentials: Credentials, transport: Transport, timeouts: Timeouts) {
    this.#credentials = credentials;
    this.#transport = transport;
    this.#timeouts = timeouts;
    this.#ownScope = `repository:${repository}:pull`;
  }

  /** Remembers what the ping's 401 said, so that the first real request goes out with its token. */
  learn(challenges: readonly Challenge[], base: URL): void {
    this.#base = base;
    const scheme = chooseScheme(challenges, base);
    // What the ping names as scope is not the repository's.
    this.#scheme = scheme?.kind === 'bearer' ? { ...scheme, scopes: [] } : scheme;
  }

  /** The Authorization header to send, undefined for none. */
  async header(signal: AbortSignal): Promise<string | undefined> {
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
   * Takes in that a request with `header` was answered 401. Another try makes sense after an unknown challenge, or with a token that
   * was good until now. A fresh token that is called invalid may become valid: clocks differ, and token servers replicate.
   */
  refused(header: string | undefined, challenges: readonly Challenge[], base: URL): Verdict {
    this.#base = base;
    const before = this.#scheme;
    this.#scheme = chooseScheme(challenges, base) ?? before;
    const scheme = this.#scheme;
    if (!scheme) return 'final';
    if (header === undefined) return scheme.kind === 'bearer' || before === undefined ? 'again' : 'final';
    if (scheme.kind === 'basic' || this.#credential?.kind === 'registry-token') return 'final';
    // Others may have renewed the token while this request was under way.
    if (header !== `Bearer ${this.#token?.text}`) return 'again';
    this.#token = undefined;
    if (this.#accepted) return 'again';
    if (before?.kind === 'bearer' && !sameScopes(this.#scopes(before), this.#scopes(scheme))) return 'again';
    return scheme.error === 'invalid_token' ? 'later' : 'final';
  }

  /** Hears that a request which was sent with `header` was let through. */
  accepted(header: string | undefined): void {
    if (header === `Bearer ${this.#token?.text}`) this.#accepted = true;
  }

  #scopes(scheme: Bearer): readonly string[] {
    return scheme.scopes.length > 0 ? scheme.scopes : [this.#ownScope];
  }

  /** Names the credentials that are sent; undefined when there are none. */
  get sent(): string | undefined {
    return this.#credential && describeCredential(this.#credential);
  }

  async #renew(scheme: Bearer, signal: AbortSignal): Promise<Token> {
    const { realm, service } = scheme;
    if (!mayAsk(realm, this.#base!)) {
      const hint = 'the registry is set up wrongly: its token server has to speak https';
      throw new NetworkError(
        `${this.#base!.host} sends us to a token server without TLS, ${realm.host}: refused`,
        { hint },
      );
    }
    if (this.#refusal) throw this.#refusal;
    this.#fetching ??= fetchToken(
      { realm, service, scopes: this.#scopes(scheme) },
      this.#credential,
      this.#transport,
      this.#timeouts,
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

/** Whatever comes from a file or a flag must not end the header, nor be what no header can have. */
function asHeader(credential: Extract<Credential, { kind: 'registry-token' }>): string {
  if (/^[\x21-\x7e]+$/.test(credential.token)) return `Bearer ${credential.token}`;
  throw new UsageError(`${describeCredential(credential)} has characters that no token has`);
}
