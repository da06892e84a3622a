import pLimit from 'p-limit';
import { type DlrootfsError, type ErrorDetails, NetworkError, UsageError } from '../errors.ts';
import type { Image, Session, WantsBlob } from '../oci/image.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { locationsOf, readRegistriesConf } from './config/registries-conf.ts';
import { type Endpoint, type Explain, Failover } from './endpoint.ts';
import { type Ping, RegistryHost } from './registry-host.ts';
import {
  DEFAULT_CONNECTIONS,
  DEFAULT_TIMEOUTS,
  type RegistryOptions,
  retryPolicyOf,
  type SessionSettings,
} from './registry-options.ts';

import { Version1Session } from './v1.ts';
import { Version2Session } from './v2.ts';

/**
 * Prepares a session about one repository: reads configuration files, opens no connection yet.
 *
 * @throws UsageError for invalid options and files, and where registries.conf blocks the repository
 */
export async function openSession(reference: Reference, given: RegistryOptions): Promise<Session> {
  if (given.offline) return new Version2Session(reference, given);
  const options = withoutEmptyCredentials(given);
  const { report, connections = DEFAULT_CONNECTIONS, signal = new AbortController().signal } = options;
  const timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
  const retry = retryPolicyOf(options);
  const slots = pLimit(connections);
  const settings = { options, timeouts, retry, report, signal, slots };
  const locations = locationsOf(reference, options.mirrors ?? [], await readRegistriesConf(options));
  const hosts = await Promise.all(locations.map((location) => RegistryHost.open(location, settings)));
  return new RegistrySession(reference, hosts, settings);
}

function withoutEmptyCredentials(options: RegistryOptions): RegistryOptions {
  const { username, password, source = '--user' } = options.credentials ?? {};
  if (username !== '' || password !== '') return options;
  const message = `${source} has neither user name nor password; going on without credentials`;
  options.report({ type: 'notice', message });
  return { ...options, credentials: undefined, noCredentials: true };
}

/** The error of the registry of the reference, with the answers of the mirrors after it. */
const explainMirrors: Explain = (failures, registry) => {
  const error = failures.get(registry)!;
  const mirrors = [...failures].filter(([endpoint]) => endpoint !== registry);
  const answers = mirrors.map(([{ name }, { message }]) =>
    message.replaceAll(name, registry.name) === error.message
      ? `; the mirror ${name} answered the same`
      : `; the mirror ${name}: ${message}`,
  );
  if (answers.length === 0) return error;
  const { code, hint } = error;
  // Of the same class, for the exit code.
  const Kind = error.constructor as new (message: string, details: ErrorDetails) => DlrootfsError;
  return new Kind(error.message + answers.join(''), { code, hint, cause: error });
};

/** Finds the registry's version of the protocol on first use. */
class RegistrySession implements Session {
  readonly #reference: Reference;
  /** In order of preference; the last is the registry of the reference. */
  readonly #hosts: readonly RegistryHost[];
  readonly #settings: SessionSettings;
  readonly #endpoints: Failover;
  #session: Promise<Session> | undefined;
  /** The result of `#session`, once it is there. */
  #chosen: Session | undefined;

  constructor(reference: Reference, hosts: readonly RegistryHost[], settings: SessionSettings) {
    this.#reference = reference;
    this.#hosts = hosts;
    this.#settings = settings;
    const endpoints = hosts.map(({ endpoint }) => endpoint);
    this.#endpoints = new Failover(endpoints, settings, explainMirrors);
  }

  get #own(): RegistryHost {
    return this.#hosts.at(-1)!;
  }

  async #choose(): Promise<Session> {
    const { registryVersion, mirrors = [], report } = this.#settings.options;
    const { digest } = this.#reference;
    if (registryVersion === 1) {
      if (digest !== undefined) {
        throw new UsageError(
          `cannot read ${Reference.format(this.#reference)} by version 1 of the registry protocol, which has no digests`,
          { hint: 'name a tag, or leave out --registry-version' },
        );
      }
      if (mirrors.length > 0) {
        const message = 'ignoring --mirror: version 1 of the registry protocol has no mirrors';
        report({ type: 'notice', message });
      }
      return this.#version1(await this.#own.ping(undefined));
    }
    // Version 1 has no digests: a reference with one needs no first contact, and no connection where the store has its documents.
    return registryVersion === 2 || digest !== undefined ? this.#version2() : this.#byAnswers();
  }

  /**
   * The version that the answers of the first host that speaks version 2, else of the registry itself, show:
   *
   * | `GET /v2/`          | `GET /v1/_ping`  | version                             |
   * | ------------------- | ---------------- | ----------------------------------- |
   * | 401, 200            | is not sent      | 2                                   |
   * | 200 with a web page | as of version 1  | 1                                   |
   * |                     | any other        | 2                                   |
   * | 404                 | as of version 1  | 1                                   |
   * |                     | any other        | none: the error is about the ping   |
   * | 403, 429, 5xx       | is not sent      | none: the error is about `GET /v2/` |
   * | any other           | as of version 1  | 1                                   |
   * |                     | any other        | none: the error is about `GET /v2/` |
   */
  async #byAnswers(): Promise<Session> {
    const contactOf = (endpoint: Endpoint) =>
      this.#hosts.find((host) => host.endpoint === endpoint)!.contact();
    const first = await this.#endpoints.first(contactOf);
    const { base, version2, refusal } = first.version2 === 'yes' ? first : await this.#own.contact();
    if (version2 === 'yes') return this.#version2();
    try {
      const ping = await this.#own.ping(base);
      if (ping.version1) return this.#version1(ping);
      throw new NetworkError(
        `${this.#own.location.registry} is not a registry: GET /v2/ is answered 404, GET /v1/_ping ${ping.status}`,
        { code: 'NO_REGISTRY', hint: 'check whether this is a container registry' },
      );
    } catch (error) {
      this.#settings.signal.throwIfAborted();
      if (version2 !== 'no') return this.#version2();
      throw refusal ?? error;
    }
  }

  #version2(): Session {
    return new Version2Session(this.#reference, this.#settings.options, this.#endpoints);
  }

  #version1(ping: Ping): Session {
    const { base, standalone } = ping;
    const kind = standalone ? 'a standalone registry' : 'an index';
    this.#settings.report({ type: 'debug', message: `version 1: ${base.host} is ${kind}` });
    return new Version1Session(this.#reference, this.#own, ping, this.#settings);
  }

  async image(platform: Platform, wants?: WantsBlob): Promise<Image> {
    return (await this.#open()).image(platform, wants);
  }

  async *tags(): AsyncGenerator<string, void> {
    yield* (await this.#open()).tags();
  }

  async #open(): Promise<Session> {
    this.#session ??= this.#choose();
    this.#chosen = await this.#session;
    return this.#chosen;
  }

  async close(): Promise<void> {
    // It ends its own requests first: a request whose connection is closed would be retried, with a notice.
    await this.#chosen?.close();
    await Promise.all(this.#hosts.map(({ transport }) => transport.close()));
    const session = await this.#session?.catch(() => undefined);
    if (session !== this.#chosen) await session?.close();
  }
}
