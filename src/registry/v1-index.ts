import { hostnameOf, isLoopback } from '../oci/reference.ts';
import { type DlrootfsError, NetworkError } from '../errors.ts';
import { parseJson } from '../oci/json.ts';
import { basic, describeCredential } from './auth/credentials.ts';
import type { Credential } from './config/auth-file.ts';
import { type Answer, type Authorization, Endpoint, type Explain, Failover } from './endpoint.ts';
import { readDocument } from './http/answer.ts';
import { Cookies } from './http/cookies.ts';
import type { Headers, Response } from './http/exchange.ts';
import { openTransport, type Transport, type TransportSettings } from './http/transport.ts';
import type { Ping, RegistryHost } from './registry-host.ts';

/** Limit on the list of images, which only shows that an index answers. */
const MAX_IMAGES_BYTES = 16 * 1024 * 1024;
/** Failures that an error message lists. */
const LISTED_FAILURES = 3;

/** The index of registry version 1, for one repository: the registries of its images, and the token for them. */
export class V1Index {
  /** With its name space: `library/x`. */
  readonly repository: string;
  readonly #host: RegistryHost;
  readonly #settings: TransportSettings;
  readonly #ping: Ping;
  readonly #cookies = new Cookies();
  readonly #opened: Transport[] = [];
  #endpoint: Endpoint | undefined;
  /** The value after `Authorization: Token`; undefined when the index sent none. */
  #token: string | undefined;
  #renewing: Promise<RepositoryData> | undefined;
  #registries: Promise<Failover> | undefined;

  constructor(host: RegistryHost, ping: Ping, settings: TransportSettings) {
    const { repository } = host.location;
    this.#host = host;
    this.#ping = ping;
    this.repository = repository.includes('/') ? repository : `library/${repository}`;
    this.#settings = settings;
  }

  /** Of the session. */
  get signal(): AbortSignal {
    return this.#settings.signal;
  }

  /**
   * The registries that hold the repository.
   *
   * @throws NetworkError when the index names none that is a host
   */
  registries(): Promise<Failover> {
    this.#registries ??= this.#find();
    return this.#registries;
  }

  async #find(): Promise<Failover> {
    const { transport } = this.#host;
    const { base, standalone } = this.#ping;
    const { header: password, used } = this.#basicOf(await this.#host.credential());
    const endpoint = (url: URL, own: Transport, headers: () => readonly (string | undefined)[]) =>
      new Endpoint({
        name: url.host,
        base: () => url,
        transport: own,
        authorization: this.#authorization(used, headers),
      });
    // The index sends no challenge: it gets the password with the first request.
    this.#endpoint = endpoint(base, transport, () => [password]);
    const { endpoints } = await this.#read();
    const registries: Endpoint[] = [];
    for (const url of endpoints) {
      const own = url.origin === base.origin;
      // The password is for the index only. A proxy before a standalone registry may want it first.
      const headers = () => {
        const both = [this.#token && `${TOKEN}${this.#token}`, own ? password : undefined];
        return standalone ? both.toReversed() : both;
      };
      registries.push(endpoint(url, own ? transport : await this.#open(url), headers));
    }
    return new Failover(registries, this.#settings, explainRegistries);
  }

  /** Requests where the repository is, and keeps the token. */
  async #read(): Promise<RepositoryData> {
    const subject = `the list of images of ${this.repository}`;
    const { base, version1, status } = this.#ping;
    const noRegistry = `check whether this is a registry: GET /v1/_ping is answered ${status} too`;
    const read = async (response: Response): Promise<RepositoryData> => {
      if (!Array.isArray(parseJson(await readDocument(response, MAX_IMAGES_BYTES), subject))) {
        throw new NetworkError(`cannot read ${subject}: the answer of ${base.host} is not a JSON array`, {
          hint: 'check whether this is a container registry',
        });
      }
      const { plainHttp, insecure } = this.#host.location;
      const mayUseHttp = (host: string) => plainHttp || insecure || isLoopback(host);
      return {
        token: parseTokens(response.headers('x-docker-token')),
        endpoints: parseEndpoints(response.headers('x-docker-endpoints'), base, mayUseHttp),
      };
    };
    const data = await this.#endpoint!.ask({
      path: `repositories/${this.repository}/images`,
      headers: { 'x-docker-token': 'true' },
      subject,
      absent: `${this.repository} does not exist`,
      absentHint: version1 ? undefined : noRegistry,
      read,
    });
    if (data.endpoints.length === 0) throw new NetworkError(`the index ${base.host} names no registry`);
    this.#token = data.token;
    return data;
  }

  /** Requests another token in place of `old`, once for all that ask for it. */
  async #renew(old: string): Promise<void> {
    if (this.#token !== old) return;
    this.#renewing ??= this.#read().finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
  }

  /**
   * Tries Authorization headers in their order, first the one that was accepted last; all with the cookies of the server.
   *
   * @param headers gives them, with the token of the moment
   */
  #authorization(used: string | undefined, headers: () => readonly (string | undefined)[]): Authorization {
    let accepted: string | undefined;
    const request = async (url: URL, send: (headers: Headers) => Promise<Answer>) => {
      const tried: (string | undefined)[] = [];
      for (let answer: Answer | undefined; ;) {
        const left = headers().filter((header) => header !== undefined && !tried.includes(header));
        const authorization = left.find((header) => header === accepted) ?? left[0];
        if (answer && authorization === undefined) return answer;
        answer = await send({ authorization, cookie: this.#cookies.header(url) });
        const { response, error, unauthorized } = answer;
        if (response.url.origin === url.origin) this.#cookies.take(url, response.headers('set-cookie'));
        if (!unauthorized) {
          if (!error) accepted = authorization;
          return answer;
        }
        tried.push(authorization);
        // A token that was accepted until now has expired.
        if (authorization === accepted && authorization?.startsWith(TOKEN)) {
          await this.#renew(authorization.slice(TOKEN.length));
        }
      }
    };
    return { used, request };
  }

  /** The header for a user name and a password, and their name for messages. */
  #basicOf(credential: Credential | undefined): { readonly header?: string; readonly used?: string } {
    if (!credential) return {};
    const used = describeCredential(credential);
    if (credential.kind === 'password') return { header: basic(credential), used };
    const message = `ignoring ${used}: version 1 of the registry protocol knows user names and passwords only`;
    this.#settings.report({ type: 'notice', message });
    return {};
  }

  /** Connections to a registry that is not the index: with the certificates that are its own. */
  async #open({ host }: URL): Promise<Transport> {
    const { location } = this.#host;
    const { options } = this.#settings;
    const sameHost = hostnameOf(host) === hostnameOf(location.registry);
    const insecure = options.tlsVerify === false || (location.insecure && sameHost);
    const transport = await openTransport(host, insecure, this.#settings);
    this.#opened.push(transport);
    return transport;
  }

  async close(): Promise<void> {
    await Promise.all(this.#opened.map((transport) => transport.close()));
  }
}

const TOKEN = 'Token ';

/** The first error of a registry that answered at all, else what all of them say. */
const explainRegistries: Explain = (failures) => {
  const errors = [...failures.values()];
  const [first] = errors;
  const answer = errors.find((error) => !(error instanceof NetworkError));
  if (answer ?? errors.length === 1) return answer ?? first!;
  const more = errors.length > LISTED_FAILURES ? '; …' : '';
  const reasons = errors.slice(0, LISTED_FAILURES).map((error: DlrootfsError) => error.message);
  return new NetworkError(
    `cannot reach any of the ${errors.length} registries of the index: ${reasons.join('; ')}${more}`,
    { cause: first },
  );
};

/** Limit on the registries of one index. */
const MAX_ENDPOINTS = 16;

/** The headers of an index about a repository. */
export interface RepositoryData {
  /** For `Authorization: Token …`; undefined without one. */
  readonly token: string | undefined;
  /** Where the repository's images are, in order; each ends in `/v1/`. */
  readonly endpoints: readonly URL[];
}

/**
 * The tokens of `X-Docker-Token` headers, joined. The standalone registry of 2014 puts the word `Token` before its own, which is not
 * part of it. Undefined when there is none that can be sent back.
 */
export function parseTokens(values: readonly string[]): string | undefined {
  const tokens = values
    .map((value) => value.trim().replace(/^Token\s+/i, ''))
    .filter((token) => /^[\x20-\x7e]+$/.test(token));
  return tokens.length === 0 ? undefined : tokens.join(',');
}

/**
 * The registries that `X-Docker-Endpoints` headers name, each once: `host` or `host:port`, separated by commas; anything else is left
 * out. They use the index's own scheme, but http only where `mayUseHttp`. Without the header the index is the registry.
 */
export function parseEndpoints(
  values: readonly string[],
  index: URL,
  mayUseHttp: (host: string) => boolean,
): readonly URL[] {
  const hosts = values.flatMap((value) => value.split(',')).map((item) => item.trim());
  const named = hosts.filter(Boolean);
  if (named.length === 0) return [index];
  const urls = named.flatMap((host) => {
    if (!/^[^\s/?#@\\]+$/.test(host) || hostnameOf(host) === '') return [];
    const scheme = index.protocol === 'http:' && mayUseHttp(host) ? 'http' : 'https';
    const url = URL.parse(`${scheme}://${host}/v1/`);
    return url ? [url.href] : [];
  });
  return [...new Set(urls)].slice(0, MAX_ENDPOINTS).map((href) => new URL(href));
}
