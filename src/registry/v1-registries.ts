import { DlrootfsError, NetworkError, UsageError } from '../errors.ts';
import type { Report } from '../report/event.ts';
import type { Query } from './endpoint.ts';
import type { Response } from './http/exchange.ts';
import { isTransient } from './transient.ts';
import type { V1Server } from './v1-server.ts';

/** Tries of a request where another registry is left. */
const RETRIES_WITH_OTHERS = 1;

/** Failures that an error message lists. */
const LISTED_FAILURES = 3;

/** The registries that an index names for a repository: what one does not give is asked from the next. */
export class V1Registries {
  readonly #servers: readonly V1Server[];
  /** These are asked last. */
  readonly #failed = new Set<V1Server>();
  readonly #report: Report;

  constructor(servers: readonly V1Server[], report: Report) {
    this.#servers = servers;
    this.#report = report;
  }

  /**
   * Asks one, then the others; `turn` begins with another one of those that did not fail before. When all fail, throws what the
   * first said that answered at all.
   */
  async ask<T>(
    query: Query | ((server: V1Server) => Query),
    read: (response: Response, server: V1Server) => Promise<T>,
    signal: AbortSignal,
    turn = 0,
  ): Promise<T> {
    const order = this.#order(turn);
    const failures: DlrootfsError[] = [];
    for (const [place, server] of order.entries()) {
      const next = order[place + 1];
      try {
        const result = await server.ask(
          typeof query === 'function' ? query(server) : query,
          (response) => read(response, server),
          signal,
          next ? RETRIES_WITH_OTHERS : undefined,
        );
        this.#failed.delete(server);
        return result;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof DlrootfsError) || error instanceof UsageError) throw error;
        failures.push(error);
        if (next) this.#complain(server, error, next);
        if (isTransient(error)) this.#failed.add(server);
      }
    }
    throw this.#worst(failures);
  }

  #order(turn: number): readonly V1Server[] {
    const well = this.#servers.filter((server) => !this.#failed.has(server));
    const start = well.length === 0 ? 0 : turn % well.length;
    const failed = this.#servers.filter((server) => this.#failed.has(server));
    return [...well.slice(start), ...well.slice(0, start), ...failed];
  }

  #complain(server: V1Server, error: DlrootfsError, next: V1Server): void {
    const type = this.#failed.has(server) || error.code === 'NOT_FOUND' ? 'debug' : 'notice';
    this.#report({ type, message: `${error.message}; asking ${next.base.host} instead` });
  }

  #worst(failures: readonly DlrootfsError[]): DlrootfsError {
    const answer = failures.find((failure) => !(failure instanceof NetworkError));
    if (answer) return answer;
    const [first, ...others] = failures;
    if (others.length === 0) return first!;
    const more = failures.length > LISTED_FAILURES ? '; …' : '';
    const reasons =
      failures
        .slice(0, LISTED_FAILURES)
        .map((failure) => failure.message)
        .join('; ') + more;
    return new NetworkError(
      `none of the ${failures.length} registries that the index names could be asked: ${reasons}`,
      {
        cause: first,
      },
    );
  }
}
