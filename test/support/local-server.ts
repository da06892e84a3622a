import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A listening server of TCP, HTTP or HTTPS on a free port of 127.0.0.1. Disposal closes its connections too. */
export class LocalServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(server: Server): Promise<LocalServer> {
    const started = new LocalServer(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return started;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** `127.0.0.1:PORT`. */
  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  closeConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closeConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Returns `127.0.0.1:PORT` of a port on which no server listens. */
export async function closedHost(): Promise<string> {
  await using server = await LocalServer.start(createServer());
  return server.host;
}

/** Calls `answer` with the path of each HTTP request that a connection sends. Requests have no bodies. */
export function onRequest(socket: Socket, answer: (path: string) => void): void {
  let head = '';
  socket.on('data', (data) => {
    head += data.toString('latin1');
    for (let end = head.indexOf('\r\n\r\n'); end >= 0; end = head.indexOf('\r\n\r\n')) {
      const [, path = '/'] = head.slice(0, end).split(' ');
      head = head.slice(end + 4);
      answer(path);
    }
  });
}
