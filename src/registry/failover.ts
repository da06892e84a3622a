import { DlrootfsError, UsageError } from '../errors.ts';
import type { Report } from '../report/event.ts';
import type { Endpoint, Query } from './endpoint.ts';
import { isTransient } from './http/transport-error.ts';

/** Retries of a request while another endpoint is left. */
const RETRIES_WITH_OTHERS = 1;

/** The error to throw when every endpoint failed. */
export type Explain = (failures: ReadonlyMap<Endpoint, DlrootfsError>) => DlrootfsError;

/** The endpoints of one repository: mirrors, or the registries of an index. When one fails, the next one gets the request. */
export class Failover {
  readonly endpoints: readonly Endpoint[];
  readonly #report: Report;
  readonly #explain: Explain;
  /** Endpoints with a transient error: they come last. */
  readonly #failed = new Set<Endpoint>();
  readonly #complained = new Set<Endpoint>();
  /** The last one that answered: it comes first. */
  #preferred: Endpoint | undefined;

  /**
   * @param endpoints in order of preference
   * @param explain the error when all have failed
   */
  constructor(endpoints: readonly Endpoint[], report: Report, explain: Explain) {
    this.endpoints = endpoints;
    this.#report = report;
    this.#explain = explain;
  }

  /**
   * Sends a request to one endpoint after the other, until one answers.
   *
   * @param query may depend on the endpoint
   * @param turn starts this many places later in the order
   */
  async ask<T>(
    query: Query<T> | ((endpoint: Endpoint) => Query<T>),
    signal: AbortSignal,
    turn = 0,
  ): Promise<T> {
    const attempt = (endpoint: Endpoint, retries: number | undefined) =>
      endpoint.ask(typeof query === 'function' ? query(endpoint) : query, signal, retries);
    return this.first(attempt, signal, turn);
  }

  /** The first result of an endpoint; `attempt` gets the number of its retries while other endpoints are left. */
  async first<T>(
    attempt: (endpoint: Endpoint, retries: number | undefined) => Promise<T>,
    signal: AbortSignal,
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
        if (next) this.#complain(endpoint, error, next);
      }
    }
    throw this.#explain(failures);
  }

  #order(turn: number): readonly Endpoint[] {
    const sound = this.endpoints.filter((endpoint) => !this.#failed.has(endpoint));
    const preferred = Math.max(0, this.#preferred === undefined ? 0 : sound.indexOf(this.#preferred));
    const start = sound.length === 0 ? 0 : (preferred + turn) % sound.length;
    const failed = this.endpoints.filter((endpoint) => this.#failed.has(endpoint));
    return [...sound.slice(start), ...sound.slice(0, start), ...failed];
  }

  #complain(endpoint: Endpoint, error: DlrootfsError, next: Endpoint): void {
    const type = this.#complained.has(endpoint) || error.code === 'NOT_FOUND' ? 'debug' : 'notice';
    this.#complained.add(endpoint);
    this.#report({ type, message: `${error.message}; trying ${next.name} instead` });
  }
}
