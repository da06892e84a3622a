import { setTimeout as sleep } from 'node:timers/promises';

/** The number of retries and the delay before them. `--retry` and `--retry-delay` set it. */
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

/** Milliseconds as people read them: `0.5 s`, `12 s`. */
export function inSeconds(milliseconds: number): string {
  return `${milliseconds >= 9_950 ? Math.round(milliseconds / 1000) : (milliseconds / 1000).toFixed(1)} s`;
}
