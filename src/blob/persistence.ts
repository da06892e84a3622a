import { NetworkError, printable } from '../errors.ts';
import type { Report } from '../report/event.ts';
import { backoff, inSeconds, pause, type RetryPolicy } from '../sys/retry.ts';
import { BrokenTransferError } from './damage.ts';

/** A connection that brought so many bytes was worth it: the count starts anew, so that the size of the blob is the bound. */
const WORTHWHILE = 64 * 1024;

/** How often one blob's connections may break. */
export class Persistence {
  readonly #policy: RetryPolicy;
  readonly #signal: AbortSignal;
  readonly #report: Report;
  readonly #name: string;
  #failures = 0;
  #mark = 0;

  constructor(name: string, policy: RetryPolicy, signal: AbortSignal, report: Report) {
    this.#name = name;
    this.#policy = policy;
    this.#signal = signal;
    this.#report = report;
  }

  /** The same for another connection of the same blob, which counts for itself. */
  another(): Persistence {
    return new Persistence(this.#name, this.#policy, this.#signal, this.#report);
  }

  /**
   * Waits, says so, and returns when it is time to try again; throws `failure` when there have been enough tries. `received` is what
   * the connection brought altogether, `from` where it will go on.
   */
  async again(failure: unknown, received: number, from = received): Promise<void> {
    this.#signal.throwIfAborted();
    if (!(failure instanceof BrokenTransferError)) throw failure;
    // Less than before: it was begun anew.
    const progress = received - this.#mark >= WORTHWHILE || received < this.#mark;
    this.#mark = received;
    this.#failures = progress ? 0 : this.#failures + 1;
    if (this.#failures > this.#policy.retries) throw final(this.#name, failure);
    // After progress at once: such a link drops everything now and then.
    const wait = progress ? 0 : backoff(this.#policy, this.#failures);
    const how = wait === 0 ? 'going on' : `trying again in ${inSeconds(wait)}`;
    const message = `${this.#name}: ${printable(failure.message)}; ${how} from byte ${from}`;
    this.#report({ type: 'notice', message });
    await pause(wait, this.#signal);
  }
}

function final(name: string, error: BrokenTransferError): unknown {
  if (error.cause instanceof NetworkError) return error.cause;
  return new NetworkError(`${name}: ${printable(error.message)}`, { cause: error.cause });
}
