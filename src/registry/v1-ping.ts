import { isObject, parseJson } from '../oci/json.ts';
import { commonHeaders } from './common-headers.ts';
import type { Response } from './http/exchange.ts';
import { answerError, readFailure } from './http/answer-error.ts';
import type { Timeouts } from './registry-options.ts';
import { isTransient } from './transient.ts';
import type { Transport } from './http/transport.ts';

/** How a server answers to `/v1/_ping`. */
export interface Ping {
  readonly status: number;
  /** Where to ask for the rest; ends in `/v1/`. */
  readonly base: URL;
  /** This is a registry of version 1, as far as one can tell. */
  readonly version1: boolean;
  /** Index and registry in one. */
  readonly standalone: boolean;
}

/**
 * Whether a registry plays the index too: `X-Docker-Registry-Standalone`, else `standalone` in the body, else yes (Docker 1.4,
 * registry/endpoint.go).
 */
export function isStandalone(header: string | undefined, body: unknown): boolean {
  const said = header?.trim() ?? '';
  if (said !== '') return said === '1' || said.toLowerCase() === 'true';
  return !isObject(body) || body['standalone'] !== false;
}

function looksLikeRegistry({ status, header }: Response): boolean {
  if (status === 401) return true;
  if (status !== 200) return false;
  const named =
    header('x-docker-registry-version') !== undefined || header('x-docker-registry-standalone') !== undefined;
  return named || !/\bhtml\b/i.test(header('content-type') ?? '');
}

function parsed(body: Uint8Array): unknown {
  try {
    return parseJson(body, 'the answer to a ping');
  } catch {
    return undefined;
  }
}

/** Asks `url`, which ends in `/v1/_ping`, without credentials. Throws what another try may heal, and errors of the transport. */
export async function pingVersion1(
  url: URL,
  transport: Transport,
  timeouts: Timeouts,
  signal: AbortSignal,
): Promise<Ping> {
  const response = await transport.send({ method: 'GET', url, headers: commonHeaders }, signal);
  const body = await readFailure(response, timeouts, signal);
  const { status } = response;
  if (status !== 200) {
    const error = answerError(response, body, `the registry API of ${url.host}`);
    if (isTransient(error)) throw error;
  }
  // A registry that only sends its visitors to https is talked to there.
  const moved = response.url.hostname === url.hostname && response.url.pathname === url.pathname;
  return {
    status,
    base: new URL('/v1/', moved ? response.url : url),
    version1: looksLikeRegistry(response),
    standalone: isStandalone(response.header('x-docker-registry-standalone'), parsed(body)),
  };
}
