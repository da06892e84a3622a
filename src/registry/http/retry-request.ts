import { backoff, type Decide, inSeconds, MAX_WAIT, retryWhile } from '../../sys/retry.ts';
import type { RequestPolicy } from '../registry-options.ts';
import { isTransient } from './transport-error.ts';

/** Limit on all waits for one request together, in milliseconds. */
const MAX_WAITS = 300_000;

/**
 * Calls `attempt` until it succeeds, fails for good, or the retries are used up; then throws its last error. Every retry is reported.
 * A server may ask for longer waits (`Retry-After`), up to a minute: beyond that the error is final.
 *
 * @param retries fewer than those of the policy
 * @throws the signal's reason as soon as it aborts
 */
export async function retryRequest<T>(
  attempt: () => Promise<T>,
  policy: RequestPolicy,
  signal: AbortSignal,
  retries = Infinity,
): Promise<T> {
  const most = Math.min(policy.retry.retries, retries);
  const notice = (message: string) => policy.report({ type: 'notice', message });
  let waited = 0;
  const decide: Decide = (error, failures) => {
    if (!isTransient(error) || failures > most) return undefined;
    const asked = error.retryAfter ?? 0;
    const wait = Math.max(backoff(policy.retry, failures), asked);
    waited += wait;
    if (wait <= MAX_WAIT && waited <= MAX_WAITS) {
      notice(`retry ${failures} of ${most} in ${inSeconds(wait)}: ${error.message}`);
      return wait;
    }
    const why = asked > 0 ? 'the server asks for a wait' : 'it would need a wait';
    const limit = inSeconds(wait > MAX_WAIT ? MAX_WAIT : MAX_WAITS);
    notice(`not retrying: ${why} of ${inSeconds(wait)}, the limit is ${limit}`);
    return undefined;
  };
  return retryWhile(attempt, decide, signal);
}
