import type { SecureContext } from 'node:tls';
import type { buildConnector, Dispatcher, Pool } from 'undici';
import { NetworkError } from '../errors.ts';
import { proxyFor } from './proxy.ts';
import type { RegistryOptions, Timeouts } from './registry-options.ts';
import { secureContext, type TlsSettings } from './tls.ts';
import { isUnknownAuthority } from './transport-error.ts';

/**
 * The open connections made on behalf of one registry: one pool for each server it sends us to, straight or through a proxy.
 * HTTP/1.1 only: each blob has a connection to itself, which is faster than sharing one.
 */
export class Connections {
  readonly #environment: RegistryOptions['environment'];
  readonly #timeouts: Timeouts;
  readonly #tls: TlsSettings;
  readonly #pools = new Map<string, Promise<Dispatcher>>();
  #closed = false;
  readonly #contexts = new Map<boolean, Promise<SecureContext>>();

  constructor(environment: RegistryOptions['environment'], timeouts: Timeouts, tls: TlsSettings) {
    this.#environment = environment;
    this.#timeouts = timeouts;
    this.#tls = tls;
  }

  /** What to dispatch requests to `url` on. */
  async to(url: URL): Promise<Dispatcher> {
    if (this.#closed) throw new NetworkError('the session with the registry is closed');
    const known = this.#pools.get(url.origin);
    if (known) return known;
    const opening = this.#open(url);
    this.#pools.set(url.origin, opening);
    return opening;
  }

  async #open(url: URL): Promise<Dispatcher> {
    const proxy = proxyFor(url, this.#environment);
    if (proxy) return this.#openProxy(proxy);
    const { default: OriginPool } = await import('undici/lib/dispatcher/pool.js');
    const options: Pool.Options = {
      allowH2: false,
      autoSelectFamily: true,
      connectTimeout: this.#timeouts.connect,
    };
    if (url.protocol === 'http:') return new OriginPool(url.origin, options);
    return new OriginPool(url.origin, { ...options, connect: await this.#secureConnect() });
  }

  async #openProxy(proxy: URL): Promise<Dispatcher> {
    const { ProxyAgent } = await import('undici');
    const tls = {
      secureContext: await this.#context(true),
      rejectUnauthorized: this.#tls.verify,
      allowH2: false,
    };
    return new ProxyAgent({
      uri: proxy.href,
      allowH2: false,
      connectTimeout: this.#timeouts.connect,
      requestTls: tls,
      proxyTls: { ...tls, rejectUnauthorized: true },
    });
  }

  /** Connects with the bundled authorities, and once more with the system's when those do not know the server's. */
  async #secureConnect(): Promise<buildConnector.connector> {
    const { default: build } = await import('undici/lib/core/connect.js');
    const { verify } = this.#tls;
    const connectWith = (context: SecureContext) =>
      build({
        secureContext: context,
        rejectUnauthorized: verify,
        allowH2: false,
        autoSelectFamily: true,
        timeout: this.#timeouts.connect,
      });
    let wide = !verify;
    let connect = connectWith(await this.#context(false));
    const widen = async () => {
      connect = connectWith(await this.#context(true));
      wide = true;
    };
    return (options, callback) => {
      connect(options, (...outcome) => {
        const [error, socket] = outcome;
        // A TLS alert must not be hidden by the close that follows it.
        socket?.on('error', () => socket.destroy());
        if (wide || !isUnknownAuthority(error)) callback(...outcome);
        else void widen().finally(() => connect(options, callback));
      });
    };
  }

  #context(system: boolean): Promise<SecureContext> {
    const known = this.#contexts.get(system) ?? secureContext(this.#tls, system);
    this.#contexts.set(system, known);
    return known;
  }

  /** Ends all exchanges and closes all sockets; no other is opened afterwards. */
  async close(): Promise<void> {
    this.#closed = true;
    const pools = await Promise.allSettled(this.#pools.values());
    this.#pools.clear();
    const open = pools.filter((pool) => pool.status === 'fulfilled');
    await Promise.all(open.map((pool) => pool.value.destroy()));
  }
}
