import type { SecureContext } from 'node:tls';
import type { buildConnector, Dispatcher, Pool } from 'undici';
import { IntegrityError, NetworkError, printable } from '../../errors.ts';
import { version } from '../../version.ts';
import { inSeconds, RepeatableError, type Retry, RetryBudget, type RetryOptions } from '../../sys/retry.ts';
import { secureContext, tlsSettings, type TlsSettings } from '../config/certificates.ts';
import type { SessionSettings } from '../registry-options.ts';
import { drain } from './answer.ts';
import { Exchange, type Request, type Response, type Route } from './exchange.ts';
import { proxyFor } from './proxy.ts';
import { isUnknownAuthority } from './transport-error.ts';

/** Headers of every request. `identity`, because offsets and digests are those of the stored bytes. */
const COMMON_HEADERS = { 'user-agent': `dlrootfs/${version}`, 'accept-encoding': 'identity' };

const MAX_REDIRECTS = 10;

const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

/** Names of headers that must not reach another origin. */
const PRIVATE_HEADERS = new Set(['authorization', 'cookie', 'proxy-authorization']);

/**
 * Sends requests on behalf of one registry, and follows redirects. It has one pool of connections per server,
 * direct or through a proxy, until the signal of the session aborts. HTTP/1.1 only: one connection per blob
 * is faster than a shared one.
 */
export class Transport {
  readonly tls: TlsSettings;
  readonly settings: SessionSettings;
  readonly #routes = new Map<string, Promise<Route>>();
  readonly #contexts = new Map<boolean, Promise<SecureContext>>();

  constructor(tls: TlsSettings, settings: SessionSettings) {
    this.tls = tls;
    this.settings = settings;
    settings.signal.addEventListener('abort', () => {
      for (const route of this.#routes.values()) {
        route.then(({ dispatcher }) => dispatcher.destroy()).catch(() => undefined);
      }
    });
  }

  /**
   * Sends a request and follows its redirects; returns the final answer. One deadline applies until the final
   * status, interim answers and redirects included.
   *
   * @throws errors of `transportError`, or the signal's reason
   */
  async send(request: Request): Promise<Response> {
    const { connect, headers } = this.settings.timeouts;
    const seen = new Set<string>();
    let left = 2 * (connect + headers);
    let current: Request = { ...request, headers: { ...COMMON_HEADERS, ...request.headers } };
    for (;;) {
      const again = seen.has(current.url.href);
      if (again || seen.size > MAX_REDIRECTS) {
        const how = again ? 'in a loop' : `more than ${MAX_REDIRECTS} times`;
        throw redirectError(`${request.url.host} redirects ${how}`, 'REDIRECTS');
      }
      seen.add(current.url.href);
      const response = await this.#exchange(current, Math.min(left, connect + headers));
      left -= response.time;
      const { status, header } = response;
      const location = REDIRECT_STATUS.has(status) ? header('location') : undefined;
      if (location === undefined) return response;
      await drain(response);
      const address = URL.parse(location, current.url.href);
      if (address) this.settings.secrets.addAddress(address);
      current = redirected(current, status, location);
    }
  }

  async #exchange(request: Request, timeLimit: number): Promise<Response> {
    const { method, url } = request;
    const exchange = new Exchange(request, this.settings, timeLimit);
    let route: Promise<Route> | undefined;
    exchange.send(() => (route = this.#route(url)));
    const response = await exchange.head.catch(async (error: unknown) => {
      if (!isUnknownAuthority(error) || (await route)?.system !== false) throw error;
      if (this.#routes.get(url.origin) === route) this.#routes.set(url.origin, this.#open(url, true));
      throw new RepeatableError(error, 'authorities');
    });
    // A query may hold a signature.
    const place = `${url.origin}${url.pathname}${url.search && '?…'}`;
    const message = `${method} ${place} ${response.status} ${Math.round(response.time)} ms`;
    this.settings.report({ type: 'debug', message });
    return response;
  }

  /** Returns the route to the server of `url`; opens it once. */
  #route(url: URL): Promise<Route> {
    if (this.settings.signal.aborted) return Promise.reject(this.settings.signal.reason);
    const route = this.#routes.get(url.origin) ?? this.#open(url, false);
    this.#routes.set(url.origin, route);
    return route;
  }

  /**
   * @param system trust the authorities of the system besides the bundled ones; through a proxy they are
   * always trusted
   */
  async #open(url: URL, system: boolean): Promise<Route> {
    const { options, report, secrets } = this.settings;
    const proxy = proxyFor(url, options.environment);
    if (!proxy) return { dispatcher: await this.#openDirect(url, system), proxy, system };
    const { username, password } = proxy.url;
    secrets.addPassword(decodeURIComponent(username), decodeURIComponent(password));
    const place = `${proxy.url.protocol}//${proxy.url.host}`;
    report({ type: 'debug', message: `${url.host} through the proxy ${place}, from ${proxy.variable}` });
    return { dispatcher: await this.#openProxy(proxy.url), proxy, system: true };
  }

  async #openDirect(url: URL, system: boolean): Promise<Dispatcher> {
    const { default: OriginPool } = await import('undici/lib/dispatcher/pool.js');
    const options: Pool.Options = {
      allowH2: false,
      autoSelectFamily: true,
      connectTimeout: this.settings.timeouts.connect,
    };
    if (url.protocol === 'http:') return new OriginPool(url.origin, options);
    return new OriginPool(url.origin, { ...options, connect: await this.#secureConnect(system) });
  }

  async #openProxy(proxy: URL): Promise<Dispatcher> {
    const { default: OriginPool } = await import('undici/lib/dispatcher/pool.js');
    const { default: ProxyAgent } = await import('undici/lib/dispatcher/proxy-agent.js');
    const { default: connect } = await import('undici/lib/api/api-connect.js');
    const tls = {
      secureContext: await this.#context(true),
      rejectUnauthorized: this.tls.verify,
      allowH2: false,
    };
    return new ProxyAgent({
      uri: proxy.href,
      // undici's index, which is not loaded, adds this method to every dispatcher.
      clientFactory: (origin, options) => Object.assign(new OriginPool(origin, options), { connect }),
      allowH2: false,
      connectTimeout: this.settings.timeouts.connect,
      requestTls: tls,
      // With this option it would speak TLS to a SOCKS proxy too.
      ...(proxy.protocol !== 'socks5:' && { proxyTls: { ...tls, rejectUnauthorized: true } }),
    });
  }

  async #secureConnect(system: boolean): Promise<buildConnector.connector> {
    const { default: build } = await import('undici/lib/core/connect.js');
    const connect = build({
      secureContext: await this.#context(system),
      rejectUnauthorized: this.tls.verify,
      allowH2: false,
      autoSelectFamily: true,
      timeout: this.settings.timeouts.connect,
    });
    return (options, callback) => {
      connect(options, (...outcome) => {
        const [, socket] = outcome;
        // The close that follows a TLS alert must not hide it.
        socket?.on('error', () => socket.destroy());
        callback(...outcome);
      });
    };
  }

  #context(system: boolean): Promise<SecureContext> {
    const known = this.#contexts.get(system) ?? secureContext(this.tls, system);
    this.#contexts.set(system, known);
    return known;
  }
}

function redirectError(message: string, code?: string): NetworkError {
  return new NetworkError(message, {
    ...(code !== undefined && { code }),
    hint: 'report it to the operator of the registry or of the proxy before it',
  });
}

/**
 * Returns the request for the target of a redirect. Private headers go only to the origin they were meant for
 * (OCI distribution specification, "pulling blobs").
 *
 * @throws NetworkError for a redirect from https to http, to something other than a web address, or of a POST
 * to another origin
 */
export function redirected(request: Request, status: number, location: string): Request {
  const { url: from, method, headers } = request;
  const to = URL.parse(location, from.href);
  if (!to || !/^https?:$/.test(to.protocol)) {
    const place = printable(location.split('?')[0]!, 120);
    throw redirectError(`${from.host} redirects to ${place}, which is not a web address`);
  }
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw redirectError(`refused: ${from.host} redirects from https to plain http at ${to.host}`);
  }
  to.username = '';
  to.password = '';
  to.hash = '';
  const sameOrigin = to.origin === from.origin;
  if (method === 'POST') {
    if (sameOrigin && (status === 307 || status === 308)) return { ...request, url: to };
    throw redirectError(
      `refused: ${from.host} redirects a token request, which holds credentials, to ${to.host}`,
    );
  }
  if (sameOrigin) return { ...request, url: to };
  const kept = Object.entries(headers).filter(([name]) => !PRIVATE_HEADERS.has(name));
  return { ...request, url: to, headers: Object.fromEntries(kept) };
}

/**
 * Prepares connections on behalf of `registry` (`host[:port]`) with its certificates.
 *
 * @param insecure do not check the server's certificate
 * @throws UsageError for unusable certificate files
 */
export async function openTransport(
  registry: string,
  insecure: boolean,
  settings: SessionSettings,
): Promise<Transport> {
  return new Transport(await tlsSettings(registry, settings.options, insecure), settings);
}

/**
 * Calls `attempt` until it succeeds, fails for good, or the retries are used up; then throws its last error.
 * Without a `limit`, a document with wrong bytes is requested once more.
 *
 * @param limit on the retries, if lower than that of the policy; may depend on the error
 * @throws the signal's reason as soon as it aborts
 */
export async function retryRequest<T>(
  attempt: () => Promise<T>,
  options: RetryOptions,
  limit: number | ((error: unknown) => number) = Infinity,
): Promise<T> {
  const budget = new RetryBudget(options);
  for (;;) {
    options.signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      const repeats = limit === Infinity && isWrongDocument(error);
      const failure = repeats ? new RepeatableError(error, 'document') : error;
      await budget.again(failure, retryWords, typeof limit === 'number' ? limit : limit(error));
    }
  }
}

function retryWords({ failure, number, most, wait }: Retry): string {
  return `retry ${number} of ${most} in ${inSeconds(wait)}: ${failure.message}`;
}

function isWrongDocument(error: unknown): boolean {
  return error instanceof IntegrityError && ['INTEGRITY', 'DIGEST_MISMATCH'].includes(error.code);
}
