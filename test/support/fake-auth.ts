import { randomUUID } from 'node:crypto';
import type { Answer } from './fake-fault.ts';

/** HTTP Basic: every request needs one of these users. */
export interface BasicAuth {
  readonly type: 'basic';
  /** Passwords by name. */
  readonly users: Readonly<Record<string, string>>;
}

/** Bearer tokens from a token server. */
export interface BearerAuth {
  readonly type: 'bearer';
  /** Passwords by name. */
  readonly users?: Readonly<Record<string, string>>;
  /** Identity tokens (OAuth2 refresh tokens) that the token server accepts by POST. */
  readonly identityTokens?: readonly string[];
  /** Tokens from elsewhere that the registry accepts. */
  readonly registryTokens?: readonly string[];
  /** Repositories that need a user; the others need none. */
  readonly private?: RegExp;
  /** `expires_in` of the tokens, in seconds. After this time the registry refuses them. */
  readonly expiresIn?: number;
  /** Number of requests for which a token is valid. */
  readonly uses?: number;
  /** The field of the response that has the token. */
  readonly field?: 'token' | 'access_token';
  /** False: POST is answered with 405, as by servers without OAuth2. */
  readonly post?: boolean;
  /** True: the token server listens on another port. */
  readonly ownServer?: boolean;
  /** Replaces the `WWW-Authenticate` header; `{realm}` and `{scope}` are replaced in it. */
  readonly challenge?: string | readonly string[];
}

export type FakeAuthOptions = BasicAuth | BearerAuth;

interface Token {
  readonly scopes: ReadonlySet<string>;
  readonly until: number;
  uses: number;
}

const json = { 'content-type': 'application/json' };

export function errorAnswer(
  status: number,
  code: string,
  message: string,
  headers: Answer['headers'] = {},
): Answer {
  return {
    status,
    headers: { ...json, ...headers },
    body: Buffer.from(JSON.stringify({ errors: [{ code, message }] })),
  };
}

function basicUser(header: string | undefined, users: Readonly<Record<string, string>>): string | undefined {
  const encoded = /^Basic (.*)$/i.exec(header ?? '')?.[1];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  const name = text.slice(0, colon);
  return colon > 0 && users[name] === text.slice(colon + 1) ? name : undefined;
}

/** The access control of a fake registry, with its token server. */
export class FakeAuth {
  readonly #options: FakeAuthOptions;
  readonly #tokens = new Map<string, Token>();

  constructor(options: FakeAuthOptions) {
    this.#options = options;
  }

  /**
   * Returns the refusal of a request without the right to `repository` (undefined: the ping); else undefined.
   */
  refusal(
    authorization: string | undefined,
    repository: string | undefined,
    realm: string,
  ): Answer | undefined {
    const options = this.#options;
    if (options.type === 'basic') {
      if (basicUser(authorization, options.users) !== undefined) return undefined;
      return errorAnswer(401, 'UNAUTHORIZED', 'authentication required', {
        'www-authenticate': 'Basic realm="fake registry"',
      });
    }
    const scope = repository === undefined ? '' : `repository:${repository}:pull`;
    const text = /^Bearer (.*)$/i.exec(authorization ?? '')?.[1] ?? '';
    if (options.registryTokens?.includes(text)) return undefined;
    const token = this.#tokens.get(text);
    const live = token && token.until > Date.now() && token.uses > 0;
    if (live) {
      token.uses -= 1;
      if (scope === '' || token.scopes.has(scope)) return undefined;
    }
    const error = live ? ',error="insufficient_scope"' : text ? ',error="invalid_token"' : '';
    const challenges = [
      options.challenge ??
        `Bearer realm="{realm}",service="fake registry"${scope && ',scope="{scope}"'}${error}`,
    ].flat();
    return errorAnswer(401, 'UNAUTHORIZED', 'authentication required', {
      'www-authenticate': challenges.map((each) =>
        each.replaceAll('{realm}', realm).replaceAll('{scope}', scope),
      ),
    });
  }

  /** Returns the response of the token server. */
  token(method: string, url: URL, authorization: string | undefined, body: string): Answer {
    const options = this.#options;
    if (options.type === 'basic') return errorAnswer(404, 'NOT_FOUND', 'no token server here');
    if (method === 'POST') {
      if (options.post === false) return errorAnswer(405, 'UNSUPPORTED', 'method not allowed');
      const form = new URLSearchParams(body);
      const password = form.get('password') ?? '';
      const known =
        form.get('grant_type') === 'refresh_token'
          ? (options.identityTokens ?? []).includes(form.get('refresh_token') ?? '')
          : password !== '' && options.users?.[form.get('username') ?? ''] === password;
      if (!known) return errorAnswer(401, 'UNAUTHORIZED', 'incorrect username or password');
      return this.#issue(options, (form.get('scope') ?? '').split(' '), true, 'access_token');
    }
    const user = basicUser(authorization, options.users ?? {});
    if (authorization !== undefined && user === undefined) {
      return errorAnswer(401, 'UNAUTHORIZED', 'incorrect username or password');
    }
    return this.#issue(
      options,
      url.searchParams.getAll('scope'),
      user !== undefined,
      options.field ?? 'token',
    );
  }

  #issue(options: BearerAuth, asked: readonly string[], known: boolean, field: string): Answer {
    const { private: hidden, expiresIn, uses } = options;
    const granted = asked.filter((scope) => known || !hidden?.test(scope.split(':').slice(1, -1).join(':')));
    const text = `fake.${randomUUID()}`;
    this.#tokens.set(text, {
      scopes: new Set(granted),
      until: Date.now() + (expiresIn ?? 3600) * 1000,
      uses: uses ?? Infinity,
    });
    const body = JSON.stringify({ [field]: text, ...(expiresIn !== undefined && { expires_in: expiresIn }) });
    return { status: 200, headers: json, body: Buffer.from(body) };
  }
}
