import { DlrootfsError, IntegrityError, NetworkError, printable, reasonOf } from '../errors.ts';
import type { BlobResponse } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { backoff, inSeconds, pause, type RetryPolicy } from '../sys/retry.ts';
import { idleTime, type PaceMeter } from './pace.ts';

/**
 * A body whose waits for the network are added up in `pace`, and whose failures are BrokenTransferErrors. No generator: one that was
 * not begun would not pass on that it is left, and the connection would stay open.
 */
export class TimedBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #body: AsyncIterator<Uint8Array>;
  readonly #pace: PaceMeter;
  #over = false;

  constructor(body: AsyncIterable<Uint8Array>, pace: PaceMeter) {
    this.#body = body[Symbol.asyncIterator]();
    this.#pace = pace;
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const before = idleTime();
    const next = await this.#body.next().catch((error: unknown) => {
      this.#over = true;
      throw broken(error);
    });
    this.#pace.waited += idleTime() - before;
    if (next.done) {
      this.#over = true;
      return { done: true, value: undefined };
    }
    this.#pace.bytes += next.value.length;
    return next;
  }

  /** Closes its connection, unless it has come to its end. */
  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    if (!this.#over) await this.#body.return?.().catch(() => undefined);
    this.#over = true;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** Closes the connection of a response that is not wanted. */
export async function abandon(response: BlobResponse): Promise<void> {
  await response.body[Symbol.asyncIterator]()
    .return?.()
    .catch(() => undefined);
}

function broken(error: unknown): unknown {
  if (error instanceof DlrootfsError && !(error instanceof NetworkError)) return error;
  return new BrokenTransferError(reasonOf(error), { cause: error });
}

/** A connection that received so many bytes resets the count of retries: the size of the blob bounds them. */
const WORTHWHILE = 64 * 1024;

/** How often one blob's connections may break. */
export class RetryBudget {
  readonly #policy: RetryPolicy;
  readonly signal: AbortSignal;
  readonly #report: Report;
  readonly #name: string;
  #failures = 0;
  #mark = 0;

  constructor(name: string, policy: RetryPolicy, signal: AbortSignal, report: Report) {
    this.#name = name;
    this.#policy = policy;
    this.signal = signal;
    this.#report = report;
  }

  /** The same for another connection of the same blob, which counts for itself. */
  another(): RetryBudget {
    return new RetryBudget(this.#name, this.#policy, this.signal, this.#report);
  }

  /**
   * Waits, says so, and returns when it is time to try again; throws `failure` when there have been enough tries. `received` is what
   * the connection brought altogether, `from` where it will go on.
   */
  async again(failure: unknown, received: number, from = received): Promise<void> {
    this.signal.throwIfAborted();
    if (!(failure instanceof BrokenTransferError)) throw failure;
    // Less than before: the download was restarted.
    const progress = received - this.#mark >= WORTHWHILE || received < this.#mark;
    this.#mark = received;
    this.#failures = progress ? 0 : this.#failures + 1;
    if (this.#failures > this.#policy.retries) throw final(this.#name, failure);
    // After progress at once: such a link drops everything now and then.
    const wait = progress ? 0 : backoff(this.#policy, this.#failures);
    const how = wait === 0 ? 'resuming' : `retrying in ${inSeconds(wait)}`;
    const message = `${this.#name}: ${printable(failure.message)}; ${how} from byte ${from}`;
    this.#report({ type: 'notice', message });
    await pause(wait, this.signal);
  }
}

function final(name: string, error: BrokenTransferError): unknown {
  if (error.cause instanceof NetworkError) return error.cause;
  return new NetworkError(`${name}: ${printable(error.message)}`, { cause: error.cause });
}

/**
 * The bytes of a blob are not what its digest, size or entity tag says. They are no longer in the store, so another pull of the same
 * image downloads the blob again: worth one more attempt, see `withoutCorruptBlobs`.
 */
export class CorruptBlobError extends IntegrityError {
  /** Which of the image's blobs it is, for people and for comparing. */
  readonly blob: string;

  constructor(blob: string, reason = 'it is corrupt') {
    super(`${blob}: ${reason}`, { code: 'DIGEST_MISMATCH' });
    this.blob = blob;
  }
}

/** The bytes of a download are not those of the blob. Callers that know the blob turn this into a CorruptBlobError. */
export class WrongBytesError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WrongBytesError';
  }
}

/** The connection ended too early, or the server sent another stretch than it was asked for. */
export class BrokenTransferError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'BrokenTransferError';
  }
}
