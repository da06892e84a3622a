import { setTimeout as sleep } from 'node:timers/promises';

/** The number of retries and the delay before them. One set of defaults: `--retries`, `--retry-delay`. */
export interface RetryPolicy {
  /** Tries after the first. */
  readonly retries: number;
  /** Milliseconds before the first of them. */
  readonly delay: number;
}

/** No wait is longer, in milliseconds. */
export const MAX_WAIT = 60_000;

/** The wait before retry number `attempt` (from 1), in milliseconds: doubled each time, half of it by chance. */
export function backoff(policy: RetryPolicy, attempt: number, random = Math.random()): number {
  const whole = Math.min(policy.delay * 2 ** Math.min(attempt - 1, 30), MAX_WAIT);
  return whole / 2 + (whole / 2) * random;
}

/**
 * Waits.
 *
 * @throws the signal's reason, at once
 */
export async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => undefined);
  signal.throwIfAborted();
}

/** Whether and when to try again: milliseconds to wait, or undefined where `error` is final. */
export type Decide = (error: unknown, failures: number) => number | undefined;

/**
 * Calls `attempt` until it succeeds, or `decide` says that its error is final; then throws that error.
 *
 * @param decide asked after each failure with the number of failures, from 1; it also reports the retry
 * @throws the signal's reason as soon as it aborts
 */
export async function retryWhile<T>(
  attempt: () => Promise<T>,
  decide: Decide,
  signal: AbortSignal,
): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      const wait = decide(error, failures);
      if (wait === undefined) throw error;
      await pause(wait, signal);
    }
  }
}

/** Milliseconds as people read them: `0.5 s`, `12 s`. */
export function inSeconds(milliseconds: number): string {
  return `${milliseconds >= 9_950 ? Math.round(milliseconds / 1000) : (milliseconds / 1000).toFixed(1)} s`;
}
