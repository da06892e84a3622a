import { setTimeout as sleep } from 'node:timers/promises';
import type { Report } from '../report/event.ts';
import { isTransient } from './transient.ts';

export interface RetryPolicy {
  /** Tries after the first. */
  readonly retries: number;
  /** Milliseconds before the first of them. */
  readonly delay: number;
}

/** No wait is longer than this, in milliseconds, whoever asks for it. */
const MAX_WAIT = 60_000;
/** All waits for one request together, in milliseconds. */
const MAX_WAITS = 300_000;

/** The wait before retry number `attempt` (from 1), in milliseconds: doubled each time, half of it by chance. */
export function backoff(policy: RetryPolicy, attempt: number, random: number): number {
  const full = Math.min(policy.delay * 2 ** Math.min(attempt - 1, 30), MAX_WAIT);
  return full / 2 + (full / 2) * random;
}

function inSeconds(milliseconds: number): string {
  return `${milliseconds >= 9_950 ? Math.round(milliseconds / 1000) : (milliseconds / 1000).toFixed(1)} s`;
}

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
  for (let count = 1; ; count += 1) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!isTransient(error) || count > policy.retries) throw error;
      const asked = error.retryAfter ?? 0;
      const wait = Math.max(backoff(policy, count, Math.random()), asked);
      if (wait > MAX_WAIT || waited + wait > MAX_WAITS) {
        const limit = inSeconds(wait > MAX_WAIT ? MAX_WAIT : MAX_WAITS);
        const message = `not tried again: ${asked > 0 ? 'the server asks for' : 'it would need'} a wait of ${inSeconds(wait)}, ${limit} is the limit`;
        report({ type: 'notice', message });
        throw error;
      }
      const message = `retry ${count} of ${policy.retries} in ${inSeconds(wait)}: ${error.message}`;
      report({ type: 'notice', message });
      waited += wait;
      await sleep(wait, undefined, { signal }).catch(() => undefined);
    }
  }
}
