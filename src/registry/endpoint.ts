import { DlrootfsError, UsageError } from '../errors.ts';
import { backoff, pause } from '../sys/retry.ts';
import {
  answerError,
  type Challenge,
  parseChallenges,
  readFailure,
  refusedByStorage,
  type Subject,
  warningTexts,
} from './http/answer.ts';
import type { Cookies } from './http/cookies.ts';
import type { Response } from './http/exchange.ts';
import { isTransient } from './http/transport-error.ts';
import { retryRequest, type Transport } from './http/transport.ts';
import type { RequestPolicy } from './registry-options.ts';

/** A request to one endpoint, and how to read its answer. */
export interface Query<T> extends Subject {
  readonly method?: 'GET' | 'HEAD';
  /** Relative to the base of the endpoint: `manifests/latest`. */
  readonly path: string;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Statuses other than 200 that count as success. */
  readonly also?: readonly number[];
  readonly read: (response: Response) => Promise<T>;
  /** Default: that of the session. */
  readonly signal?: AbortSignal;
  /** See `Request`. */
  readonly onSent?: () => void;
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
  header(tried: Tried): Promise<string | undefined>;
  refused(refusal: Refusal, tried: Tried): Promise<Verdict>;
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
  readonly base: () => URL | Promise<URL>;
  readonly transport: Transport;
  /** Left out: requests carry no credentials. */
  readonly authorization?: Authorization;
  readonly cookies?: Cookies;
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

  /** The address in a manifest, as an endpoint that gets neither credentials nor cookies. */
  elsewhere(url: URL): Endpoint {
    const { transport } = this.#options;
    return new Endpoint({ name: url.host, base: () => url, transport });
  }

  /**
   * Sends a request and reads the answer; retries after transient errors, also of `read`.
   *
   * @param retries fewer than those of the policy
   * @throws errors of `answerError`, of the transport and of `read`
   */
  async ask<T>(query: Query<T>, retries?: number): Promise<T> {
    const { base, transport } = this.#options;
    const { signal = transport.policy.signal } = query;
    const root = await base();
    const attempt = async () => query.read(await this.#attempt(root, query));
    return retryRequest(attempt, { ...transport.policy, signal }, retries);
  }

  async #attempt(base: URL, query: Query<unknown>): Promise<Response> {
    const { authorization } = this.#options;
    const url = new URL(query.path, base);
    for (const tried: (string | undefined)[] = []; ;) {
      const header = await authorization?.header(tried);
      tried.push(header);
      const response = await this.#send(url, query, header);
      const { status } = response;
      if (status === 200 || query.also?.includes(status)) {
        authorization?.accepted(header);
        this.#passOn(warningTexts(response.headers('warning')));
        return response;
      }
      const body = await readFailure(response);
      const own = response.url.origin === url.origin;
      if (status === 401 && own && authorization && tried.length < MAX_AUTHORIZATIONS) {
        const challenges = parseChallenges(response.headers('www-authenticate'));
        const verdict = await authorization.refused({ header, challenges, base }, tried);
        if (verdict === 'later') await this.#pause(tried.length, query.signal);
        if (verdict !== 'final') continue;
      }
      const error = answerError(response, body, query, authorization?.used);
      throw !own && (status === 401 || status === 403) ? refusedByStorage(error) : error;
    }
  }

  async #send(
    url: URL,
    { method = 'GET', headers, signal, onSent }: Query<unknown>,
    authorization: string | undefined,
  ): Promise<Response> {
    const { transport, cookies } = this.#options;
    const cookie = cookies?.header(url);
    const own = {
      ...(authorization !== undefined && { authorization }),
      ...(cookie !== undefined && { cookie }),
    };
    const response = await transport.send({ method, url, headers: { ...headers, ...own }, signal, onSent });
    if (response.url.origin === url.origin) cookies?.take(url, response.headers('set-cookie'));
    return response;
  }

  async #pause(count: number, own: AbortSignal | undefined): Promise<void> {
    const { retry, report, signal } = this.#options.transport.policy;
    const message = `${this.name} refused a fresh token as invalid; trying another one`;
    report({ type: 'notice', message });
    await pause(backoff(retry, count), own ?? signal);
  }

  #passOn(warnings: readonly string[]): void {
    for (const text of warnings) {
      if (this.#warnings.has(text) || this.#warnings.size >= MAX_WARNINGS) continue;
      this.#warnings.add(text);
      this.#options.transport.policy.report({ type: 'notice', message: `${this.name} says: ${text}` });
    }
  }
}

/** Retries of a request while another endpoint is left. */
const RETRIES_WITH_OTHERS = 1;

/** The error to throw when every endpoint failed; `last` is the least preferred one. */
export type Explain = (failures: ReadonlyMap<Endpoint, DlrootfsError>, last: Endpoint) => DlrootfsError;

/** The endpoints of one repository: mirrors, or the registries of an index. When one fails, the next one gets the request. */
export class Failover {
  readonly endpoints: readonly Endpoint[];
  readonly #policy: RequestPolicy;
  readonly #explain: Explain;
  /** Endpoints with a transient error: they come last. */
  readonly #failed = new Set<Endpoint>();
  readonly #announced = new Set<Endpoint>();
  /** The last one that answered: it comes first. */
  #preferred: Endpoint | undefined;

  /**
   * @param endpoints in order of preference
   * @param explain the error when all have failed
   */
  constructor(endpoints: readonly Endpoint[], policy: RequestPolicy, explain: Explain) {
    this.endpoints = endpoints;
    this.#policy = policy;
    this.#explain = explain;
  }

  /** Sends a request to one endpoint after the other, until one answers. */
  async ask<T>(query: Query<T>): Promise<T> {
    return this.first((endpoint, retries) => endpoint.ask(query, retries), query.signal);
  }

  /**
   * The first result of an endpoint.
   *
   * @param attempt gets the number of its retries while other endpoints are left
   * @param turn starts this many places later in the order
   */
  async first<T>(
    attempt: (endpoint: Endpoint, retries: number | undefined) => Promise<T>,
    signal = this.#policy.signal,
    turn = 0,
  ): Promise<T> {
    const order = this.#order(turn);
    const failures = new Map<Endpoint, DlrootfsError>();
    for (const [place, endpoint] of order.entries()) {
      const next = order[place + 1];
      try {
        const result = await attempt(endpoint, next && RETRIES_WITH_OTHERS);
        this.#failed.delete(endpoint);
        if (turn === 0) this.#preferred = endpoint;
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof DlrootfsError) || error instanceof UsageError) throw error;
        failures.set(endpoint, error);
        if (isTransient(error)) this.#failed.add(endpoint);
        if (next) this.#announce(endpoint, error, next);
      }
    }
    throw this.#explain(failures, this.endpoints.at(-1)!);
  }

  #order(turn: number): readonly Endpoint[] {
    const healthy = this.endpoints.filter((endpoint) => !this.#failed.has(endpoint));
    const preferred = Math.max(0, this.#preferred === undefined ? 0 : healthy.indexOf(this.#preferred));
    const start = healthy.length === 0 ? 0 : (preferred + turn) % healthy.length;
    const failed = this.endpoints.filter((endpoint) => this.#failed.has(endpoint));
    return [...healthy.slice(start), ...healthy.slice(0, start), ...failed];
  }

  #announce(endpoint: Endpoint, error: DlrootfsError, next: Endpoint): void {
    const type = this.#announced.has(endpoint) || error.code === 'NOT_FOUND' ? 'debug' : 'notice';
    this.#announced.add(endpoint);
    this.#policy.report({ type, message: `${error.message}; trying ${next.name} instead` });
  }
}
