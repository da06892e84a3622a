import { DlrootfsError, isTransient, TransientError, UsageError } from '../errors.ts';
import { answerError, readFailure, type Subject, warningTexts } from './http/answer.ts';
import type { HttpHeaders, Response } from './http/exchange.ts';
import { retryRequest, type Transport } from './http/transport.ts';
import { RepeatableError } from '../sys/retry.ts';
import { DOCUMENT_RANK } from '../sys/request-queue.ts';
import type { SessionSettings } from './registry-options.ts';

/** A request to one endpoint, and how to read its answer. */
export interface Query<T> extends Subject {
  readonly method?: 'GET' | 'HEAD';
  /** Relative to the base of the endpoint: `manifests/latest`. */
  readonly path: string;
  readonly headers?: HttpHeaders;
  /** Statuses other than 200 that count as success. */
  readonly also?: readonly number[];
  readonly read: (response: Response) => Promise<T>;
  /** Returns the error for a failure that the endpoint itself can explain; undefined for any other. */
  readonly explain?: ((status: number, endpoint: Endpoint) => Promise<DlrootfsError | undefined>) | undefined;
  /** Default: the signal of the session. */
  readonly signal?: AbortSignal;
}

/** The answer to a request. */
export interface EndpointResponse {
  readonly response: Response;
  /** Undefined for an expected status, whose body is still unread. */
  readonly error: DlrootfsError | undefined;
  /** True for a 401 of the endpoint itself, not of a server that it redirects to. */
  readonly unauthorized: boolean;
}

/** The authorization of the requests to one server. */
export interface Authorization {
  /** Names the credentials in use; undefined without any. */
  readonly used: string | undefined;
  /**
   * Returns the headers for a request to `url`; undefined if all that it could send were refused.
   *
   * @param refused Authorization headers that were answered 401
   */
  headers(url: URL, refused: readonly Refused[]): Promise<HttpHeaders | undefined>;
  /** Takes note of the answer to a request with these headers. */
  judge(answer: EndpointResponse, url: URL, sent: HttpHeaders): Promise<NextStep>;
}

type Refused = string | undefined;

/**
 * The next step after an answer. `final`: use it. `other`: try again with another Authorization header.
 * `notice`: try again later with the same one, and report this text.
 */
export type NextStep = 'final' | 'other' | { readonly notice: string };

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
   * Returns an endpoint for one address outside the repository, which gets neither credentials nor cookies.
   */
  elsewhere(url: URL): Endpoint {
    const { transport } = this.#options;
    return new Endpoint({ name: url.host, base: () => url, transport });
  }

  /**
   * Sends a request and reads the answer. Tries again after transient errors, also of `read`, and after 401
   * with another Authorization header.
   *
   * @param retries default: as many as the policy allows
   * @throws errors of `answerError`, of the transport and of `read`
   */
  async ask<T>(query: Query<T>, retries?: number): Promise<T> {
    const { base, transport, authorization } = this.#options;
    const { signal = transport.settings.signal } = query;
    const url = new URL(query.path, await base());
    const refused: Refused[] = [];
    let refusal: DlrootfsError | undefined;
    const attempt = async () => {
      const headers = authorization ? await authorization.headers(url, refused) : {};
      if (!headers) throw refusal;
      const answer = await this.#send(url, query, headers);
      const { response, error } = answer;
      const step = (await authorization?.judge(answer, url, headers)) ?? 'final';
      if (step === 'other') refused.push(headers['authorization']);
      if (step !== 'final') {
        refusal = error;
        throw new RepeatableError(error, 'authorization', step === 'other' ? undefined : step.notice);
      }
      if (error) throw (await query.explain?.(response.status, this)) ?? error;
      this.#passOn(warningTexts(response.headers('warning')));
      return query.read(response);
    };
    return retryRequest(attempt, { ...transport.settings, signal }, retries);
  }

  async #send(url: URL, query: Query<unknown>, own: HttpHeaders): Promise<EndpointResponse> {
    const { transport, authorization } = this.#options;
    const { method = 'GET', headers, signal, also } = query;
    const response = await transport.send({ method, url, headers: { ...headers, ...own }, signal });
    const { status } = response;
    if (status === 200 || also?.includes(status)) return { response, error: undefined, unauthorized: false };
    const error = answerError(response, await readFailure(response), query, authorization?.used);
    const redirected = response.url.origin !== url.origin;
    if (redirected && (status === 401 || status === 403)) {
      return { response, error: refusedByStorage(error), unauthorized: false };
    }
    return { response, error, unauthorized: status === 401 };
  }

  #passOn(warnings: readonly string[]): void {
    for (const text of warnings) {
      if (this.#warnings.has(text) || this.#warnings.size >= MAX_WARNINGS) continue;
      this.#warnings.add(text);
      this.#options.transport.settings.report({ type: 'notice', message: `${this.name} says: ${text}` });
    }
  }
}

/**
 * Returns the error for a refusal of the server that a registry redirects to. A retry may succeed: the signed
 * URL may have expired, and a retry gets another.
 */
function refusedByStorage(refusal: DlrootfsError): TransientError {
  return new TransientError(refusal.message, {
    hint: 'run it again; if the storage server refuses again, report it to the operator of the registry',
    cause: refusal,
  });
}

/** The number of retries at one endpoint while others are left. */
const RETRIES_WITH_OTHERS = 1;

/** Makes the error to throw when every endpoint failed, or none exists; `last` is the least preferred one. */
export type Explain = (
  failures: ReadonlyMap<Endpoint, DlrootfsError>,
  last: Endpoint,
  subject: string,
) => DlrootfsError;

/** The order of endpoints for one request. */
interface Preference {
  /** Endpoints to ask after the others, in this order. */
  readonly later?: readonly Endpoint[];
  /** True if the bytes of `later` were wrong: they come even after endpoints with a transient error. */
  readonly isWrong?: boolean;
  /** Endpoints outside the repository: asked when all others failed, and their errors are not reported. */
  readonly foreign?: readonly Endpoint[];
}

/**
 * The endpoints of one repository: mirrors, or the registries that an index names; none offline. If one
 * fails, the next one gets the request.
 */
export class Failover {
  /** The least preferred one; undefined offline. */
  readonly last: Endpoint | undefined;
  readonly #settings: SessionSettings;
  readonly #explain: Explain;
  /** The endpoints in order of preference, rotated so that the last one that answered is first. */
  #order: readonly Endpoint[];
  /** Endpoints whose last answer was a transient error. */
  readonly #failed = new Set<Endpoint>();
  readonly #announced = new Set<Endpoint>();

  /**
   * @param endpoints in order of preference
   * @param explain makes the error when all have failed
   */
  constructor(endpoints: readonly Endpoint[], settings: SessionSettings, explain: Explain) {
    this.last = endpoints.at(-1);
    this.#order = endpoints;
    this.#settings = settings;
    this.#explain = explain;
  }

  /**
   * Requests a document from one endpoint after the other until one answers. Waits for a slot in the queue of
   * all requests.
   */
  async ask<T>(query: Query<T>): Promise<T> {
    const request = () => this.first(query, (endpoint, retries) => endpoint.ask(query, retries));
    return await this.#settings.requests.run(DOCUMENT_RANK, request);
  }

  /**
   * Calls `attempt` with one endpoint after the other; returns the first result. Endpoints whose last answer
   * was a transient error come last.
   *
   * @param attempt gets the number of its retries; undefined for the last endpoint: as many as the policy
   * allows
   * @throws what `explain` makes of the errors; any error that is no DlrootfsError, and UsageError, at once
   */
  async first<T>(
    { subject, signal = this.#settings.signal }: Pick<Query<T>, 'subject' | 'signal'>,
    attempt: (endpoint: Endpoint, retries: number | undefined) => Promise<T>,
    { later = [], isWrong = false, foreign = [] }: Preference = {},
  ): Promise<T> {
    const order = this.#orderWith(later, isWrong);
    const failures = new Map<Endpoint, DlrootfsError>();
    for (const [place, endpoint] of [...order, ...foreign].entries()) {
      const next = order[place + 1];
      try {
        const result = await attempt(endpoint, next && RETRIES_WITH_OTHERS);
        this.#failed.delete(endpoint);
        const start = this.#order.indexOf(endpoint);
        if (later.length === 0 && start > 0)
          this.#order = [...this.#order.slice(start), ...this.#order.slice(0, start)];
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof DlrootfsError) || error instanceof UsageError) throw error;
        if (place >= order.length) continue;
        failures.set(endpoint, error);
        if (isTransient(error)) this.#failed.add(endpoint);
        if (next) this.#announce(endpoint, error, next);
      }
    }
    throw this.#explain(failures, this.last!, subject);
  }

  #orderWith(later: readonly Endpoint[], isWrong: boolean): readonly Endpoint[] {
    const byHealth = (one: Endpoint, other: Endpoint) =>
      Number(this.#failed.has(one)) - Number(this.#failed.has(other));
    const byUse = (one: Endpoint, other: Endpoint) => later.indexOf(one) - later.indexOf(other);
    const [first, second] = isWrong ? [byUse, byHealth] : [byHealth, byUse];
    return this.#order.toSorted((one, other) => first(one, other) || second(one, other));
  }

  #announce(endpoint: Endpoint, error: DlrootfsError, next: Endpoint): void {
    const type = this.#announced.has(endpoint) || error.code === 'NOT_FOUND' ? 'debug' : 'notice';
    this.#announced.add(endpoint);
    this.#settings.report({ type, message: `${error.message}; trying ${next.name} instead` });
  }
}
