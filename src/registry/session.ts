import { NetworkError } from '../errors.ts';
import type { Image, Session } from '../oci/image.ts';
import type { Platform } from '../oci/platform.ts';
import type { Reference } from '../oci/reference.ts';
import { Authenticator } from './authenticator.ts';
import { Credentials } from './credentials.ts';
import { Documents } from './documents.ts';
import { Endpoint, type Manners } from './endpoint.ts';
import { Mirrored } from './mirrored.ts';
import { openTransport } from './open-transport.ts';
import { DEFAULT_CONNECTIONS, defaultTimeouts, type RegistryOptions } from './registry-options.ts';
import { Slots } from './slots.ts';
import { findSources, type Source } from './sources.ts';
import { Version2Session } from './v2.ts';

/** Tries of a request after the first, and the milliseconds before the first of them, when nothing else is said. */
const DEFAULT_RETRIES = 5;
const DEFAULT_RETRY_DELAY = 500;

/**
 * Prepares a conversation about one repository: reads configuration files, opens no connection yet. Throws UsageError for options and
 * files that make no sense, and where registries.conf blocks the repository.
 */
export async function openSession(reference: Reference, options: RegistryOptions): Promise<Session> {
  const manners: Manners = {
    timeouts: { ...defaultTimeouts, ...options.timeouts },
    retry: { retries: options.retry ?? DEFAULT_RETRIES, delay: options.retryDelay ?? DEFAULT_RETRY_DELAY },
    report: options.report,
  };
  const slots = new Slots(options.connections ?? DEFAULT_CONNECTIONS);
  const sources = await findSources(reference, options);
  const endpoints = await Promise.all(sources.map((source) => endpointOf(source, options, manners, slots)));
  return new RegistrySession(reference, new Mirrored(endpoints, options.report), options, manners);
}

async function endpointOf(
  source: Source,
  options: RegistryOptions,
  manners: Manners,
  slots: Slots,
): Promise<Endpoint> {
  const { registry, repository } = source;
  const own = source.mirrorOf === undefined;
  const insecure = source.insecure || options.tlsVerify === false;
  const { transport, certificates } = await openTransport(registry, insecure, { options, manners, slots });
  // What was given by hand was given for the registry of the reference; a mirror's are in files.
  const asked = own ? options : { ...options, credentials: undefined, registryToken: undefined };
  const credentials = new Credentials({ registry, repository }, asked);
  const authenticator = new Authenticator(repository, credentials, transport, manners.timeouts);
  const settled = { ...source, insecure, plainHttp: source.plainHttp || (own && options.plainHttp === true) };
  return new Endpoint(settled, transport, authenticator, manners, certificates);
}

/** Finds out on first use which version of the protocol the registry speaks. */
class RegistrySession implements Session {
  readonly #reference: Reference;
  readonly #endpoints: Mirrored;
  readonly #options: RegistryOptions;
  readonly #manners: Manners;
  #session: Promise<Session> | undefined;

  constructor(reference: Reference, endpoints: Mirrored, options: RegistryOptions, manners: Manners) {
    this.#reference = reference;
    this.#endpoints = endpoints;
    this.#options = options;
    this.#manners = manners;
  }

  async #choose(signal: AbortSignal): Promise<Session> {
    const { registryVersion, manifestStore } = this.#options;
    const { timeouts } = this.#manners;
    // Version 1 has no digests: a reference with one needs no question, and perhaps no connection either.
    const asked = registryVersion === 2 || this.#reference.digest !== undefined;
    if (asked || (registryVersion !== 1 && (await this.#endpoints.contact(signal)).version2)) {
      const documents = new Documents(this.#reference, this.#endpoints, manifestStore, timeouts);
      return new Version2Session(this.#reference, this.#endpoints, documents, timeouts);
    }
    const { name } = this.#endpoints.registry;
    throw new NetworkError(
      `${name} does not speak version 2 of the registry protocol: GET /v2/ is answered 404`,
      {
        hint: 'is this a container registry?',
      },
    );
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
  }
}
