import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** The link that a proxy imitates. */
export interface LinkSpeed {
  /** Megabits per second of each connection; of all connections together if `shared`. */
  readonly rateMbit: number;
  readonly shared?: boolean;
  /**
   * Round trip in milliseconds: a new connection waits for one, and each burst of the client for another one.
   */
  readonly rttMs: number;
}

export interface Link extends AsyncDisposable {
  readonly port: number;
}

/**
 * Starts a TCP proxy on loopback that limits answers to the speed of `link`. At 1 Gbit/s it takes a fifth of
 * a processor, equally from all candidates. netem would not, but needs a kernel module that few machines
 * have.
 */
export async function openLink(targetPort: number, link: LinkSpeed): Promise<Link> {
  const open = new Set<Socket>();
  const together = new Pace(link.rateMbit);
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (client) => {
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    for (const socket of [client, target]) {
      open.add(socket);
      socket.once('close', () => open.delete(socket));
    }
    const hangUp = () => {
      client.destroy();
      target.destroy();
    };
    client.once('error', hangUp);
    target.once('error', hangUp);
    void sleep(link.rttMs)
      .then(() =>
        Promise.all([
          carryUp(client, target, link.rttMs),
          carryDown(target, client, link.shared === true ? together : new Pace(link.rateMbit)),
        ]),
      )
      .catch(hangUp);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

async function carryUp(client: Socket, target: Socket, rttMs: number): Promise<void> {
  for await (const bytes of client as AsyncIterable<Uint8Array>) {
    await sleep(rttMs);
    await write(target, bytes);
  }
  target.end();
}

async function carryDown(target: Socket, client: Socket, pace: Pace): Promise<void> {
  for await (const bytes of target as AsyncIterable<Uint8Array>) {
    await pace.wait(bytes.length);
    await write(client, bytes);
  }
  client.end();
}

/** The rate of one connection or of several. */
class Pace {
  readonly #bytesPerMs: number;
  #due = 0;

  constructor(rateMbit: number) {
    this.#bytesPerMs = (rateMbit * 1e6) / 8 / 1000;
  }

  /** Resolves when the rate allows that many further bytes. */
  async wait(bytes: number): Promise<void> {
    const now = performance.now();
    // A timer is up to a few milliseconds late: that much is caught up, idle time is not.
    this.#due = Math.max(this.#due, now - 10) + bytes / this.#bytesPerMs;
    if (this.#due > now) await sleep(this.#due - now);
  }
}

async function write(socket: Socket, bytes: Uint8Array): Promise<void> {
  if (socket.write(bytes) || socket.destroyed) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.once('drain', done);
    socket.once('close', done);
  });
}
