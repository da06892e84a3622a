import pLimit, { type LimitFunction } from 'p-limit';
import { BIG } from './pace.ts';

/** A blob that waits for its first connection. */
interface Start {
  readonly rank: number;
  readonly big: boolean;
  /** Never rejects. */
  readonly work: () => Promise<void>;
}

/** A blob that several connections may fetch. */
interface Shared {
  readonly rank: number;
  /** One more connection has something to do. */
  readonly wanting: () => boolean;
  /** Does some of it over one more connection; never rejects. */
  readonly work: () => Promise<void>;
}

/**
 * The order in which the connections for blobs are used; p-limit bounds their number. Layers are unpacked in the order of the image, so a
 * free connection goes to the first blob that can use it: the sooner the first layers are here, the more of unpacking them is hidden behind
 * the transfer of the others. While it is unknown of some big blobs whether they gain by more connections, further big ones wait.
 */
export class Scheduler {
  readonly #limit: LimitFunction;
  readonly #starts: Start[] = [];
  readonly #shared = new Set<Shared>();
  /** Ranks of big blobs whose pace is unknown. */
  readonly #watched = new Set<number>();
  #waiting = false;

  /** @param connections at once, all together */
  constructor(connections: number) {
    this.#limit = pLimit(connections);
  }

  get connections(): number {
    return this.#limit.concurrency;
  }

  /** Runs the first connection of a blob of `size` bytes, where that is known. To be called in the order of ranks. */
  async run<T>(rank: number, size: number | undefined, task: () => Promise<T>): Promise<T> {
    const big = size !== undefined && size >= BIG;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#starts.push({ rank, big, work: () => task().then(resolve, reject) });
        this.assign();
      });
    } finally {
      this.settle(rank);
    }
  }

  /** The pace of the blob is known, or it does not come for the time being: no other blob waits for that any more. */
  settle(rank: number): void {
    if (this.#watched.delete(rank)) this.assign();
  }

  /** Gives a blob the connections that are free, now and later. The answer ends it. */
  share(shared: Shared): () => void {
    this.#shared.add(shared);
    this.assign();
    return () => this.#shared.delete(shared);
  }

  /** A blob before this one can use a connection. */
  wantedBefore(rank: number): boolean {
    const first = Math.min(this.#firstWanting()?.rank ?? rank, this.#firstStart()?.rank ?? rank);
    return first < rank;
  }

  /** To be called whenever a blob can use a connection that could not before: the next free connection takes what is first by then. */
  assign(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    void this.#limit(async () => {
      this.#waiting = false;
      const work = this.#takeFirst();
      if (!work) return;
      this.assign();
      await work();
      this.assign();
    });
  }

  #takeFirst(): (() => Promise<void>) | undefined {
    const shared = this.#firstWanting();
    const start = this.#firstStart();
    if (!start || (shared && shared.rank < start.rank)) return shared?.work;
    this.#starts.splice(this.#starts.indexOf(start), 1);
    if (start.big) this.#watched.add(start.rank);
    return start.work;
  }

  #firstStart(): Start | undefined {
    const most = Math.max(1, Math.floor(this.connections / 2));
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
