import pLimit, { type LimitFunction } from 'p-limit';

/** The bound on all connections for blobs together. */
export class Connections {
  readonly #limit: LimitFunction;

  constructor(count: number) {
    this.#limit = pLimit(count);
  }

  /** Runs `task` when a connection is free; tasks start in the order of the calls. */
  async run<T>(task: () => Promise<T>): Promise<T> {
    return this.#limit(task);
  }

  /** How many are free, with nobody waiting for one. */
  get spare(): number {
    return Math.max(0, this.#limit.concurrency - this.#limit.activeCount - this.#limit.pendingCount);
  }

  /** Somebody waits for one. */
  get wanted(): boolean {
    return this.#limit.pendingCount > 0;
  }
}
