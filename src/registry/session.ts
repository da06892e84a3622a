import pLimit from 'p-limit';
import { type DlrootfsError, NetworkError, UsageError } from '../errors.ts';
import type { Image, Session } from '../oci/image.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { Authenticator } from './auth/authenticator.ts';
import { Credentials } from './auth/credentials.ts';
import { findLocations, type Location } from './config/registries-conf.ts';
import { type Contact, contactVersion1, contactVersion2, type Ping, type Place } from './contact.ts';
import { Documents } from './documents.ts';
import { Endpoint } from './endpoint.ts';
import { Failover } from './failover.ts';
import { openTransport, type TransportSettings } from './http/transport.ts';
import { OfflineSession } from './offline.ts';
import {
  DEFAULT_CONNECTIONS,
  DEFAULT_RETRIES,
  DEFAULT_RETRY_DELAY,
  DEFAULT_TIMEOUTS,
  type RegistryOptions,
  type RequestPolicy,
} from './registry-options.ts';
import { V1Index } from './v1-index.ts';
import { Version1Session } from './v1.ts';
import { Version2Session } from './v2.ts';

/**
 * Prepares a session about one repository: reads configuration files, opens no connection yet.
 *
 * @throws UsageError for invalid options and files, and where registries.conf blocks the repository
 */
export async function openSession(reference: Reference, given: RegistryOptions): Promise<Session> {
  if (given.offline) {
    const { manifestStore, report } = given;
    return new OfflineSession(reference, { manifestStore, report, ...given.offline });
  }
  const options = withoutEmptyCredentials(given);
  const policy: RequestPolicy = {
    timeouts: { ...DEFAULT_TIMEOUTS, ...options.timeouts },
    retry: { retries: options.retry ?? DEFAULT_RETRIES, delay: options.retryDelay ?? DEFAULT_RETRY_DELAY },
    report: options.report,
  };
  const slots = pLimit(options.connections ?? DEFAULT_CONNECTIONS);
  const settings = { options, policy, slots };
  const locations = await findLocations(reference, options);
  const places = await Promise.all(locations.map((location) => placeOf(location, settings)));
  return new RegistrySession(reference, places, settings);
}

function withoutEmptyCredentials(options: RegistryOptions): RegistryOptions {
  const { username, password, source = '--user' } = options.credentials ?? {};
  if (username !== '' || password !== '') return options;
  const message = `${source} has neither user name nor password; going on without credentials`;
  options.report({ type: 'notice', message });
  return { ...options, credentials: undefined, noCredentials: true };
}

async function placeOf(location: Location, settings: TransportSettings): Promise<Place> {
  const { options } = settings;
  const { registry, repository } = location;
  const own = location.mirrorOf === undefined;
  const insecure = location.insecure || options.tlsVerify === false;
  const plainHttp = location.plainHttp || (own && options.plainHttp === true);
  // The caller's credentials are for the registry of the reference; those of mirrors are in files.
  const asked = own ? options : { ...options, credentials: undefined, registryToken: undefined };
  return {
    transport: await openTransport(registry, insecure, settings),
    location: { ...location, insecure, plainHttp },
    credentials: new Credentials({ registry, repository }, asked),
    policy: settings.policy,
  };
}

/** A place, by version 2 of the protocol. */
interface Version2Place {
  readonly endpoint: Endpoint;
  /** `GET /v2/`, sent once. */
  readonly contact: (signal: AbortSignal) => Promise<Contact>;
}

function version2Of(place: Place): Version2Place {
  const { transport, credentials, policy } = place;
  const { registry, repository } = place.location;
  const authorization = new Authenticator(repository, credentials, transport);
  let met: Promise<Contact> | undefined;
  const contact = (signal: AbortSignal) => {
    met ??= contactVersion2(place, authorization, signal);
    return met;
  };
  const base = async (signal: AbortSignal) => {
    const { version2, refusal, base: root } = await contact(signal);
    if (version2 !== 'no') return new URL(`${repository}/`, root);
    throw (
      refusal ??
      new NetworkError(`${registry} does not speak version 2 of the registry protocol`, {
        code: 'NO_V2',
        hint: 'check whether this is a container registry',
      })
    );
  };
  return { endpoint: new Endpoint({ name: registry, base, transport, authorization, policy }), contact };
}

/** The registry of the reference knows best what is wrong; what the mirrors said comes after that. */
function explainFailures(failures: ReadonlyMap<Endpoint, DlrootfsError>, registry: Endpoint): DlrootfsError {
  const [first, ...others] = [...failures].toSorted(
    ([one], [other]) => Number(other === registry) - Number(one === registry),
  );
  const error = first![1];
  const own = error.message;
  const answers = others.map(([{ name }, { message }]) =>
    message.replaceAll(name, registry.name) === own
      ? `; the mirror ${name} answered the same`
      : `; the mirror ${name}: ${message}`,
  );
  const said = answers.join('');
  // A first contact is not repeated: its error may come here again.
  if (!error.message.endsWith(said)) error.message += said;
  return error;
}

/** Finds the registry's version of the protocol on first use. */
class RegistrySession implements Session {
  readonly #reference: Reference;
  /** In order of preference; the last is the registry of the reference. */
  readonly #places: readonly Place[];
  readonly #settings: TransportSettings;
  readonly #contacts: ReadonlyMap<Endpoint, Version2Place['contact']>;
  readonly #endpoints: Failover;
  #session: Promise<Session> | undefined;

  constructor(reference: Reference, places: readonly Place[], settings: TransportSettings) {
    this.#reference = reference;
    this.#places = places;
    this.#settings = settings;
    const all = places.map(version2Of);
    this.#contacts = new Map(all.map(({ endpoint, contact }) => [endpoint, contact]));
    this.#endpoints = new Failover([...this.#contacts.keys()], settings.policy.report, (failures) =>
      explainFailures(failures, all.at(-1)!.endpoint),
    );
  }

  async #choose(signal: AbortSignal): Promise<Session> {
    const { registryVersion } = this.#settings.options;
    if (registryVersion === 1) return this.#version1(signal);
    // Version 1 has no digests: a reference with one needs no first contact, and perhaps no connection.
    if (registryVersion === 2 || this.#reference.digest !== undefined) return this.#version2();
    const contact = await this.#contact(signal);
    if (contact.version2 === 'yes') return this.#version2();
    return this.#version1Instead(contact, signal);
  }

  #version2(): Session {
    const endpoints = this.#endpoints;
    const { manifestStore } = this.#settings.options;
    const documents = new Documents(
      this.#reference,
      (query, signal) => endpoints.ask(query, signal),
      manifestStore,
    );
    return new Version2Session(this.#reference, endpoints, documents);
  }

  /** Of the first place that speaks version 2, else of the registry itself. */
  async #contact(signal: AbortSignal): Promise<Contact> {
    const contactOf = (endpoint: Endpoint) => this.#contacts.get(endpoint)!(signal);
    const contact = await this.#endpoints.first(contactOf, signal);
    if (contact.version2 === 'yes') return contact;
    return contactOf(this.#endpoints.endpoints.at(-1)!);
  }

  async #version1(signal: AbortSignal): Promise<Session> {
    const { options, policy } = this.#settings;
    if (this.#reference.digest !== undefined) {
      throw new UsageError(
        `cannot read ${Reference.format(this.#reference)} by version 1 of the registry protocol, which has no digests`,
        { hint: 'name a tag, or leave out --registry-version' },
      );
    }
    if ((options.mirrors ?? []).length > 0) {
      const message = 'ignoring --mirror: version 1 of the registry protocol has no mirrors';
      policy.report({ type: 'notice', message });
    }
    return this.#openVersion1(await this.#pingVersion1(undefined, signal));
  }

  /** Docker Hub's index, while it had one, has no ping. */
  async #pingVersion1(known: URL | undefined, signal: AbortSignal): Promise<Ping> {
    const place = this.#places.at(-1)!;
    if (place.location.registry === 'docker.io') {
      const base = new URL('https://index.docker.io/v1/');
      return { status: 200, base, version1: true, standalone: false };
    }
    return contactVersion1(place, known, signal);
  }

  #openVersion1(ping: Ping): Session {
    const { base, standalone } = ping;
    const kind = standalone ? 'a standalone registry' : 'an index';
    this.#settings.policy.report({ type: 'debug', message: `version 1: ${base.host} is ${kind}` });
    const place = this.#places.at(-1)!;
    const { repository } = place.location;
    const path = repository.includes('/') ? repository : `library/${repository}`;
    return new Version1Session(this.#reference, path, new V1Index(place, ping, path, this.#settings));
  }

  /** Tries version 1, for a registry that does not seem to speak version 2. */
  async #version1Instead(met: Contact, signal: AbortSignal): Promise<Session> {
    try {
      const ping = await this.#pingVersion1(met.base, signal);
      if (ping.version1) return this.#openVersion1(ping);
      const { registry } = this.#places.at(-1)!.location;
      throw (
        met.refusal ??
        new NetworkError(
          `${registry} is not a registry: GET /v2/ is answered 404, GET /v1/_ping ${ping.status}`,
          { code: 'NO_REGISTRY', hint: 'check whether this is a container registry' },
        )
      );
    } catch (error) {
      signal.throwIfAborted();
      if (met.version2 !== 'no') return this.#version2();
      throw met.refusal ?? error;
    }
  }

  async image(platform: Platform, signal: AbortSignal): Promise<Image> {
    this.#session ??= this.#choose(signal);
    return (await this.#session).image(platform, signal);
  }

  async *tags(signal: AbortSignal): AsyncGenerator<string, void> {
    this.#session ??= this.#choose(signal);
    yield* (await this.#session).tags(signal);
  }

  async close(): Promise<void> {
    await Promise.all(this.#places.map(({ transport }) => transport.close()));
    const session = await this.#session?.catch(() => undefined);
    await session?.close();
  }
}
