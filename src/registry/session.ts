import { type DlrootfsError, type ErrorDetails, NetworkError, NotFoundError, UsageError } from '../errors.ts';
import type { RemoteLayer, Session } from '../oci/image.ts';
import { Reference } from '../oci/reference.ts';
import { RequestQueue } from '../sys/request-queue.ts';
import { Secrets } from '../sys/secrets.ts';
import { locationsOf, readRegistriesConf } from './config/registries-conf.ts';
import { type Explain, Failover } from './endpoint.ts';
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

/** A repository with its hosts and the settings to read it. */
interface Repository {
  readonly reference: Reference;
  readonly settings: SessionSettings;
  /** The hosts in order of preference; the last one is the registry of the reference. Empty offline. */
  readonly hosts: readonly RegistryHost[];
}

/** A session by one version of the protocol. It has no connections of its own to close. */
type VersionSession = Omit<Session<RemoteLayer>, 'close'>;

/**
 * Prepares a session about one repository. Reads configuration files, but opens no connection yet.
 *
 * @throws UsageError for invalid options and files, and if registries.conf blocks the repository
 */
export async function openSession(
  reference: Reference,
  given: RegistryOptions,
): Promise<Session<RemoteLayer>> {
  const { report, secrets = new Secrets(), offline } = given;
  const options = offline ? given : withoutEmptyCredentials(given);
  const closing = new AbortController();
  const signal = AbortSignal.any([closing.signal, ...(options.signal ? [options.signal] : [])]);
  const timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
  const settings = {
    options,
    timeouts,
    retryPolicy: retryPolicyOf(options),
    report,
    secrets,
    requests: options.requests ?? new RequestQueue(DEFAULT_CONNECTIONS),
    signal,
  };
  const locations = offline
    ? []
    : locationsOf(reference, options.mirrors ?? [], await readRegistriesConf(options));
  const hosts = await Promise.all(locations.map((location) => RegistryHost.open(location, settings)));
  let session: Promise<VersionSession> | undefined;
  const chosen = () => (session ??= chooseVersion({ reference, settings, hosts }));
  return {
    image: async (...asked) => (await chosen()).image(...asked),
    attachments: async () => (await chosen()).attachments(),
    async *tags() {
      yield* (await chosen()).tags();
    },
    async close() {
      closing.abort(new NetworkError('the session with the registry is closed'));
      await session?.catch(() => undefined);
    },
  };
}

function withoutEmptyCredentials(options: RegistryOptions): RegistryOptions {
  const { username, password, source = '--user' } = options.credentials ?? {};
  if (username !== '' || password !== '') return options;
  const message = `${source} has neither user name nor password; going on without credentials`;
  options.report({ type: 'notice', message });
  return { ...options, credentials: undefined, noCredentials: true };
}

/** Returns the error of the registry of the reference, followed by the answers of its mirrors. */
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
  // The same class keeps the exit code.
  const Kind = error.constructor as new (message: string, details: ErrorDetails) => DlrootfsError;
  return new Kind(error.message + answers.join(''), { code, hint, cause: error });
};

/** Makes the error for a document that is missing offline. */
function notCached(hint: string): Explain {
  return (_, __, subject) =>
    new NotFoundError(`cannot read ${subject} offline: the cache does not have it`, {
      code: 'NOT_CACHED',
      hint,
    });
}

/** Chooses the version of the protocol. */
async function chooseVersion(repository: Repository): Promise<VersionSession> {
  const { reference, settings, hosts } = repository;
  const { registryVersion, mirrors = [], report, offline } = settings.options;
  const endpoints = hosts.map(({ endpoint }) => endpoint);
  const failover = new Failover(endpoints, settings, offline ? notCached(offline.hint) : explainMirrors);
  const version2 = () => new Version2Session(reference, settings.options, failover);
  if (offline) return version2();
  if (registryVersion === 1) {
    if (reference.digest !== undefined) {
      throw new UsageError(
        `cannot read ${Reference.format(reference)} by version 1 of the registry protocol, which has no digests`,
        { hint: 'name a tag, or leave out --registry-version' },
      );
    }
    if (mirrors.length > 0) {
      const message = 'ignoring --mirror: version 1 of the registry protocol has no mirrors';
      report({ type: 'notice', message });
    }
    return version1(repository, await hosts.at(-1)!.ping(undefined));
  }
  // A reference with a digest needs version 2, so no first contact, and no connection if all is stored.
  if (registryVersion === 2 || reference.digest !== undefined) return version2();
  const first = await failover.first({ subject: 'the registry API' }, (endpoint) =>
    hosts[endpoints.indexOf(endpoint)]!.contact(),
  );
  return first.version2 === 'yes' ? version2() : versionByAnswers(repository, version2);
}

/**
 * Chooses the version by the answers of the registry itself, which a mirror with version 2 makes unnecessary.
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
async function versionByAnswers(
  repository: Repository,
  version2: () => VersionSession,
): Promise<VersionSession> {
  const host = repository.hosts.at(-1)!;
  const contact = await host.contact();
  if (contact.version2 === 'yes') return version2();
  try {
    const ping = await host.ping(contact.base);
    if (ping.version1) return version1(repository, ping);
    throw new NetworkError(
      `${host.location.registry} is not a registry: GET /v2/ is answered 404, GET /v1/_ping ${ping.status}`,
      { code: 'NO_REGISTRY', hint: 'check whether this is a container registry' },
    );
  } catch (error) {
    repository.settings.signal.throwIfAborted();
    if (contact.version2 !== 'no') return version2();
    throw contact.refusal ?? error;
  }
}

function version1({ reference, settings, hosts }: Repository, ping: Ping): VersionSession {
  const { base, standalone } = ping;
  const kind = standalone ? 'a standalone registry' : 'an index';
  settings.report({ type: 'debug', message: `version 1: ${base.host} is ${kind}` });
  return new Version1Session(reference, hosts.at(-1)!, ping, settings);
}
