import { NetworkError, UsageError } from '../errors.ts';
import type { Image, Session } from '../oci/image.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { Authenticator } from './auth/authenticator.ts';
import { Credentials } from './auth/credentials.ts';
import { Documents } from './documents.ts';
import { type Contact, Endpoint, type Manners } from './endpoint.ts';
import { Mirrored } from './failover.ts';
import { openTransport, type TransportSettings } from './open-transport.ts';
import {
  DEFAULT_CONNECTIONS,
  DEFAULT_RETRIES,
  DEFAULT_RETRY_DELAY,
  defaultTimeouts,
  type RegistryOptions,
} from './registry-options.ts';
import { Slots } from './http/slots.ts';
import { findSources, type Source } from './sources.ts';
import { V1Contact, type Place } from './v1-contact.ts';
import { Version1Session } from './v1.ts';
import { Version2Session } from './v2.ts';

/**
 * Prepares a conversation about one repository: reads configuration files, opens no connection yet. Throws UsageError for options and
 * files that make no sense, and where registries.conf blocks the repository.
 */
export async function openSession(reference: Reference, given: RegistryOptions): Promise<Session> {
  const options = withoutEmptyCredentials(given);
  const manners: Manners = {
    timeouts: { ...defaultTimeouts, ...options.timeouts },
    retry: { retries: options.retry ?? DEFAULT_RETRIES, delay: options.retryDelay ?? DEFAULT_RETRY_DELAY },
    report: options.report,
  };
  const slots = new Slots(options.connections ?? DEFAULT_CONNECTIONS);
  const settings = { options, manners, slots };
  const sources = await findSources(reference, options);
  const places = await Promise.all(sources.map((source) => placeOf(source, settings)));
  return new RegistrySession(reference, places, settings);
}

function withoutEmptyCredentials(options: RegistryOptions): RegistryOptions {
  const { username, password, source = '--user' } = options.credentials ?? {};
  if (username !== '' || password !== '') return options;
  const message = `${source} has neither user name nor password; going on without credentials`;
  options.report({ type: 'notice', message });
  return { ...options, credentials: undefined, noCredentials: true };
}

async function placeOf(source: Source, settings: TransportSettings): Promise<Place> {
  const { options } = settings;
  const { registry, repository } = source;
  const own = source.mirrorOf === undefined;
  const insecure = source.insecure || options.tlsVerify === false;
  const plainHttp = source.plainHttp || (own && options.plainHttp === true);
  // What was given by hand was given for the registry of the reference; a mirror's are in files.
  const asked = own ? options : { ...options, credentials: undefined, registryToken: undefined };
  return {
    ...(await openTransport(registry, insecure, settings)),
    source: { ...source, insecure, plainHttp },
    credentials: new Credentials({ registry, repository }, asked),
  };
}

function endpointOf({ source, transport, certificates, credentials }: Place, manners: Manners): Endpoint {
  const authenticator = new Authenticator(source.repository, credentials, transport, manners.timeouts);
  return new Endpoint(source, transport, authenticator, manners, certificates);
}

/** Finds out on first use which version of the protocol the registry speaks. */
class RegistrySession implements Session {
  readonly #reference: Reference;
  readonly #endpoints: Mirrored;
  /** Of the registry of the reference. */
  readonly #place: Place;
  readonly #settings: TransportSettings;
  #session: Promise<Session> | undefined;

  /** @param places in the order to ask; the last is the registry itself */
  constructor(reference: Reference, places: readonly Place[], settings: TransportSettings) {
    const { manners } = settings;
    this.#reference = reference;
    this.#endpoints = new Mirrored(
      places.map((place) => endpointOf(place, manners)),
      manners.report,
    );
    this.#place = places.at(-1)!;
    this.#settings = settings;
  }

  async #choose(signal: AbortSignal): Promise<Session> {
    const { registryVersion } = this.#settings.options;
    if (registryVersion === 1) return this.#version1(signal);
    // Version 1 has no digests: a reference with one needs no question, and perhaps no connection either.
    if (registryVersion === 2 || this.#reference.digest !== undefined) return this.#version2();
    const contact = await this.#contact(signal);
    if (contact.version2 && contact.page !== true) return this.#version2();
    return this.#version1Instead(contact, signal);
  }

  #version2(): Session {
    const { options, manners } = this.#settings;
    const documents = new Documents(
      this.#reference,
      this.#endpoints,
      options.manifestStore,
      manners.timeouts,
    );
    return new Version2Session(this.#reference, this.#endpoints, documents, manners.timeouts);
  }

  /** What the first source says that speaks version 2, else the registry itself. */
  async #contact(signal: AbortSignal): Promise<Contact> {
    const contact = await this.#endpoints.contact(signal);
    if (contact.version2 && contact.page !== true) return contact;
    return this.#endpoints.registry.contact(signal);
  }

  async #version1(signal: AbortSignal): Promise<Session> {
    const { options, manners } = this.#settings;
    if (this.#reference.digest !== undefined) {
      const hint = 'name a tag instead, or leave --registry-version out';
      throw new UsageError(
        `${Reference.format(this.#reference)} names a digest, which version 1 of the registry protocol has not`,
        { hint },
      );
    }
    if ((options.mirrors ?? []).length > 0) {
      const message = 'mirrors are not asked with version 1 of the registry protocol';
      manners.report({ type: 'notice', message });
    }
    const contact = new V1Contact(this.#reference, this.#place, this.#settings);
    await contact.greet(undefined, signal);
    return new Version1Session(this.#reference, contact, manners.timeouts);
  }

  /** For a registry that does not seem to speak version 2. */
  async #version1Instead(met: Contact, signal: AbortSignal): Promise<Session> {
    const contact = new V1Contact(this.#reference, this.#place, this.#settings);
    try {
      const { version1, status } = await contact.greet(met.base, signal);
      if (version1) return new Version1Session(this.#reference, contact, this.#settings.manners.timeouts);
      const { name } = this.#endpoints.registry;
      const hint = 'is this a container registry?';
      const message = `${name} speaks no version of the registry protocol: GET /v2/ is answered 404, GET /v1/_ping ${status}`;
      throw met.refusal ?? new NetworkError(message, { code: 'NO_REGISTRY', hint });
    } catch (error) {
      signal.throwIfAborted();
      if (met.version2) return this.#version2();
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
    await this.#endpoints.close();
    const session = await this.#session?.catch(() => undefined);
    await session?.close();
  }
}
