import {
  DlrootfsError,
  IntegrityError,
  isTransient,
  NetworkError,
  printable,
  TransientError,
} from '../errors.ts';
import type { BlobResponse } from '../oci/image.ts';
import { reasonOf } from '../sys/os-error.ts';

/** The body of a response, read in parts of the caller's size. */
export class Body {
  /** Offset in the blob of the first byte that it does not deliver. */
  readonly end: number;
  /** Offset in the blob of the next byte. */
  at: number;
  readonly #blob: string;
  readonly #body: AsyncIterator<Uint8Array>;
  #rest: Uint8Array | undefined;
  #over = false;

  /** @param blob its name in messages */
  constructor(blob: string, { body, start }: BlobResponse, end = Infinity) {
    this.#blob = blob;
    this.end = end;
    this.at = start;
    this.#body = body[Symbol.asyncIterator]();
  }

  /**
   * Returns the next bytes, at most `most`; undefined at the end.
   *
   * @throws TransientError for any failure of the network; any other DlrootfsError unchanged
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
      throw this.#broken(error);
    });
    this.#over = next.done === true;
    if (next.done) return undefined;
    return next.value;
  }

  /** Makes any failure of the network transient: another connection continues the blob. */
  #broken(error: unknown): unknown {
    if (isTransient(error)) return error;
    if (!(error instanceof DlrootfsError)) return new BrokenTransferError(this.#blob, reasonOf(error), error);
    const { message, code, hint } = error;
    return error instanceof NetworkError ? new TransientError(message, { code, hint, cause: error }) : error;
  }

  /** Closes its connection, unless the body has ended. */
  async close(): Promise<void> {
    if (!this.#over) await this.#body.return?.().catch(() => undefined);
    this.#over = true;
  }
}

/**
 * The bytes of a blob do not match its digest, size or entity tag. They are removed from the store, those of
 * a download when its queue is closed. So another pull of the same image downloads the blob again: see
 * `withoutCorruptBlobs`.
 */
export class CorruptBlobError extends IntegrityError {
  /** Name of the blob, for messages and to compare. */
  readonly blob: string;

  constructor(blob: string, reason: string) {
    super(`${blob}: ${reason}`, { code: 'DIGEST_MISMATCH' });
    this.blob = blob;
  }
}

/** The body of a blob ended too early. */
export class BrokenTransferError extends TransientError {
  /** The reason without the name of the blob. */
  readonly reason: string;

  constructor(blob: string, reason: string, cause?: unknown) {
    super(`${blob}: ${printable(reason)}`, { cause });
    this.reason = reason;
  }
}
