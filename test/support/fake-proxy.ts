import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Certificate } from './certificates.ts';
import { LocalServer } from './local-server.ts';

export interface FakeProxyOptions {
  /** Targets by name: `registry.test:443` to `127.0.0.1:1234`. Other names lead to themselves. */
  readonly hosts?: Readonly<Record<string, string>>;
  /** `user:password` that the proxy requires. */
  readonly credentials?: string;
  /** True: the proxy itself uses TLS. */
  readonly certificate?: Certificate;
  /** Refuses every CONNECT with this status. */
  readonly refuse?: number;
}

/** A forward proxy in this process for CONNECT tunnels, and for plain requests in absolute form. */
export class FakeProxy implements AsyncDisposable {
  /** The requests in their order: `CONNECT registry.test:443`, `GET http://registry.test/v2/`. */
  readonly log: string[] = [];
  readonly #options: FakeProxyOptions;
  #server!: LocalServer;
  readonly #upstream = new Set<Socket>();

  private constructor(options: FakeProxyOptions) {
    this.#options = options;
  }

  static async start(options: FakeProxyOptions = {}): Promise<FakeProxy> {
    const proxy = new FakeProxy(options);
    const forward = (request: IncomingMessage, response: ServerResponse) => proxy.#forward(request, response);
    const server = options.certificate
      ? createSecureServer(options.certificate, forward)
      : createServer(forward);
    server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      proxy.#tunnel(request, socket, head);
    });
    proxy.#server = await LocalServer.start(server);
    return proxy;
  }

  /** The address for HTTPS_PROXY, with credentials if any. */
  url(credentials = this.#options.credentials): string {
    const scheme = this.#options.certificate ? 'https' : 'http';
    return `${scheme}://${credentials === undefined ? '' : `${credentials}@`}${this.#server.host}`;
  }

  #admits(request: IncomingMessage): boolean {
    const { credentials } = this.#options;
    if (credentials === undefined) return true;
    return request.headers['proxy-authorization'] === `Basic ${Buffer.from(credentials).toString('base64')}`;
  }

  #target(host: string): { host: string; port: number } {
    const real = this.#options.hosts?.[host] ?? host;
    const colon = real.lastIndexOf(':');
    return { host: real.slice(0, colon), port: Number(real.slice(colon + 1)) };
  }

  #tunnel(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.log.push(`CONNECT ${request.url}`);
    socket.on('error', () => undefined);
    const status = this.#admits(request) ? this.#options.refuse : 407;
    if (status !== undefined) {
      socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    const upstream = connect(this.#target(request.url ?? ''), () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.write(head);
      upstream.pipe(socket).pipe(upstream);
    });
    upstream.on('error', () => socket.destroy());
    this.#upstream.add(upstream);
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    this.log.push(`${request.method} ${request.url}`);
    if (!this.#admits(request)) {
      response.writeHead(407).end();
      return;
    }
    const url = new URL(request.url ?? '');
    const target = this.#target(`${url.hostname}:${url.port || '80'}`);
    const { 'proxy-authorization': _, ...headers } = request.headers;
    const upstream = httpRequest(
      { ...target, path: url.pathname + url.search, method: request.method, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    upstream.on('error', () => response.destroy());
    request.pipe(upstream);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#upstream) socket.destroy();
    await this.#server[Symbol.asyncDispose]();
  }
}
