import { DlrootfsError, NetworkError, printable } from '../errors.ts';
import type { BlobResponse } from '../oci/image.ts';
import { idleTime } from './appetite.ts';
import { BrokenTransferError } from './damage.ts';
import type { Pace } from './pieces.ts';

/** The pace of a body, from when it is made; `timed` keeps it. */
export class Meter implements Pace {
  bytes = 0;
  waited = 0;
  readonly #start = performance.now();

  get elapsed(): number {
    return performance.now() - this.#start;
  }
}

/** A body whose waits for the network are added up in `pace`, and whose failures are BrokenTransferErrors. */
export async function* timed(
  body: AsyncIterable<Uint8Array>,
  pace: Meter,
): AsyncGenerator<Uint8Array, void, undefined> {
  const iterator = body[Symbol.asyncIterator]();
  let done = false;
  try {
    for (;;) {
      const before = idleTime();
      const next = await iterator.next().catch((error: unknown) => {
        done = true;
        throw broken(error);
      });
      pace.waited += idleTime() - before;
      done = next.done === true;
      if (next.done) return;
      pace.bytes += next.value.length;
      yield next.value;
    }
  } finally {
    if (!done) await iterator.return?.().catch(() => undefined);
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
  const reason = error instanceof Error ? error.message : String(error);
  return new BrokenTransferError(printable(reason), { cause: error });
}
