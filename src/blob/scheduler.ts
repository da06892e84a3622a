import pLimit, { type LimitFunction } from 'p-limit';
import { BIG } from './pace.ts';

/** A blob that comes over several connections. */
export interface Shared {
  /** Place in the image, from 0. */
  readonly rank: number;
  /** There is something to do for one more connection. */
  readonly wanting: () => boolean;
  /** Does some of it over one; never rejects. */
  readonly help: () => Promise<void>;
}

/** A blob that waits for its first connection. */
interface Start {
  readonly rank: number;
  readonly big: boolean;
  readonly go: () => void;
}

/**
 * The bound on all connections for blobs together, and who gets one. Layers are unpacked in the order of the image, so a connection that
 * is free goes to the first blob that can use it: the sooner the first layers are here, the more of unpacking them is hidden behind the
 * transfer of the others. While it is not known of some big blobs whether they gain by more connections, further big ones wait.
 */
export class Connections {
  readonly #limit: LimitFunction;
  readonly #starts: Start[] = [];
  readonly #shared = new Set<Shared>();
  /** Ranks of big blobs that are being watched. */
  readonly #watched = new Set<number>();

  constructor(count: number) {
    this.#limit = pLimit(count);
  }

  get count(): number {
    return this.#limit.concurrency;
  }

  /** Brings a blob from its first connection to its end; `size` in bytes, where it is known. To be called in the order of ranks. */
  async run<T>(rank: number, size: number | undefined, task: () => Promise<T>): Promise<T> {
    const big = size !== undefined && size >= BIG;
    try {
      return await new Promise<T>((resolve) => {
        this.#starts.push({ rank, big, go: () => resolve(this.#limit(task)) });
        this.deal();
      });
    } finally {
      this.#watched.delete(rank);
      this.deal();
    }
  }

  /** It is known how the blob comes, or it does not come for the time being: no other waits for that any more. */
  settle(rank: number): void {
    if (this.#watched.delete(rank)) this.deal();
  }

  /** Gives a blob what connections are free now and later. The answer ends it. */
  share(shared: Shared): () => void {
    this.#shared.add(shared);
    this.deal();
    return () => this.#shared.delete(shared);
  }

  /** A blob before this one can use a connection. */
  wantedBefore(rank: number): boolean {
    const first = Math.min(this.#firstWanting()?.rank ?? rank, this.#firstStart()?.rank ?? rank);
    return first < rank;
  }

  /** Gives away what is free; to be called whenever somebody can use a connection that could not before. */
  deal(): void {
    while (this.#limit.activeCount + this.#limit.pendingCount < this.count) {
      const shared = this.#firstWanting();
      const start = this.#firstStart();
      if (shared && !(start && start.rank < shared.rank)) {
        void this.#limit(shared.help).finally(() => this.deal());
      } else if (start) {
        this.#starts.splice(this.#starts.indexOf(start), 1);
        if (start.big) this.#watched.add(start.rank);
        start.go();
      } else {
        return;
      }
    }
  }

  #firstStart(): Start | undefined {
    const most = Math.max(1, Math.floor(this.count / 2));
    return this.#starts.find(({ big }) => !big || this.#watched.size < most);
  }

  #firstWanting(): Shared | undefined {
    let first: Shared | undefined;
    for (const shared of this.#shared) {
      if (shared.wanting() && !(first && first.rank < shared.rank)) first = shared;
    }
    return first;
  }
}
