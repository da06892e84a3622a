import { DlrootfsError, IntegrityError, NetworkError, printable } from '../errors.ts';
import { reasonOf } from '../sys/os-error.ts';
import type { BlobResponse } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { backoff, inSeconds, pause, type RetryPolicy } from '../sys/retry.ts';

/** The body of an answer, read in parts of the caller's size. */
export class Body {
  /** Offset in the blob of the first byte that it does not deliver. */
  readonly end: number;
  /** Offset in the blob of the next byte. */
  at: number;
  readonly #body: AsyncIterator<Uint8Array>;
  #rest: Uint8Array | undefined;
  #over = false;

  constructor({ body, start }: BlobResponse, end = Infinity) {
    this.end = end;
    this.at = start;
    this.#body = body[Symbol.asyncIterator]();
  }

  /**
   * The next bytes, at most `most`; undefined at the end.
   *
   * @throws BrokenTransferError for a failure of the network; any other DlrootfsError unchanged
   */
  async next(most = Infinity): Promise<Uint8Array | undefined> {
    const chunk = this.#rest ?? (await this.#receive());
    if (!chunk) return undefined;
    const part = chunk.subarray(0, most);
    this.#rest = part.length < chunk.length ? chunk.subarray(part.length) : undefined;
    this.at += part.length;
    return part;
  }

  async #receive(): Promise<Uint8Array | undefined> {
    const next = await this.#body.next().catch((error: unknown) => {
      this.#over = true;
      throw broken(error);
    });
    this.#over = next.done === true;
    if (next.done) return undefined;
    return next.value;
  }

  /** Closes its connection, unless the body has ended. */
  async close(): Promise<void> {
    if (!this.#over) await this.#body.return?.().catch(() => undefined);
    this.#over = true;
  }
}

function broken(error: unknown): unknown {
  if (error instanceof DlrootfsError && !(error instanceof NetworkError)) return error;
  return new BrokenTransferError(reasonOf(error), { cause: error });
}

/** A connection that received this many bytes resets the count of retries: the size of the blob bounds them. */
const WORTHWHILE = 64 * 1024;

export interface RetryOptions {
  /** Of the blob, for messages. */
  readonly name: string;
  readonly retryPolicy: RetryPolicy;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** How often one connection to a blob may break. */
export class RetryBudget {
  readonly #options: RetryOptions;
  #failures = 0;
  /** Bytes since the last failure. */
  #received = 0;

  constructor(options: RetryOptions) {
    this.#options = options;
  }

  received(bytes: number): void {
    this.#received += bytes;
  }

  /**
   * Reports the retry, waits, and returns when it is due.
   *
   * @param from offset in the blob where the retry starts
   * @throws `failure` when the retries are used up, or when it is not a BrokenTransferError
   */
  async again(failure: unknown, from: number): Promise<void> {
    const { name, retryPolicy, signal, report } = this.#options;
    signal.throwIfAborted();
    if (!(failure instanceof BrokenTransferError)) throw failure;
    const progress = this.#received >= WORTHWHILE;
    this.#received = 0;
    this.#failures = progress ? 0 : this.#failures + 1;
    if (this.#failures > retryPolicy.retries) throw final(name, failure);
    // At once after progress: such a link drops every connection after a while.
    const wait = progress ? 0 : backoff(retryPolicy, this.#failures);
    const how = wait === 0 ? 'resuming' : `retrying in ${inSeconds(wait)}`;
    const message = `${name}: ${printable(failure.message)}; ${how} from byte ${from}`;
    report({ type: 'notice', message });
    await pause(wait, signal);
  }
}

function final(name: string, error: BrokenTransferError): unknown {
  if (error.cause instanceof NetworkError) return error.cause;
  return new NetworkError(`${name}: ${printable(error.message)}`, { cause: error.cause });
}

/**
 * The bytes of a blob do not match its digest, size or entity tag. They are no longer in the store, so another pull of the same image
 * downloads the blob again: worth one more attempt, see `withoutCorruptBlobs`.
 */
export class CorruptBlobError extends IntegrityError {
  /** Which of the image's blobs it is, for messages and for comparing. */
  readonly blob: string;

  constructor(blob: string, reason: string) {
    super(`${blob}: ${reason}`, { code: 'DIGEST_MISMATCH' });
    this.blob = blob;
  }
}

/** The connection ended too early. */
export class BrokenTransferError extends Error {}
