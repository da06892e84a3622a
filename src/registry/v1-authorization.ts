/** What to put into the Authorization header for one server, and what to try next when that is refused. */
export interface Authorization {
  /** Names the credentials behind it; undefined when there are none. */
  readonly sent: string | undefined;
  /** Undefined: none. */
  first(): string | undefined;
  /** What to try after all of `tried` were answered 401; undefined when there is nothing else. */
  after(tried: readonly (string | undefined)[], signal: AbortSignal): Promise<string | undefined>;
  accepted(header: string | undefined): void;
}

/** The index is told user name and password with the first request: it answers for this user, and asks nobody. */
export function indexAuthorization(basic: string | undefined, sent: string | undefined): Authorization {
  return {
    sent,
    first: () => basic,
    after: async () => Promise.resolve(undefined),
    accepted: () => undefined,
  };
}

/** The tokens that the index gave, which may be renewed. */
export interface Tokens {
  readonly token: string | undefined;
  /** Gets another token in place of `old`, once for all that ask for it. */
  renew(old: string, signal: AbortSignal): Promise<void>;
}

/** What a registry is told: the index's token, or the password where it is the server that the password is for. */
export class RegistryAuthorization implements Authorization {
  readonly sent: string | undefined;
  readonly #tokens: Tokens;
  readonly #basic: string | undefined;
  readonly #basicFirst: boolean;
  #good: string | undefined;

  /**
   * @param basic the header for user name and password; undefined where they must not go
   * @param basicFirst as for a standalone registry, where a proxy in front may want it
   */
  constructor(tokens: Tokens, basic: string | undefined, basicFirst: boolean, sent: string | undefined) {
    this.#tokens = tokens;
    this.#basic = basic;
    this.#basicFirst = basicFirst;
    this.sent = sent;
  }

  #token(): string | undefined {
    const { token } = this.#tokens;
    return token === undefined ? undefined : `Token ${token}`;
  }

  #candidates(): readonly string[] {
    const both = this.#basicFirst ? [this.#basic, this.#token()] : [this.#token(), this.#basic];
    return both.filter((header) => header !== undefined);
  }

  first(): string | undefined {
    const candidates = this.#candidates();
    return candidates.find((header) => header === this.#good) ?? candidates[0];
  }

  async after(tried: readonly (string | undefined)[], signal: AbortSignal): Promise<string | undefined> {
    const old = tried.at(-1);
    const fresh = () => this.#candidates().find((header) => !tried.includes(header));
    // A token that was good until now has run out.
    if (old !== undefined && old === this.#good && old !== this.#basic) {
      await this.#tokens.renew(old.slice('Token '.length), signal);
    }
    return fresh();
  }

  accepted(header: string | undefined): void {
    this.#good = header;
  }
}
