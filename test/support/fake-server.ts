import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createSecureServer, type ServerOptions } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { Faults, send, withFault, type Answer, type Fault } from './fake-fault.ts';

/** A received request. */
export interface LoggedRequest<Name extends string = string> {
  readonly server: Name;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Milliseconds, monotonic. */
  readonly time: number;
  /** Port of the client: one per connection. */
  readonly clientPort: number;
}

export interface FakeServersOptions<Name extends string> {
  /** Names of the servers; each has another port. */
  readonly names: readonly Name[];
  readonly host?: '127.0.0.1' | '::1' | 'localhost' | undefined;
  /** Options of https; default: http. */
  readonly tls?: ServerOptions | undefined;
  readonly faults?: readonly Fault[] | undefined;
  /** Returns the text that a fault's `path` is compared with; default: path and query. */
  readonly subject?: (request: LoggedRequest<Name>) => string;
  /** Awaited before a request is answered. */
  readonly hold?: ((request: LoggedRequest<Name>) => Promise<void>) | undefined;
  readonly answer: (request: LoggedRequest<Name>, fault: Fault | undefined) => Answer;
}

async function read(request: IncomingMessage): Promise<string> {
  request.setEncoding('utf8');
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

/**
 * The HTTP(S) servers of a fake registry, on loopback in this process, with one log and one list of faults.
 */
export class FakeServers<Name extends string> {
  /** All requests to the servers, in their order. */
  readonly requests: LoggedRequest<Name>[] = [];
  readonly #options: FakeServersOptions<Name>;
  readonly #faults = new Faults();
  readonly #servers = new Map<Name, Server>();
  readonly #ports = new Map<Name, number>();

  constructor(options: FakeServersOptions<Name>) {
    this.#options = options;
    for (const fault of options.faults ?? []) this.fault(fault);
    for (const name of options.names) this.#servers.set(name, this.#create(name));
  }

  #create(name: Name): Server {
    const listener = (request: IncomingMessage, response: ServerResponse) => {
      this.#handle(name, request, response).catch(() => response.destroy());
    };
    const { tls } = this.#options;
    return tls ? createSecureServer(tls, listener) : createServer(listener);
  }

  async start(): Promise<void> {
    for (const [name, server] of this.#servers) {
      await new Promise<void>((resolve) => server.listen(0, this.#host, resolve));
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('not listening on a port');
      this.#ports.set(name, address.port);
    }
  }

  get #host(): string {
    return this.#options.host ?? '127.0.0.1';
  }

  /** `host:port` of a server. */
  hostOf(name: Name): string {
    const host = this.#host;
    return `${host.includes(':') ? `[${host}]` : host}:${this.#ports.get(name)}`;
  }

  url(name: Name): string {
    return `${this.#options.tls ? 'https' : 'http'}://${this.hostOf(name)}`;
  }

  /** Adds a fault; faults are tried in their order, at most one for a request. */
  fault(fault: Fault): void {
    this.#faults.add(fault);
  }

  /** Closes the port of one server. */
  async stop(name: Name): Promise<void> {
    const server = this.#servers.get(name)!;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#servers.keys()].map((name) => this.stop(name)));
  }

  async #handle(server: Name, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/', headers } = request;
    const logged = {
      server,
      method,
      path: url,
      headers,
      body: await read(request),
      time: performance.now(),
      clientPort: request.socket.remotePort ?? 0,
    };
    this.requests.push(logged);
    await this.#options.hold?.(logged);
    const fault = this.#faults.take(method, this.#options.subject?.(logged) ?? url);
    if (fault?.delay) await sleep(fault.delay);
    await send(response, withFault(this.#options.answer(logged, fault), fault), fault);
  }
}
