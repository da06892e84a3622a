import { type DlrootfsError, IntegrityError, NetworkError } from '../errors.ts';
import { configOf, MAX_CONFIG_BYTES } from '../oci/config.ts';
import { historyOf, type Image, type RemoteLayer, type Session } from '../oci/image.ts';
import { type JsonObject, parseJson, parseJsonObject, ValueLimit } from '../oci/json.ts';
import { hostnameOf, isLoopback, Reference } from '../oci/reference.ts';
import { basic, type Credential, describeCredential } from './auth/credentials.ts';
import { BlobSource } from './blob-source.ts';
import { type Authorization, Endpoint, type Explain, Failover } from './endpoint.ts';
import { readDocument } from './http/answer.ts';
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

const MAX_TAGS_BYTES = 16 * 1024 * 1024;
const MAX_TAGS = 1_000_000;
const MAX_ANCESTRY_BYTES = 1024 * 1024;
/** Of all JSON documents of one image together. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

/** Limit on the list of images, which only shows that an index answers. */
const MAX_IMAGES_BYTES = 16 * 1024 * 1024;
/** Failures that an error message lists. */
const LISTED_FAILURES = 3;

const TOKEN = 'Token ';

/**
 * A session by version 1 of the protocol, by the rules of docker-registry (Python) and Docker 1.4. The index names the registries of the
 * images, and gives a token for them.
 */
export class Version1Session implements Omit<Session<RemoteLayer>, 'close'> {
  readonly #reference: Reference;
  /** `library/x`, or `host[:port]/path`, for messages. */
  readonly #name: string;
  /** With its name space: `library/x`. */
  readonly #repository: string;
  readonly #host: RegistryHost;
  readonly #ping: Ping;
  readonly #settings: SessionSettings;
  readonly #cookies = new Cookies();
  #index: Endpoint | undefined;
  /** The value after `Authorization: Token`; undefined when the index sent none. */
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

  /** The image of the tag; there is only one, for every platform. */
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

  /** By the JSON and the headers of each image, base first. */
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
      // Not within the request: it would be made again, and the others with it.
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
   * The registries that hold the repository.
   *
   * @throws NetworkError when the index names none that is a host
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
    const used = credential && describeCredential(credential);
    const endpoint = (url: URL, own: Transport, headers: () => readonly (string | undefined)[]) =>
      new Endpoint({
        name: url.host,
        base: () => url,
        transport: own,
        authorization: this.#authorization(used, headers),
      });
    // The index sends no challenge: it gets the password with the first request.
    this.#index = endpoint(base, transport, () => [password]);
    const registries: Endpoint[] = [];
    for (const url of await this.#read()) {
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

  /** Requests where the images of the repository are, in order, each ending in `/v1/`; keeps the token. */
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

  /** Adds what is secret in a token: `signature=…,repository="library/x",access=read`. */
  #addToken(token = ''): void {
    const { secrets } = this.#settings;
    secrets.addIssued(token);
    for (const [, signature] of token.matchAll(/signature="?([^",]+)/g)) secrets.addIssued(signature!);
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
   * @param tokens gives them, with the token of the moment
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
        // A token that was accepted until now has expired.
        if (authorization === accepted && authorization?.startsWith(TOKEN)) {
          await this.#renew(authorization.slice(TOKEN.length));
        }
        return 'other';
      },
    };
  }

  /** The user name and the password for the index. */
  async #password(): Promise<Extract<Credential, { kind: 'password' }> | undefined> {
    const credential = await this.#host.credential();
    if (!credential || credential.kind === 'password') return credential;
    const message = `ignoring ${describeCredential(credential)}: version 1 of the registry protocol knows user names and passwords only`;
    this.#settings.report({ type: 'notice', message });
    return undefined;
  }

  /** Connections to a registry that is not the index: with the certificates that are its own. */
  async #open({ host }: URL): Promise<Transport> {
    const { location } = this.#host;
    const { options } = this.#settings;
    const sameHost = hostnameOf(host) === hostnameOf(location.registry);
    const insecure = options.tlsVerify === false || (location.insecure && sameHost);
    return openTransport(host, insecure, this.#settings);
  }
}

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
