import { NotFoundError } from '../errors.ts';
import { Reference } from '../oci/reference.ts';
import { Cookies } from './http/cookies.ts';
import { describeCredential, type Credential } from './auth/credential.ts';
import type { Credentials } from './auth/credentials.ts';
import { firstContact } from './contact.ts';
import { hostnameOf, isLoopback } from './http/loopback.ts';
import { openTransport, type OpenTransport, type TransportSettings } from './open-transport.ts';
import { retry } from './retry.ts';
import type { Source } from './sources.ts';
import { basic } from './auth/token.ts';
import { indexAuthorization, RegistryAuthorization } from './v1-authorization.ts';
import { V1Index } from './v1-index.ts';
import { pingVersion1, type Ping } from './v1-ping.ts';
import { V1Registries } from './v1-registries.ts';
import { V1Server } from './v1-server.ts';
import type { V1Repository } from './v1.ts';

/** The registry of a reference, and what it takes to talk to it. */
export interface Place extends OpenTransport {
  readonly source: Source;
  readonly credentials: Credentials;
}

/** Docker Hub's index, while it had one. */
const hubIndex = 'index.docker.io';

/** What to send of a credential; version 1 knows user names and passwords only. */
interface Proof {
  readonly basic: string | undefined;
  readonly sent: string | undefined;
}

/** A registry greeted as one of version 1: finds the index, and through it the registries that hold the repository. */
export class V1Contact implements V1Repository {
  readonly name: string;
  readonly path: string;
  readonly #place: Place;
  readonly #settings: TransportSettings;
  readonly #cookies = new Cookies();
  readonly #opened = new Map<string, Promise<OpenTransport>>();
  #ping: Ping | undefined;
  #registries: Promise<V1Registries> | undefined;

  constructor(reference: Reference, place: Place, settings: TransportSettings) {
    const { repository } = place.source;
    this.name = Reference.name(reference);
    this.path = repository.includes('/') ? repository : `library/${repository}`;
    this.#place = place;
    this.#settings = settings;
  }

  /** The first word; `known` is where the registry was met before. Throws errors of the transport. */
  async greet(known: URL | undefined, signal: AbortSignal): Promise<Ping> {
    const { source, transport, certificates } = this.#place;
    const { retry: policy, report, timeouts } = this.#settings.manners;
    const ping = (url: URL) => pingVersion1(url, transport, timeouts, signal);
    if (source.registry === 'docker.io') {
      this.#ping = {
        status: 200,
        base: new URL(`https://${hubIndex}/v1/`),
        version1: true,
        standalone: false,
      };
    } else if (known) {
      this.#ping = await retry(() => ping(new URL('/v1/_ping', known)), policy, signal, report);
    } else {
      const visit = { source, certificates, retry: policy, report };
      const greet = (scheme: string) => ping(new URL(`${scheme}://${source.registry}/v1/_ping`));
      this.#ping = await firstContact(visit, greet, signal);
    }
    const { base, standalone } = this.#ping;
    const kind = standalone ? 'a standalone registry' : 'an index';
    report({ type: 'debug', message: `version 1: ${base.host} is ${kind}` });
    return this.#ping;
  }

  /** Asks the index where the repository is. Only after `greet`. */
  registries(signal: AbortSignal): Promise<V1Registries> {
    this.#registries ??= this.#find(this.#ping!, signal);
    return this.#registries;
  }

  async #find(ping: Ping, signal: AbortSignal): Promise<V1Registries> {
    const { manners } = this.#settings;
    const { transport, credentials } = this.#place;
    const proof = this.#proofOf(await credentials.find(signal));
    const authorization = indexAuthorization(proof.basic, proof.sent);
    const server = new V1Server(ping.base, transport, authorization, this.#cookies, manners);
    const mayUseHttp = (host: string) => this.#mayUseHttp(host);
    const index = new V1Index(server, this.path, mayUseHttp, manners.timeouts);
    const { endpoints } = await index.repository(signal).catch((error: unknown) => {
      if (ping.version1 || !(error instanceof NotFoundError)) throw error;
      const hint = `GET /v1/_ping is answered ${ping.status} too: does it speak version 1 of the registry protocol?`;
      throw new NotFoundError(error.message, { hint, cause: error });
    });
    const servers = endpoints.map(async (base) => {
      const own = base.origin === ping.base.origin;
      const password = own ? proof.basic : undefined;
      const way = new RegistryAuthorization(index, password, ping.standalone, proof.sent);
      const open = own ? transport : (await this.#open(base)).transport;
      return new V1Server(base, open, way, this.#cookies, manners);
    });
    return new V1Registries(await Promise.all(servers), manners.report);
  }

  #proofOf(credential: Credential | undefined): Proof {
    if (!credential) return { basic: undefined, sent: undefined };
    const description = describeCredential(credential);
    if (credential.kind === 'password') return { basic: basic(credential), sent: description };
    const message = `${description} is not used: version 1 of the registry protocol knows user names and passwords only`;
    this.#settings.manners.report({ type: 'notice', message });
    return { basic: undefined, sent: undefined };
  }

  #mayUseHttp(host: string): boolean {
    const { plainHttp, insecure } = this.#place.source;
    return plainHttp || insecure || isLoopback(host);
  }

  /** Connections to a registry that is not the index: with the certificates that are its own. */
  #open({ host }: URL): Promise<OpenTransport> {
    const { source } = this.#place;
    const { options } = this.#settings;
    const sameHost = hostnameOf(host) === hostnameOf(source.registry);
    const insecure = options.tlsVerify === false || (source.insecure && sameHost);
    const opening = this.#opened.get(host) ?? openTransport(host, insecure, this.#settings);
    this.#opened.set(host, opening);
    return opening;
  }

  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.#opened.values());
    const open = opened.filter((each) => each.status === 'fulfilled');
    await Promise.all(open.map((each) => each.value.transport.close()));
  }
}
