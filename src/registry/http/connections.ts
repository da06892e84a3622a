import { BlockList, isIP } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { buildConnector, Dispatcher, Pool } from 'undici';
import { NetworkError, UsageError } from '../../errors.ts';
import { hostnameOf, isLoopback } from '../../oci/reference.ts';
import { reasonOf } from '../../sys/os-error.ts';
import type { Route } from './exchange.ts';
import type { RegistryOptions, Timeouts } from '../registry-options.ts';
import type { TlsSettings } from '../config/certificates.ts';
import { isUnknownAuthority } from './transport-error.ts';

/**
 * The open connections on behalf of one registry: one pool per server it redirects to, direct or through a proxy.
 * HTTP/1.1 only: a connection per blob is faster than a shared one.
 */
export class Connections {
  readonly #environment: RegistryOptions['environment'];
  readonly #timeouts: Timeouts;
  readonly #tls: TlsSettings;
  readonly #routes = new Map<string, Promise<Route>>();
  #closed = false;
  readonly #contexts = new Map<boolean, Promise<SecureContext>>();

  constructor(environment: RegistryOptions['environment'], timeouts: Timeouts, tls: TlsSettings) {
    this.#environment = environment;
    this.#timeouts = timeouts;
    this.#tls = tls;
  }

  /** The route to the server of `url`. */
  async to(url: URL): Promise<Route> {
    if (this.#closed) throw new NetworkError('the session with the registry is closed');
    const known = this.#routes.get(url.origin);
    if (known) return known;
    const opening = this.#open(url);
    this.#routes.set(url.origin, opening);
    return opening;
  }

  async #open(url: URL): Promise<Route> {
    const proxy = proxyFor(url, this.#environment);
    return proxy
      ? { dispatcher: await this.#openProxy(proxy), proxy: proxy.host }
      : { dispatcher: await this.#openDirect(url), proxy: undefined };
  }

  async #openDirect(url: URL): Promise<Dispatcher> {
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
    const { default: OriginPool } = await import('undici/lib/dispatcher/pool.js');
    const { default: ProxyAgent } = await import('undici/lib/dispatcher/proxy-agent.js');
    const { default: connect } = await import('undici/lib/api/api-connect.js');
    const tls = {
      secureContext: await this.#context(true),
      rejectUnauthorized: this.#tls.verify,
      allowH2: false,
    };
    return new ProxyAgent({
      uri: proxy.href,
      // undici's index, which is not loaded, would give every dispatcher this method.
      clientFactory: (origin, options) => Object.assign(new OriginPool(origin, options), { connect }),
      allowH2: false,
      connectTimeout: this.#timeouts.connect,
      requestTls: tls,
      // With these it would speak TLS to a SOCKS proxy too.
      ...(proxy.protocol !== 'socks5:' && { proxyTls: { ...tls, rejectUnauthorized: true } }),
    });
  }

  /** Connects with the bundled authorities, and again with the system's if those do not know the server's. */
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
    let withSystem = !verify;
    let connect = connectWith(await this.#context(false));
    const addSystem = async () => {
      connect = connectWith(await this.#context(true));
      withSystem = true;
    };
    return (options, callback) => {
      connect(options, (...outcome) => {
        const [error, socket] = outcome;
        // A TLS alert must not be hidden by the close that follows it.
        socket?.on('error', () => socket.destroy());
        if (withSystem || !isUnknownAuthority(error)) callback(...outcome);
        else void addSystem().finally(() => connect(options, callback));
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
    const routes = await Promise.allSettled(this.#routes.values());
    this.#routes.clear();
    const open = routes.filter((route) => route.status === 'fulfilled');
    await Promise.all(open.map((route) => route.value.dispatcher.destroy()));
  }
}

/**
 * The context for connections with these settings.
 *
 * @param system use the system's authorities too: they are slow to read, and the bundled ones are nearly always enough
 */
async function secureContext(settings: TlsSettings, system: boolean): Promise<SecureContext> {
  const { createSecureContext, getCACertificates } = await import('node:tls');
  const { authorities, clientCertificate } = settings;
  const plain = authorities.length === 0 && !system;
  const all = () => [
    ...getCACertificates('bundled'),
    ...(system ? getCACertificates('system') : []),
    ...authorities,
  ];
  try {
    return createSecureContext({ ...clientCertificate, ...(!plain && { ca: [...new Set(all())] }) });
  } catch (error) {
    throw new UsageError(`cannot use the certificate or key: ${reasonOf(error)}`, {
      hint: 'give PEM files, and the key of the certificate, without a passphrase',
      cause: error,
    });
  }
}

/**
 * The proxy to use for `url`, by HTTPS_PROXY for https and HTTP_PROXY for http (lower case too), but for what NO_PROXY exempts and
 * for loopback: the rules of Go's httpproxy, which docker and skopeo follow.
 *
 * @throws UsageError for an invalid address
 */
export function proxyFor(url: URL, environment: RegistryOptions['environment']): URL | undefined {
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const value = environment[name] || environment[name.toLowerCase()];
  if (!value || isLoopback(url.host)) return undefined;
  if (exempt(url, environment['NO_PROXY'] || environment['no_proxy'] || '')) return undefined;
  const text = value.includes('://') ? value : `http://${value}`;
  const proxy = URL.parse(text.replace(/^socks5h:/i, 'socks5:'));
  if (!proxy?.hostname || !/^(?:https?|socks5):$/.test(proxy.protocol)) {
    throw new UsageError(`${name} is not the address of a proxy`, {
      hint: 'write it as http://proxy.example.com:3128',
    });
  }
  if (!isDecodable(proxy.username) || !isDecodable(proxy.password)) {
    throw new UsageError(`${name} has a user name or password that is not percent-encoded UTF-8`, {
      hint: 'write %25 for %',
    });
  }
  return proxy;
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

function exempt(url: URL, noProxy: string): boolean {
  const host = hostnameOf(url.host);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return noProxy
    .split(/[,\s]+/)
    .filter(Boolean)
    .some((entry) => matches(entry.toLowerCase(), host, port));
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  const network = /^([\da-f.:]+)\/(\d{1,3})$/.exec(entry);
  if (network) return inNetwork(host, network[1]!, Number(network[2]));
  const [, bracketed, plain, wanted] =
    /^(?:\[([^\]]+)\]|([^:]+|[\da-f:]*:[\da-f:]*:[\da-f:]*))(?::(\d+))?$/.exec(entry) ?? [];
  if (wanted !== undefined && wanted !== port) return false;
  const name = bracketed ?? plain;
  if (name === undefined) return false;
  if (name.startsWith('.') || name.startsWith('*.')) return host.endsWith(name.replace(/^\*/, ''));
  return host === name || (isIP(name) === 0 && host.endsWith(`.${name}`));
}

function inNetwork(host: string, address: string, prefix: number): boolean {
  const family = isIP(address);
  if (family === 0 || isIP(host) !== family || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(address, prefix, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, family === 4 ? 'ipv4' : 'ipv6');
}
