import { type DlrootfsError, IntegrityError, NetworkError } from '../errors.ts';
import { configOf, MAX_CONFIG_BYTES } from '../oci/config.ts';
import { historyOf, type Image, type RemoteLayer, type Session } from '../oci/image.ts';
import { type JsonObject, parseJson, parseJsonObject, ValueLimit } from '../oci/json.ts';
import { hostnameOf, isLoopback, Reference } from '../oci/reference.ts';
import { basic, type Credential, credentialText } from './auth/credentials.ts';
import { BlobSource } from './blob-source.ts';
import { type Authorization, Endpoint, type Explain, Failover } from './endpoint.ts';
import { MAX_TAGS, MAX_TAGS_BYTES, readDocument } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import { openTransport, type Transport } from './http/transport.ts';
import type { Ping, RegistryHost } from './registry-host.ts';
import type { SessionSettings } from './registry-options.ts';
import {
  Cookies,
  imageOfTag,
  parseAncestry,
  parseEndpoints,
  parseImageJson,
  parseLayerSize,
  parsePayloadChecksum,
  parseTokens,
  tagNames,
} from './v1-answers.ts';

const MAX_ANCESTRY_BYTES = 1024 * 1024;
/** Limit on all JSON documents of one image together. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

/** Limit on the list of images, whose content is not used. */
const MAX_IMAGES_BYTES = 16 * 1024 * 1024;
/** The largest number of failures that an error lists. */
const LISTED_FAILURES = 3;

const TOKEN_SCHEME = 'Token ';

/**
 * A session by version 1 of the protocol, as docker-registry (Python) and Docker 1.4 define it. The index
 * names the registries of the images, and issues a token for them.
 */
export class Version1Session implements Omit<Session<RemoteLayer>, 'close'> {
  readonly #reference: Reference;
  /** `library/x`, or `host[:port]/path`, for messages. */
  readonly #name: string;
  /** With its namespace: `library/x`. */
  readonly #repository: string;
  readonly #host: RegistryHost;
  readonly #ping: Ping;
  readonly #settings: SessionSettings;
  readonly #cookies = new Cookies();
  #index: Endpoint | undefined;
  /** The value after `Authorization: Token`; undefined if the index sent none. */
  #token: string | undefined;
  #renewing: Promise<unknown> | undefined;
  #found: Promise<Failover> | undefined;

  constructor(reference: Reference, host: RegistryHost, ping: Ping, settings: SessionSettings) {
    const { repository } = host.location;
    this.#reference = reference;
    this.#name = Reference.name(reference);
    this.#repository = repository.includes('/') ? repository : `library/${repository}`;
    this.#host = host;
    this.#ping = ping;
    this.#settings = settings;
  }

  /** Returns the image of the tag. Version 1 has one image for all platforms. */
  async image(): Promise<Image<RemoteLayer>> {
    const { tag = 'latest' } = this.#reference;
    const registries = await this.#registries();
    const id = imageOfTag(await this.#tags(), tag, this.#name);
    const subject = `the ancestry of image ${id}`;
    const read = async (response: Response) =>
      parseAncestry(await readDocument(response, MAX_ANCESTRY_BYTES), id, subject);
    const ids = await registries.ask({ path: `images/${id}/ancestry`, subject, read });
    const layers = await this.#layers(ids, registries);
    const history = layers.map(({ info }) => historyOf({ json: info, empty: false }));
    const config = { ...configOf(layers.at(-1)!.info, `the JSON of image ${id}`), history };
    return { id, platform: config.platform, config, layers };
  }

  attachments(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  async *tags(): AsyncGenerator<string, void> {
    yield* tagNames(await this.#tags());
  }

  async #tags(): Promise<JsonObject> {
    const subject = `the list of tags of ${this.#name}`;
    const absent = `${this.#name} does not exist`;
    const read = async (response: Response) =>
      parseJsonObject(await readDocument(response, MAX_TAGS_BYTES), subject, new ValueLimit(MAX_TAGS));
    const registries = await this.#registries();
    return registries.ask({ path: `repositories/${this.#repository}/tags`, subject, absent, read });
  }

  /** Describes the layers, base first, by the JSON of each image and the headers of that answer. */
  async #layers(ids: readonly string[], registries: Failover): Promise<readonly RemoteLayer[]> {
    const abort = new AbortController();
    const signal = AbortSignal.any([this.#settings.signal, abort.signal]);
    let bytes = 0;
    const limit = new ValueLimit();
    const layer = async (id: string, index: number): Promise<RemoteLayer> => {
      const subject = `the JSON of image ${id}`;
      const read = async (response: Response) => {
        const body = await readDocument(response, MAX_CONFIG_BYTES);
        const info = parseImageJson(body, { id, parent: ids[index - 1], limit }, subject);
        const digest = parsePayloadChecksum(response.header('x-docker-checksum-payload'));
        const checksum = digest && { digest, prefix: Buffer.concat([body, Buffer.from('\n')]) };
        const size = parseLayerSize(response.header('x-docker-size'), `layer ${id}`);
        return { length: body.length, info, checksum, size };
      };
      const { length, ...facts } = await registries.ask({ path: `images/${id}/json`, subject, read, signal });
      bytes += length;
      // Not in `read`: an error there would repeat the request.
      if (bytes > MAX_JSON_BYTES) {
        throw new IntegrityError(
          `the JSON documents of ${Reference.format(this.#reference)} have more than ${MAX_JSON_BYTES} bytes`,
        );
      }
      const { createdBy } = historyOf({ json: facts.info, empty: false });
      const blob = {
        path: `images/${id}/layer`,
        subject: `the layer ${id} of ${this.#name}`,
        size: facts.size,
      };
      const { open } = new BlobSource(blob, registries);
      return { id, mediaType: 'application/octet-stream', ...facts, createdBy, open };
    };
    try {
      return await Promise.all(ids.map(layer));
    } finally {
      abort.abort(new Error('another request failed'));
    }
  }

  /**
   * Returns the registries that hold the repository; requests them once.
   *
   * @throws NetworkError if the index names no valid host
   */
  #registries(): Promise<Failover> {
    this.#found ??= this.#find();
    return this.#found;
  }

  async #find(): Promise<Failover> {
    const { transport } = this.#host;
    const { base, standalone } = this.#ping;
    const credential = await this.#password();
    const password = credential && basic(credential);
    const used = credential && credentialText(credential);
    const endpoint = (url: URL, own: Transport, headers: () => readonly (string | undefined)[]) =>
      new Endpoint({
        name: url.host,
        base: () => url,
        transport: own,
        authorization: this.#authorization(used, headers),
      });
    // The index sends no challenge, so the first request has the password already.
    this.#index = endpoint(base, transport, () => [password]);
    const registries: Endpoint[] = [];
    for (const url of await this.#read()) {
      const own = url.origin === base.origin;
      // Only the index gets the password. A proxy in front of a standalone registry may want it first.
      const headers = () => {
        const both = [this.#token && `${TOKEN_SCHEME}${this.#token}`, own ? password : undefined];
        return standalone ? both.toReversed() : both;
      };
      registries.push(endpoint(url, own ? transport : await this.#open(url), headers));
    }
    return new Failover(registries, this.#settings, explainRegistries);
  }

  /** Requests the registries of the repository, in order, each ending in `/v1/`; keeps the token. */
  async #read(): Promise<readonly URL[]> {
    const subject = `the list of images of ${this.#repository}`;
    const { base, version1, status } = this.#ping;
    const noRegistry = `check whether this is a registry: GET /v1/_ping is answered ${status} too`;
    const read = async (response: Response) => {
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
    const { token, endpoints } = await this.#index!.ask({
      path: `repositories/${this.#repository}/images`,
      headers: { 'x-docker-token': 'true' },
      subject,
      absent: `${this.#repository} does not exist`,
      absentHint: version1 ? undefined : noRegistry,
      read,
    });
    if (endpoints.length === 0) throw new NetworkError(`the index ${base.host} names no registry`);
    this.#token = token;
    this.#addToken(token);
    return endpoints;
  }

  /**
   * Adds a token and the signature in it to the secrets: `signature=…,repository="library/x",access=read`.
   */
  #addToken(token = ''): void {
    const { secrets } = this.#settings;
    secrets.addIssued(token);
    for (const [, signature] of token.matchAll(/signature="?([^",]+)/g)) secrets.addIssued(signature!);
  }

  /** Replaces the token `old` by a new one, with one request for all callers. */
  async #renew(old: string): Promise<void> {
    if (this.#token !== old) return;
    this.#renewing ??= this.#read().finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
  }

  /**
   * Tries Authorization headers in order, starting with the one that was accepted last; all with the cookies
   * of the server.
   *
   * @param tokens returns the headers, with the current token
   */
  #authorization(used: string | undefined, tokens: () => readonly (string | undefined)[]): Authorization {
    let accepted: string | undefined;
    return {
      used,
      headers: async (url, refused) => {
        const left = tokens().filter((header) => header !== undefined && !refused.includes(header));
        if (left.length === 0 && refused.length > 0) return undefined;
        const authorization = left.find((header) => header === accepted) ?? left[0];
        return { authorization, cookie: this.#cookies.header(url) };
      },
      judge: async ({ response, error, unauthorized }, url, { authorization }) => {
        if (response.url.origin === url.origin) {
          const values = this.#cookies.take(url, response.headers('set-cookie'));
          for (const value of values) this.#settings.secrets.addIssued(value);
        }
        if (!error) accepted = authorization;
        if (!unauthorized) return 'final';
        // The token was accepted before: it has expired.
        if (authorization === accepted && authorization?.startsWith(TOKEN_SCHEME)) {
          await this.#renew(authorization.slice(TOKEN_SCHEME.length));
        }
        return 'other';
      },
    };
  }

  /** Returns the user name and the password for the index. */
  async #password(): Promise<Extract<Credential, { kind: 'password' }> | undefined> {
    const credential = await this.#host.credential();
    if (!credential || credential.kind === 'password') return credential;
    const reason = 'version 1 of the registry protocol knows user names and passwords only';
    const message = `ignoring ${credentialText(credential)}: ${reason}`;
    this.#settings.report({ type: 'notice', message });
    return undefined;
  }

  /** Opens connections to a registry that is not the index, with the certificates for that host. */
  async #open({ host }: URL): Promise<Transport> {
    const { location } = this.#host;
    const { options } = this.#settings;
    const sameHost = hostnameOf(host) === hostnameOf(location.registry);
    const insecure = options.tlsVerify === false || (location.insecure && sameHost);
    return openTransport(host, insecure, this.#settings);
  }
}

/**
 * Returns the first error of a registry that answered; if none answered, an error that lists their failures.
 */
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
