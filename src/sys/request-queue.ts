import pLimit, { type LimitFunction } from 'p-limit';

/** The rank of manifests, configs and other documents. */
export const DOCUMENT_RANK = -1;

interface Waiting {
  readonly rank: number;
  /** Never rejects. */
  readonly work: () => Promise<void>;
}

/**
 * The queue of all requests of a run; p-limit bounds how many are under way (`--jobs`). A free connection goes to the request of the lowest
 * rank, and of one rank to the one that waits longest. The rank of a blob is its place in the image, from 0, since layers are unpacked in
 * that order; documents come before all blobs.
 */
export class RequestQueue {
  readonly #limit: LimitFunction;
  readonly #waiting: Waiting[] = [];

  /** @param connections limit on their number, for documents and blobs together */
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
      // For each request that waits, one call waits here.
      void this.#limit(() => this.#waiting.shift()!.work());
    });
  }
}
