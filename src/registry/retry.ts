import type { Report } from '../report/event.ts';
import { MAX_WAIT, backoff, inSeconds, retryWhile, type RetryPolicy } from '../sys/retry.ts';
import { isTransient } from './transient.ts';

/** All waits for one request together, in milliseconds. */
const MAX_WAITS = 300_000;

/**
 * Calls `attempt` until it succeeds, fails for good, or the policy is used up; then throws its last error. Every retry is
 * reported once. A server may ask for longer waits (`Retry-After`), up to a minute: beyond that the error is final, and why is
 * said. When `signal` aborts, its reason is thrown at once.
 */
export async function retry<T>(
  attempt: () => Promise<T>,
  policy: RetryPolicy,
  signal: AbortSignal,
  report: Report,
): Promise<T> {
  let waited = 0;
  const decide = (error: unknown, failures: number): number | undefined => {
    if (!isTransient(error) || failures > policy.retries) return undefined;
    const asked = error.retryAfter ?? 0;
    const wait = Math.max(backoff(policy, failures), asked);
    if (wait > MAX_WAIT || waited + wait > MAX_WAITS) {
      const limit = inSeconds(wait > MAX_WAIT ? MAX_WAIT : MAX_WAITS);
      const message = `not tried again: ${asked > 0 ? 'the server asks for' : 'it would need'} a wait of ${inSeconds(wait)}, ${limit} is the limit`;
      report({ type: 'notice', message });
      return undefined;
    }
    const message = `retry ${failures} of ${policy.retries} in ${inSeconds(wait)}: ${error.message}`;
    report({ type: 'notice', message });
    waited += wait;
    return wait;
  };
  return await retryWhile(attempt, decide, signal);
}
