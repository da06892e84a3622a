import { NetworkError } from '../../errors.ts';
import type { Report } from '../../report/event.ts';
import { readAtMost } from './body.ts';
import type { Connections } from './connections.ts';
import { Exchange, type Request, type Response } from './exchange.ts';
import { MAX_REDIRECTS, misguided, redirected } from './redirect.ts';
import type { Timeouts } from '../registry-options.ts';
import type { Slots } from './slots.ts';

/** Bodies of redirects are read up to this many bytes, so that the connection can be used again. */
const MAX_DRAINED = 65_536;
/** Milliseconds for that: a new connection takes less. */
const DRAIN_TIME = 1000;

/** Sends requests on behalf of one registry, and follows where it redirects to. */
export class Transport {
  readonly #connections: Connections;
  readonly #slots: Slots;
  readonly #timeouts: Timeouts;
  readonly #report: Report;

  /** @param slots shared by all transports of a session: the bound on connections */
  constructor(connections: Connections, slots: Slots, timeouts: Timeouts, report: Report) {
    this.#connections = connections;
    this.#slots = slots;
    this.#timeouts = timeouts;
    this.#report = report;
  }

  /** Whatever the server answers, redirects followed. Throws errors of `transportError`, or the signal's reason. */
  async send(request: Request, signal: AbortSignal): Promise<Response> {
    const seen = new Set<string>();
    const { connect, headers } = this.#timeouts;
    // One deadline for all servers on the way; waiting for a slot does not count.
    let left = 2 * (connect + headers);
    for (let current = request; ;) {
      if (seen.has(current.url.href) || seen.size > MAX_REDIRECTS) {
        const why = seen.has(current.url.href) ? 'in a circle' : `more than ${MAX_REDIRECTS} times`;
        throw new NetworkError(`${request.url.host} redirects ${why}`, {
          code: 'REDIRECTS',
          ...misguided,
        });
      }
      seen.add(current.url.href);
      await this.#slots.acquire(signal);
      const start = performance.now();
      const response = await this.#exchange(current, Math.min(left, connect + headers), signal);
      left -= performance.now() - start;
      const next = redirectOf(current, response);
      if (!next) return response;
      await drain(response, this.#timeouts, signal);
      current = next;
    }
  }

  /** Gives the slot back when the exchange is over. */
  async #exchange(request: Request, patience: number, signal: AbortSignal): Promise<Response> {
    const { method, url } = request;
    const start = performance.now();
    const exchange = new Exchange(request, this.#timeouts, signal, () => this.#slots.release(), patience);
    const response = await exchange.send(() => this.#connections.to(url));
    const time = Math.round(performance.now() - start);
    // A query may hold a signature.
    const message = `${method} ${url.origin}${url.pathname}${url.search && '?…'} ${response.status} ${time} ms`;
    this.#report({ type: 'debug', message });
    return response;
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }
}

function redirectOf(request: Request, response: Response): Request | undefined {
  try {
    return redirected(request, response.status, response.header('location'));
  } catch (error) {
    response.discard();
    throw error;
  }
}

/** Reads what is left of a small body, so that its connection can be used again. */
export async function drain(response: Response, timeouts: Timeouts, signal: AbortSignal): Promise<void> {
  const bounded = { ...timeouts, document: Math.min(timeouts.document, DRAIN_TIME) };
  await readAtMost(response, MAX_DRAINED, bounded, signal).catch(() => undefined);
}
