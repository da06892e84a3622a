import type { SecureContext } from 'node:tls';
import type { buildConnector, Dispatcher, Pool } from 'undici';
import { type DlrootfsError, IntegrityError, NetworkError, printable } from '../../errors.ts';
import { version } from '../../version.ts';
import { backoff, inSeconds, MAX_WAIT, pause } from '../../sys/retry.ts';
import { secureContext, tlsSettings, type TlsSettings } from '../config/certificates.ts';
import type { SessionSettings } from '../registry-options.ts';
import { drain } from './answer.ts';
import { Exchange, type Request, type Response, type Route } from './exchange.ts';
import { proxyFor } from './proxy.ts';
import { isTransient, isUnknownAuthority } from './transport-error.ts';

/** Headers of every request. `identity`: offsets and digests are those of the stored bytes. */
const COMMON_HEADERS = { 'user-agent': `dlrootfs/${version}`, 'accept-encoding': 'identity' };

const MAX_REDIRECTS = 10;

const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

/** Names of headers that must not reach another origin. */
const PRIVATE_HEADERS = new Set(['authorization', 'cookie', 'proxy-authorization']);

/**
 * Sends requests on behalf of one registry, and follows its redirects. It has one pool of connections per server, direct or through a
 * proxy, until the signal of the session aborts. HTTP/1.1 only: a connection per blob is faster than a shared one.
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
   * The answer of the server, redirects followed. One deadline counts until the final status, interim answers and redirects
   * included; waiting for a slot does not count.
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
    exchange.send(() => this.#route(url));
    const response = await exchange.head;
    // A query may hold a signature.
    const place = `${url.origin}${url.pathname}${url.search && '?…'}`;
    const message = `${method} ${place} ${response.status} ${Math.round(response.time)} ms`;
    this.settings.report({ type: 'debug', message });
    return response;
  }

  /** The route to the server of `url`. */
  async #route(url: URL): Promise<Route> {
    this.settings.signal.throwIfAborted();
    const route = this.#routes.get(url.origin) ?? this.#open(url);
    this.#routes.set(url.origin, route);
    return route;
  }

  async #open(url: URL): Promise<Route> {
    const { options, report, secrets } = this.settings;
    const proxy = proxyFor(url, options.environment);
    if (!proxy) return { dispatcher: await this.#openDirect(url), proxy };
    const { username, password } = proxy.url;
    secrets.addPassword(decodeURIComponent(username), decodeURIComponent(password));
    const place = `${proxy.url.protocol}//${proxy.url.host}`;
    report({ type: 'debug', message: `${url.host} through the proxy ${place}, from ${proxy.variable}` });
    return { dispatcher: await this.#openProxy(proxy.url), proxy };
  }

  async #openDirect(url: URL): Promise<Dispatcher> {
    const { default: OriginPool } = await import('undici/lib/dispatcher/pool.js');
    const options: Pool.Options = {
      allowH2: false,
      autoSelectFamily: true,
      connectTimeout: this.settings.timeouts.connect,
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
      rejectUnauthorized: this.tls.verify,
      allowH2: false,
    };
    return new ProxyAgent({
      uri: proxy.href,
      // undici's index, which is not loaded, would give every dispatcher this method.
      clientFactory: (origin, options) => Object.assign(new OriginPool(origin, options), { connect }),
      allowH2: false,
      connectTimeout: this.settings.timeouts.connect,
      requestTls: tls,
      // With these it would speak TLS to a SOCKS proxy too.
      ...(proxy.protocol !== 'socks5:' && { proxyTls: { ...tls, rejectUnauthorized: true } }),
    });
  }

  /** Connects with the bundled authorities, and again with the system's if those do not know the server's. */
  async #secureConnect(): Promise<buildConnector.connector> {
    const { default: build } = await import('undici/lib/core/connect.js');
    const { verify } = this.tls;
    const connectWith = (context: SecureContext) =>
      build({
        secureContext: context,
        rejectUnauthorized: verify,
        allowH2: false,
        autoSelectFamily: true,
        timeout: this.settings.timeouts.connect,
      });
    const bundled = connectWith(await this.#context(false));
    let connect = bundled;
    const addSystem = async () => {
      connect = connectWith(await this.#context(true));
    };
    return (options, callback) => {
      const used = connect;
      used(options, (...outcome) => {
        const [error, socket] = outcome;
        // A TLS alert must not be hidden by the close that follows it.
        socket?.on('error', () => socket.destroy());
        if (used !== bundled || !isUnknownAuthority(error)) callback(...outcome);
        else void addSystem().finally(() => connect(options, callback));
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
 * The request that a redirect asks for. Private headers stay with the origin they were meant
 * for (OCI distribution specification, "pulling blobs").
 *
 * @throws NetworkError for a redirect from https to http, to something other than a web address, or of a POST to another origin
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
 * Prepares connections on behalf of `registry` (`host[:port]`) with the certificates that belong to it.
 *
 * @param insecure leaves the server's certificates unchecked
 * @throws UsageError for unusable certificate files
 */
export async function openTransport(
  registry: string,
  insecure: boolean,
  settings: SessionSettings,
): Promise<Transport> {
  return new Transport(await tlsSettings(registry, settings.options, insecure), settings);
}

/** Limit on all waits for one request together, in milliseconds. */
const MAX_WAITS = 300_000;

/**
 * Calls `attempt` until it succeeds, fails for good, or the retries are used up; then throws its last error. Every retry after a transient
 * error is reported. A server may ask for longer waits (`Retry-After`), up to a minute: beyond that the error is final. A document whose
 * bytes are wrong may have been cut off: it is requested once more.
 *
 * @param retries fewer than those of the policy, where another endpoint is left to try, or by the error
 * @throws the signal's reason as soon as it aborts
 */
export async function retryRequest<T>(
  attempt: () => Promise<T>,
  { retry, report, signal }: Pick<SessionSettings, 'retry' | 'report' | 'signal'>,
  retries: number | ((error: DlrootfsError) => number) = Infinity,
): Promise<T> {
  const notice = (message: string) => report({ type: 'notice', message });
  let waited = 0;
  let wrong = 0;
  /** Milliseconds to wait before the next attempt; undefined where `error` is final. */
  const delayAfter = (error: unknown, failures: number): number | undefined => {
    if (isWrongDocument(error)) {
      wrong += 1;
      return wrong > 1 || retries !== Infinity ? undefined : 0;
    }
    if (!isTransient(error)) return undefined;
    const most = Math.min(retry.retries, typeof retries === 'number' ? retries : retries(error));
    if (failures > most) return undefined;
    const asked = error.retryAfter ?? 0;
    const wait = Math.max(backoff(retry, failures), asked);
    waited += wait;
    if (wait <= MAX_WAIT && waited <= MAX_WAITS) {
      notice(`retry ${failures} of ${most} in ${inSeconds(wait)}: ${error.message}`);
      return wait;
    }
    const why = asked > 0 ? 'the server asks for a wait' : 'it would need a wait';
    const limit = inSeconds(wait > MAX_WAIT ? MAX_WAIT : MAX_WAITS);
    notice(`not retrying: ${why} of ${inSeconds(wait)}, the limit is ${limit}`);
    return undefined;
  };
  for (let failures = 1; ; failures += 1) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      const wait = delayAfter(error, failures);
      if (wait === undefined) throw error;
      await pause(wait, signal);
    }
  }
}

function isWrongDocument(error: unknown): boolean {
  return error instanceof IntegrityError && ['INTEGRITY', 'DIGEST_MISMATCH'].includes(error.code);
}
