import { setTimeout as sleep } from 'node:timers/promises';
import { type DlrootfsError, NetworkError, NotFoundError } from '../errors.ts';
import type { Report } from '../report/event.ts';
import type { Authenticator } from './auth/authenticator.ts';
import { parseChallenges } from './auth/challenge.ts';
import { commonHeaders } from './common-headers.ts';
import type { Response } from './http/exchange.ts';
import { firstContact } from './contact.ts';
import { answerError, readFailure } from './http/answer-error.ts';
import type { Timeouts } from './registry-options.ts';
import { backoff, type RetryPolicy } from '../sys/retry.ts';
import { retry } from './retry.ts';
import type { Source } from './sources.ts';
import { isTransient, refusedByStorage } from './transient.ts';
import { NOT_HTTP } from './http/transport-error.ts';
import type { Transport } from './http/transport.ts';
import { warningTexts } from './warning-header.ts';

/** What all endpoints of a session have in common. */
export interface Manners {
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy;
  readonly report: Report;
}

/** A request below `/v2/REPOSITORY/`. */
export interface Query {
  readonly method?: 'GET' | 'HEAD';
  /** `manifests/latest` */
  readonly path: string;
  /** Lower-case names. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Statuses that are fine beside 200: the reader deals with them. */
  readonly also?: readonly number[];
  /** What is asked for, for errors: `the manifest of library/alpine:latest`. */
  readonly subject: string;
}

/** Where the registry is and what it speaks. */
export interface Contact {
  /** Ends in `/v2/`. */
  readonly base: URL;
  /** False: `/v2/` is answered neither 200 nor 401. */
  readonly version2: boolean;
  /** `/v2/` is answered 200 with a web page, as by servers that answer so to everything. */
  readonly page?: boolean;
  /** How `/v2/` is answered, where that is not 404. */
  readonly refusal?: DlrootfsError | undefined;
}

/** Tries of one request to satisfy a registry that asks for authorization. */
const MAX_CHALLENGES = 3;

/** Warnings of one registry that are passed on. */
const MAX_WARNINGS = 10;

const hubApi = 'registry-1.docker.io';

/** One registry, or mirror, as the place of one repository: found, greeted, and asked with the right authorization. */
export class Endpoint {
  readonly source: Source;
  readonly #transport: Transport;
  readonly #authenticator: Authenticator;
  readonly #manners: Manners;
  readonly #certificates: boolean;
  readonly #warnings = new Set<string>();
  #contact: Promise<Contact> | undefined;

  /** @param certificates somebody gave certificates for this registry */
  constructor(
    source: Source,
    transport: Transport,
    authenticator: Authenticator,
    manners: Manners,
    certificates: boolean,
  ) {
    this.source = source;
    this.#transport = transport;
    this.#authenticator = authenticator;
    this.#manners = manners;
    this.#certificates = certificates;
  }

  /** `host[:port]` as people know it. */
  get name(): string {
    return this.source.registry;
  }

  /** The first request, made once: `GET /v2/` tells scheme, version and challenge. */
  contact(signal: AbortSignal): Promise<Contact> {
    const { retry: policy, report } = this.#manners;
    const visit = { source: this.source, certificates: this.#certificates, retry: policy, report };
    const host = this.name === 'docker.io' ? hubApi : this.name;
    this.#contact ??= firstContact(
      visit,
      (scheme) => this.#ping(new URL(`${scheme}://${host}/v2/`), signal),
      signal,
    );
    return this.#contact;
  }

  async #ping(base: URL, signal: AbortSignal): Promise<Contact> {
    const { timeouts } = this.#manners;
    const response = await this.#transport.send({ method: 'GET', url: base, headers: commonHeaders }, signal);
    const { status } = response;
    const body = await readFailure(response, timeouts, signal);
    if (status === 400 && base.protocol === 'http:' && /HTTPS/i.test(Buffer.from(body).toString('latin1'))) {
      const hint = 'leave --plain-http out';
      throw new NetworkError(`${base.host} speaks https and was asked over plain http`, {
        code: NOT_HTTP,
        hint,
      });
    }
    // A registry that only sends its visitors to https is talked to there.
    const moved = response.url.hostname === base.hostname && response.url.pathname === '/v2/';
    const place = moved ? new URL('/v2/', response.url) : base;
    if (status === 401)
      this.#authenticator.learn(parseChallenges(response.headers('www-authenticate')), place);
    if (status === 401 || status === 200) return { base: place, version2: true, page: isWebPage(response) };
    const error = answerError(response, body, `the registry API of ${this.name}`);
    // Who does not know the address does not know version 2; what is refused, or may be better later, is another matter.
    const unknown = error instanceof NotFoundError || error instanceof NetworkError;
    if (!unknown || isTransient(error)) throw error;
    return { base: place, version2: false, refusal: status === 404 ? undefined : error };
  }

  /**
   * Sends a request, with authorization where it is wanted, and reads the answer; tries again what another try may heal, reading
   * included. Throws the errors of `answerError` and of the transport.
   */
  async ask<T>(
    query: Query,
    read: (response: Response) => Promise<T>,
    signal: AbortSignal,
    retries?: number,
  ): Promise<T> {
    const { base, version2, refusal } = await this.contact(signal);
    if (!version2) {
      if (refusal) throw refusal;
      const hint = 'is this a container registry?';
      throw new NetworkError(`${this.name} does not speak version 2 of the registry protocol`, {
        code: 'NO_V2',
        hint,
      });
    }
    const { retry: policy, report } = this.#manners;
    const bound = { ...policy, retries: Math.min(policy.retries, retries ?? Infinity) };
    return retry(async () => read(await this.#attempt(base, query, signal)), bound, signal, report);
  }

  async #attempt(base: URL, query: Query, signal: AbortSignal): Promise<Response> {
    const { method = 'GET', path, subject, also = [] } = query;
    const url = new URL(`${this.source.repository}/${path}`, base);
    for (let count = 1; ; count += 1) {
      const authorization = await this.#authenticator.header(signal);
      const headers = {
        ...commonHeaders,
        ...query.headers,
        ...(authorization !== undefined && { authorization }),
      };
      const response = await this.#transport.send({ method, url, headers }, signal);
      const { status } = response;
      if (status === 200 || also.includes(status)) {
        this.#authenticator.accepted(authorization);
        this.#passOn(warningTexts(response.headers('warning')));
        return response;
      }
      const own = response.url.origin === url.origin;
      const body = await readFailure(response, this.#manners.timeouts, signal);
      if (status === 401 && own && count < MAX_CHALLENGES) {
        const challenges = parseChallenges(response.headers('www-authenticate'));
        const verdict = this.#authenticator.refused(authorization, challenges, base);
        if (verdict === 'later') {
          await this.#pause(count, signal);
          continue;
        }
        if (verdict === 'again' && (await this.#authenticator.header(signal)) !== authorization) continue;
      }
      const error = answerError(response, body, subject, this.#authenticator.sent);
      if (!own && (status === 401 || status === 403)) throw refusedByStorage(error);
      throw error;
    }
  }

  async #pause(count: number, signal: AbortSignal): Promise<void> {
    const { retry: policy, report } = this.#manners;
    const message = `${this.name} refused a fresh token as invalid; trying another one`;
    report({ type: 'notice', message });
    await sleep(backoff(policy, count), undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  }

  /** Asks an address that a manifest names, with nothing that is private. */
  async askElsewhere<T>(
    url: URL,
    query: Query,
    read: (response: Response) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const { retry: policy, report, timeouts } = this.#manners;
    const attempt = async () => {
      const response = await this.#transport.send(
        { method: 'GET', url, headers: { ...commonHeaders, ...query.headers } },
        signal,
      );
      if (response.status === 200 || query.also?.includes(response.status)) return read(response);
      throw answerError(response, await readFailure(response, timeouts, signal), query.subject);
    };
    return retry(attempt, policy, signal, report);
  }

  #passOn(warnings: readonly string[]): void {
    for (const text of warnings) {
      if (this.#warnings.has(text) || this.#warnings.size >= MAX_WARNINGS) continue;
      this.#warnings.add(text);
      this.#manners.report({ type: 'notice', message: `${this.name} says: ${text}` });
    }
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }
}

function isWebPage({ header }: Response): boolean {
  const html = /\bhtml\b/i.test(header('content-type') ?? '');
  return html && header('docker-distribution-api-version') === undefined;
}
