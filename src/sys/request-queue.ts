import pLimit, { type LimitFunction } from 'p-limit';

/** The rank of manifests, configs and other documents. */
export const DOCUMENT_RANK = -1;

interface Waiting {
  readonly rank: number;
  /** Never rejects. */
  readonly work: () => Promise<void>;
}

/**
 * The queue of all requests of a run; p-limit bounds the number of running ones (`--jobs`). A free connection
 * gets the request of the lowest rank, among equals the one that waits longest. The rank of a blob is its
 * layer's index, from 0, since layers are unpacked in that order; documents precede all blobs.
 */
export class RequestQueue {
  readonly #limit: LimitFunction;
  readonly #waiting: Waiting[] = [];

  /** @param connections limit on connections, for documents and blobs together */
  constructor(connections: number) {
    this.#limit = pLimit(connections);
  }

  get connections(): number {
    return this.#limit.concurrency;
  }

  /** Runs a request when a connection is free for it. */
  async run<T>(rank: number, request: () => Promise<T>): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const after = this.#waiting.findIndex((other) => other.rank > rank);
      const place = after < 0 ? this.#waiting.length : after;
      this.#waiting.splice(place, 0, { rank, work: () => request().then(resolve, reject) });
      // One call of the limiter waits for each waiting request; it runs the first of the queue.
      void this.#limit(() => this.#waiting.shift()!.work());
    });
  }
}
