import { commonHeaders } from './common-headers.ts';
import type { Cookies } from './http/cookies.ts';
import type { Manners, Query } from './endpoint.ts';
import type { Response } from './http/exchange.ts';
import { answerError, readFailure } from './http/answer-error.ts';
import { retry } from './retry.ts';
import { refusedByStorage } from './transient.ts';
import { drain, type Transport } from './http/transport.ts';
import type { Authorization } from './v1-authorization.ts';

/** Tries of one request to satisfy a server that asks for authorization. */
const MAX_AUTHORIZATIONS = 3;

/** One server of registry version 1, an index or a registry: asked with the authorization and the cookies that are meant for it. */
export class V1Server {
  /** Ends in `/v1/`. */
  readonly base: URL;
  readonly #transport: Transport;
  readonly #authorization: Authorization;
  readonly #cookies: Cookies;
  readonly #manners: Manners;

  constructor(
    base: URL,
    transport: Transport,
    authorization: Authorization,
    cookies: Cookies,
    manners: Manners,
  ) {
    this.base = base;
    this.#transport = transport;
    this.#authorization = authorization;
    this.#cookies = cookies;
    this.#manners = manners;
  }

  /**
   * Sends a request for a path below `/v1/` and reads the answer; tries again, `retries` times at most, what another try may heal,
   * reading included. Throws the errors of `answerError` and of the transport.
   */
  async ask<T>(
    query: Query,
    read: (response: Response) => Promise<T>,
    signal: AbortSignal,
    retries = Infinity,
  ): Promise<T> {
    const { retry: policy, report } = this.#manners;
    const bound = { ...policy, retries: Math.min(policy.retries, retries) };
    return retry(async () => read(await this.#attempt(query, signal)), bound, signal, report);
  }

  async #attempt(query: Query, signal: AbortSignal): Promise<Response> {
    const { timeouts } = this.#manners;
    const url = new URL(query.path, this.base);
    const tried: (string | undefined)[] = [];
    for (let authorization = this.#authorization.first(); ;) {
      tried.push(authorization);
      const response = await this.#send(url, query, authorization, signal);
      const { status } = response;
      if (status === 200 || query.also?.includes(status)) {
        this.#authorization.accepted(authorization);
        return response;
      }
      const own = response.url.origin === url.origin;
      if (status === 401 && own && tried.length < MAX_AUTHORIZATIONS) {
        const next = await this.#authorization.after(tried, signal);
        if (next !== undefined) {
          await drain(response, timeouts, signal);
          authorization = next;
          continue;
        }
      }
      const body = await readFailure(response, timeouts, signal);
      const error = answerError(response, body, query.subject, this.#authorization.sent);
      if (!own && (status === 401 || status === 403)) throw refusedByStorage(error);
      throw error;
    }
  }

  async #send(
    url: URL,
    query: Query,
    authorization: string | undefined,
    signal: AbortSignal,
  ): Promise<Response> {
    const cookie = this.#cookies.header(url);
    const headers = {
      ...commonHeaders,
      ...query.headers,
      ...(authorization !== undefined && { authorization }),
      ...(cookie !== undefined && { cookie }),
    };
    const response = await this.#transport.send({ method: 'GET', url, headers }, signal);
    if (response.url.origin === url.origin) this.#cookies.take(url, response.headers('set-cookie'));
    return response;
  }
}
