import { DlrootfsError, UsageError } from '../errors.ts';
import type { Report } from '../report/event.ts';
import type { Contact, Endpoint, Query } from './endpoint.ts';
import type { Response } from './http/exchange.ts';

/** Tries of a request where another source is left. */
const RETRIES_WITH_OTHERS = 1;

/** A registry and its mirrors: what one does not give is asked from the next. */
export class Mirrored {
  readonly #endpoints: readonly Endpoint[];
  readonly #report: Report;
  readonly #complained = new Set<Endpoint>();
  #preferred = 0;

  /** @param endpoints in the order to ask; the last is the registry itself */
  constructor(endpoints: readonly Endpoint[], report: Report) {
    this.#endpoints = endpoints;
    this.#report = report;
  }

  /** The registry of the reference. */
  get registry(): Endpoint {
    return this.#endpoints.at(-1)!;
  }

  /** Greets until one answers. */
  async contact(signal: AbortSignal): Promise<Contact> {
    return this.#firstOf(0, signal, (endpoint) => endpoint.contact(signal));
  }

  /**
   * Asks the source that answered last, then the others; `turn` begins further down the list. `query` may depend on the source.
   * When all fail, throws the error of the registry itself.
   */
  async ask<T>(
    query: Query | ((endpoint: Endpoint) => Query),
    read: (response: Response, endpoint: Endpoint) => Promise<T>,
    signal: AbortSignal,
    turn = 0,
  ): Promise<T> {
    return this.#firstOf(turn, signal, (endpoint, last) => {
      const asked = typeof query === 'function' ? query(endpoint) : query;
      const retries = last ? undefined : RETRIES_WITH_OTHERS;
      return endpoint.ask(asked, (response) => read(response, endpoint), signal, retries);
    });
  }

  async #firstOf<T>(
    turn: number,
    signal: AbortSignal,
    attempt: (endpoint: Endpoint, last: boolean) => Promise<T>,
  ): Promise<T> {
    const count = this.#endpoints.length;
    const start = this.#preferred + turn;
    let failure: unknown;
    for (let n = 0; n < count; n += 1) {
      const place = (start + n) % count;
      const endpoint = this.#endpoints[place]!;
      try {
        const result = await attempt(endpoint, n === count - 1);
        if (turn === 0) this.#preferred = place;
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof DlrootfsError) || error instanceof UsageError) throw error;
        if (failure === undefined || endpoint === this.registry) failure = error;
        if (n < count - 1) this.#complain(endpoint, error, this.#endpoints[(place + 1) % count]!);
      }
    }
    throw failure;
  }

  #complain(endpoint: Endpoint, error: DlrootfsError, next: Endpoint): void {
    const type = this.#complained.has(endpoint) || error.code === 'NOT_FOUND' ? 'debug' : 'notice';
    this.#complained.add(endpoint);
    this.#report({ type, message: `${error.message}; asking ${next.name} instead` });
  }

  async close(): Promise<void> {
    await Promise.all(this.#endpoints.map((endpoint) => endpoint.close()));
  }
}
