import { setTimeout as sleep } from 'node:timers/promises';
import { isTransient } from '../errors.ts';
import type { Report } from '../report/event.ts';

/** The number of retries and the delay before them. `--retry` and `--retry-delay` set it. */
export interface RetryPolicy {
  /** The number of tries after the first. */
  readonly retries: number;
  /** Milliseconds before the first retry. */
  readonly delay: number;
}

/** Limit on one wait, in milliseconds. */
const MAX_WAIT = 60_000;
/** Limit on all waits of one budget together, in milliseconds. */
const MAX_WAITS = 300_000;
/**
 * A body that delivered this many bytes resets the count of retries; so the size of the blob bounds their
 * number.
 */
const WORTHWHILE = 64 * 1024;

/** The number of repeats of a request, by a reason that waiting does not remove. */
const REPEATS = {
  /** A document with wrong bytes may have been cut off. */
  document: 1,
  /** After 401, with another Authorization header. */
  authorization: 2,
  /**
   * The authority of a certificate is unknown: again with those of the system, once per server of a chain of
   * redirects.
   */
  authorities: 11,
} as const;

/** A failure after which the same request may succeed when it is sent in another way. */
export class RepeatableError extends Error {
  readonly failure: unknown;
  readonly reason: keyof typeof REPEATS;
  /** Reported before a wait; undefined: repeat the request at once. */
  readonly notice: string | undefined;

  constructor(failure: unknown, reason: keyof typeof REPEATS, notice?: string) {
    super(reason, { cause: failure });
    this.failure = failure;
    this.reason = reason;
    this.notice = notice;
  }
}

export interface RetryOptions {
  readonly retryPolicy: RetryPolicy;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** A retry to come. */
export interface Retry {
  readonly failure: Error;
  /** The number of the retry, from 1; 0 after progress. */
  readonly number: number;
  /** Limit on `number`. */
  readonly most: number;
  /** The wait before it, in milliseconds. */
  readonly wait: number;
}

/**
 * Counts the failures of one request, or of one body, and decides about retries by the rules of
 * docs/faults.md. Transient errors are retried up to `--retry` times, after doubled delays or the server's
 * `Retry-After`, both limited. A RepeatableError is repeated a few times at once.
 */
export class RetryBudget {
  readonly #options: RetryOptions;
  #failures = 0;
  #waited = 0;
  /** Bytes of bodies since the last failure. */
  #received = 0;
  readonly #repeats = new Map<string, number>();

  constructor(options: RetryOptions) {
    this.#options = options;
  }

  received(bytes: number): void {
    this.#received += bytes;
  }

  /**
   * Reports the next retry and waits until it is due.
   *
   * @param words makes the notice about a retry
   * @param limit on the retries, if lower than that of the policy
   * @throws `failure` if it is final; the signal's reason, at once
   */
  async again(failure: unknown, words: (retry: Retry) => string, limit = Infinity): Promise<void> {
    const { signal } = this.#options;
    signal.throwIfAborted();
    const wait =
      failure instanceof RepeatableError ? this.#repeat(failure) : this.#retry(failure, words, limit);
    await sleep(wait, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
  }

  #repeat({ failure, reason, notice }: RepeatableError): number {
    const count = (this.#repeats.get(reason) ?? 0) + 1;
    this.#repeats.set(reason, count);
    if (count > REPEATS[reason]) throw failure;
    if (notice === undefined) return 0;
    this.#report(notice);
    return backoff(this.#options.retryPolicy, count);
  }

  #retry(failure: unknown, words: (retry: Retry) => string, limit: number): number {
    if (!isTransient(failure)) throw failure;
    const { retryPolicy } = this.#options;
    const most = Math.min(retryPolicy.retries, limit);
    const progress = this.#received >= WORTHWHILE;
    this.#received = 0;
    if (progress) {
      // Without a wait: such a link drops every connection after a while.
      this.#failures = 0;
      this.#waited = 0;
      this.#report(words({ failure, number: 0, most, wait: 0 }));
      return 0;
    }
    this.#failures += 1;
    if (this.#failures > most) throw failure;
    const asked = failure.retryAfter ?? 0;
    const wait = Math.max(backoff(retryPolicy, this.#failures), asked);
    this.#waited += wait;
    if (wait > MAX_WAIT || this.#waited > MAX_WAITS) {
      const why = asked > 0 ? 'the server asks for a wait' : 'it would need a wait';
      const allowed = inSeconds(wait > MAX_WAIT ? MAX_WAIT : MAX_WAITS);
      this.#report(`not retrying: ${why} of ${inSeconds(wait)}, the limit is ${allowed}`);
      throw failure;
    }
    this.#report(words({ failure, number: this.#failures, most, wait }));
    return wait;
  }

  #report(message: string): void {
    this.#options.report({ type: 'notice', message });
  }
}

/**
 * Returns the wait before retry number `attempt` (from 1), in milliseconds: doubled each time, half of it
 * random.
 */
export function backoff(policy: RetryPolicy, attempt: number, random = Math.random()): number {
  const whole = Math.min(policy.delay * 2 ** Math.min(attempt - 1, 30), MAX_WAIT);
  return whole / 2 + (whole / 2) * random;
}

/** Formats milliseconds: `0.5 s`, `12 s`. */
export function inSeconds(milliseconds: number): string {
  return `${milliseconds >= 9_950 ? Math.round(milliseconds / 1000) : (milliseconds / 1000).toFixed(1)} s`;
}
