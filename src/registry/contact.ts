import { NetworkError } from '../errors.ts';
import type { Report } from '../report/event.ts';
import type { RetryPolicy } from '../sys/retry.ts';
import { isLoopback } from './http/loopback.ts';
import { retry } from './retry.ts';
import type { Source } from './sources.ts';
import { TransientError } from './transient.ts';
import { BROKEN, NOT_HTTP, NOT_TLS, REFUSED, UNREACHABLE } from './http/transport-error.ts';

/** A closed port is no reason to wait long before the first word was said. */
const FIRST_CONTACT_RETRIES = 2;

/** What decides how a registry may be talked to before anything is known of it. */
export interface Visit {
  readonly source: Source;
  /** Somebody gave certificates for this registry. */
  readonly certificates: boolean;
  readonly retry: RetryPolicy;
  readonly report: Report;
}

function schemesOf({ source, certificates }: Visit): readonly ('http' | 'https')[] {
  const { plainHttp, insecure, registry } = source;
  if (plainHttp) return ['http'];
  if (isLoopback(registry)) return certificates ? ['https', 'http'] : ['http', 'https'];
  return insecure ? ['https', 'http'] : ['https'];
}

function speaksOtherwise(error: unknown): boolean {
  return error instanceof NetworkError && [NOT_TLS, NOT_HTTP, BROKEN, REFUSED].includes(error.code);
}

/**
 * Says the first word to a registry: calls `greet` with `https` or, where that is allowed, `http`, and with the other where the
 * registry does not speak it; tries again what another try may heal.
 */
export async function firstContact<T>(
  visit: Visit,
  greet: (scheme: 'http' | 'https') => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const { source, retry: policy, report } = visit;
  const retries = source.mirrorOf === undefined ? policy.retries : Math.min(policy.retries, 1);
  let refusals = 0;
  const attempt = async () => {
    try {
      return await eitherScheme(schemesOf(visit), greet);
    } catch (error) {
      if (!(error instanceof TransientError) || error.code !== REFUSED) throw error;
      refusals += 1;
      if (refusals <= FIRST_CONTACT_RETRIES) throw error;
      throw new NetworkError(error.message, { code: REFUSED, hint: 'check host and port', cause: error });
    }
  };
  return retry(attempt, { ...policy, retries }, signal, report);
}

async function eitherScheme<T>(
  [scheme, otherScheme]: readonly ('http' | 'https')[],
  greet: (scheme: 'http' | 'https') => Promise<T>,
): Promise<T> {
  try {
    return await greet(scheme!);
  } catch (error) {
    if (otherScheme === undefined || !speaksOtherwise(error)) throw error;
    return await greet(otherScheme).catch((second: unknown) => {
      // A server that waits for the rest of what it takes for a request tells less than what it answered before.
      const mute = second instanceof NetworkError && second.code === UNREACHABLE;
      throw speaksOtherwise(second) || mute ? error : second;
    });
  }
}
