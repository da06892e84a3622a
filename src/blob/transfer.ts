import { DlrootfsError, NetworkError, reasonOf } from '../errors.ts';
import type { BlobResponse } from '../oci/image.ts';
import { idleTime } from './appetite.ts';
import { BrokenTransferError } from './damage.ts';
import type { Pace } from './pieces.ts';

/** The pace of a body, from when it is made; a TimedBody keeps it. */
export class Meter implements Pace {
  bytes = 0;
  waited = 0;
  readonly #start = performance.now();

  get elapsed(): number {
    return performance.now() - this.#start;
  }
}

/**
 * A body whose waits for the network are added up in `pace`, and whose failures are BrokenTransferErrors. No generator: one that was
 * not begun would not pass on that it is left, and the connection would stay open.
 */
export class TimedBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #body: AsyncIterator<Uint8Array>;
  readonly #pace: Meter;
  #over = false;

  constructor(body: AsyncIterable<Uint8Array>, pace: Meter) {
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
