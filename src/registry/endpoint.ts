import { backoff, pause } from '../sys/retry.ts';
import { type Challenge, parseChallenges } from './auth/challenge.ts';
import { answerError, refusedByStorage, type Subject, warningTexts } from './http/answer-error.ts';
import { readFailure } from './http/body.ts';
import type { Cookies } from './http/cookies.ts';
import type { Response } from './http/exchange.ts';
import { COMMON_HEADERS, retryRequest, type Transport } from './http/transport.ts';
import type { RequestPolicy } from './registry-options.ts';

/** A request to one endpoint, and how to read its answer. */
export interface Query<T> extends Subject {
  readonly method?: 'GET' | 'HEAD';
  /** Relative to the base of the endpoint: `manifests/latest`. */
  readonly path: string;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Further statuses that count as success, beside 200. */
  readonly also?: readonly number[];
  readonly read: (response: Response) => Promise<T>;
}

/** A 401. */
export interface Refusal {
  /** The Authorization header that was refused; undefined for none. */
  readonly header: string | undefined;
  readonly challenges: readonly Challenge[];
  /** The base of the endpoint. */
  readonly base: URL;
}

/** What to do after a 401: throw an error, send the request with another authorization, or do that after a pause. */
export type Verdict = 'final' | 'again' | 'later';

/** The Authorization headers that one request was sent with so far, in order. */
export type Tried = readonly (string | undefined)[];

/** Chooses the Authorization header for one server. */
export interface Authorization {
  /** Names the credentials behind it; undefined when there are none. */
  readonly used: string | undefined;
  /** The header to send next; undefined for none. */
  header(tried: Tried, signal: AbortSignal): Promise<string | undefined>;
  refused(refusal: Refusal, tried: Tried, signal: AbortSignal): Promise<Verdict>;
  accepted(header: string | undefined): void;
}

/** Limit on the tries of one request with different Authorization headers. */
const MAX_AUTHORIZATIONS = 3;
/** Limit on the reported warnings of one registry. */
const MAX_WARNINGS = 10;

export interface EndpointOptions {
  /** `host[:port]` for messages. */
  readonly name: string;
  /** The base of relative paths; ends in a slash. */
  readonly base: (signal: AbortSignal) => Promise<URL>;
  readonly transport: Transport;
  readonly authorization: Authorization;
  readonly cookies?: Cookies;
  readonly policy: RequestPolicy;
}

/** One repository on one server, with its authorization. Both versions of the protocol use it. */
export class Endpoint {
  readonly name: string;
  readonly #options: EndpointOptions;
  readonly #warnings = new Set<string>();

  constructor(options: EndpointOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /**
   * Sends a request and reads the answer; retries after transient errors, also of `read`.
   *
   * @param retries fewer than those of the policy
   * @throws errors of `answerError`, of the transport and of `read`
   */
  async ask<T>(query: Query<T>, signal: AbortSignal, retries?: number): Promise<T> {
    const base = await this.#options.base(signal);
    const attempt = async () => query.read(await this.#attempt(base, query, signal));
    return retryRequest(attempt, this.#options.policy, signal, retries);
  }

  async #attempt(base: URL, query: Query<unknown>, signal: AbortSignal): Promise<Response> {
    const { authorization } = this.#options;
    const url = new URL(query.path, base);
    for (const tried: (string | undefined)[] = []; ;) {
      const header = await authorization.header(tried, signal);
      tried.push(header);
      const response = await this.#send(url, query, header, signal);
      const { status } = response;
      if (status === 200 || query.also?.includes(status)) {
        authorization.accepted(header);
        this.#passOn(warningTexts(response.headers('warning')));
        return response;
      }
      const body = await readFailure(response);
      const own = response.url.origin === url.origin;
      if (status === 401 && own && tried.length < MAX_AUTHORIZATIONS) {
        const challenges = parseChallenges(response.headers('www-authenticate'));
        const verdict = await authorization.refused({ header, challenges, base }, tried, signal);
        if (verdict === 'later') await this.#pause(tried.length, signal);
        if (verdict !== 'final') continue;
      }
      const error = answerError(response, body, query, authorization.used);
      throw !own && (status === 401 || status === 403) ? refusedByStorage(error) : error;
    }
  }

  async #send(
    url: URL,
    query: Query<unknown>,
    authorization: string | undefined,
    signal: AbortSignal,
  ): Promise<Response> {
    const { transport, cookies } = this.#options;
    const cookie = cookies?.header(url);
    const headers = {
      ...COMMON_HEADERS,
      ...query.headers,
      ...(authorization !== undefined && { authorization }),
      ...(cookie !== undefined && { cookie }),
    };
    const response = await transport.send({ method: query.method ?? 'GET', url, headers }, signal);
    if (response.url.origin === url.origin) cookies?.take(url, response.headers('set-cookie'));
    return response;
  }

  async #pause(count: number, signal: AbortSignal): Promise<void> {
    const { retry, report } = this.#options.policy;
    const message = `${this.name} refused a fresh token as invalid; trying another one`;
    report({ type: 'notice', message });
    await pause(backoff(retry, count), signal);
  }

  /** Sends a request to an address in a manifest, without credentials and cookies. */
  async askElsewhere<T>(url: URL, query: Query<T>, signal: AbortSignal): Promise<T> {
    const { transport, policy } = this.#options;
    const attempt = async () => {
      const headers = { ...COMMON_HEADERS, ...query.headers };
      const response = await transport.send({ method: 'GET', url, headers }, signal);
      if (response.status === 200 || query.also?.includes(response.status)) return query.read(response);
      throw answerError(response, await readFailure(response), query);
    };
    return retryRequest(attempt, policy, signal);
  }

  #passOn(warnings: readonly string[]): void {
    for (const text of warnings) {
      if (this.#warnings.has(text) || this.#warnings.size >= MAX_WARNINGS) continue;
      this.#warnings.add(text);
      this.#options.policy.report({ type: 'notice', message: `${this.name} says: ${text}` });
    }
  }
}
