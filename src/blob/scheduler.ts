import pLimit, { type LimitFunction } from 'p-limit';

/** A blob that waits for its first connection. */
interface WaitingBlob {
  readonly rank: number;
  readonly big: boolean;
  /** Never rejects. */
  readonly work: () => Promise<void>;
}

/** A blob that several connections may download. */
interface Shared {
  readonly rank: number;
  /** Another connection would have a piece to receive. */
  readonly wanting: () => boolean;
  /** Receives pieces over another connection; never rejects. */
  readonly work: () => Promise<void>;
}

/**
 * Assigns connections to blobs; p-limit bounds their number. Layers are unpacked in the order of the image, so a free connection goes to
 * the first blob that can use it. Then more of the unpacking overlaps with later downloads. The pace of each big blob is measured first. At
 * most half as many blobs as connections are measured at once; further big blobs wait. A blob's rank is its place in the image, from 0.
 */
export class Scheduler {
  readonly #limit: LimitFunction;
  readonly #starts: WaitingBlob[] = [];
  readonly #shared = new Set<Shared>();
  /** Ranks of big blobs whose pace is unknown. */
  readonly #watched = new Set<number>();
  #waiting = false;

  /** @param connections limit on their number, for all blobs together */
  constructor(connections: number) {
    this.#limit = pLimit(connections);
  }

  get connections(): number {
    return this.#limit.concurrency;
  }

  /** Runs the first connection of a blob; `size` in bytes, where it is known. Call it in the order of ranks. */
  async run<T>(rank: number, size: number | undefined, task: () => Promise<T>): Promise<T> {
    const big = isBig(size);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#starts.push({ rank, big, work: () => task().then(resolve, reject) });
        this.assign();
      });
    } finally {
      this.stopMeasuring(rank);
    }
  }

  /** The pace of the blob is known, or its download pauses: other blobs need not wait for it. */
  stopMeasuring(rank: number): void {
    if (this.#watched.delete(rank)) this.assign();
  }

  /** Lets a blob use free connections, now and later. Call the result to end that. */
  share(shared: Shared): () => void {
    this.#shared.add(shared);
    this.assign();
    return () => this.#shared.delete(shared);
  }

  /** An earlier blob can use a connection. */
  wantedBefore(rank: number): boolean {
    const first = Math.min(this.#firstWanting()?.rank ?? rank, this.#firstStart()?.rank ?? rank);
    return first < rank;
  }

  /** Call this when a blob becomes able to use a connection: the next free one goes to the first such blob. */
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

  #firstStart(): WaitingBlob | undefined {
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

/** Whether the pace of a blob is measured before others get connections; `size` in bytes. */
function isBig(size: number | undefined): boolean {
  return size !== undefined && size >= BIG;
}

/** Milliseconds between two measurements. */
const WINDOW = 250;
/** Share of a window that was idle for lack of bytes: above it, the network is the bottleneck. */
const STARVING = 0.3;

/**
 * How long the event loop was idle so far, in milliseconds. Waits are measured in idle time. While the thread is busy with other work, the
 * network is not the bottleneck.
 */
export function idleTime(): number {
  return performance.eventLoopUtilization().idle;
}

/** Measures whether the layer that is being unpacked waits for bytes. */
export class StarvationMeter {
  #start = performance.now();
  #waited = 0;
  #starving = false;

  /** Waits for bytes: `wait` resolves when there are some. */
  async during(wait: Promise<void>): Promise<void> {
    const before = idleTime();
    await wait;
    this.#waited += idleTime() - before;
  }

  /** The reader waits for bytes: downloading ahead onto the disk is worth it. */
  get starving(): boolean {
    const elapsed = performance.now() - this.#start;
    if (elapsed >= WINDOW) {
      this.#starving = this.#waited / elapsed > STARVING;
      this.#start += elapsed;
      this.#waited = 0;
    }
    return this.#starving;
  }
}

/** Least size in bytes of a blob that may gain from more than one connection. */
export const BIG = 16 * 2 ** 20;

/** Least number of missing bytes that is worth a second connection. */
const LEAST = 8 * 2 ** 20;
/** In bytes per second; a faster connection needs no second one. */
const FAST = 100e6;
/** Milliseconds for which the pace of the first connection is measured. */
const WATCH = 120;
/** In milliseconds; a rest that takes less time stays with one connection. */
const SOON = 300;

/** The pace of one connection since its creation; `Body` updates it. */
export class PaceMeter {
  bytes = 0;
  /** Milliseconds in which the event loop was idle. */
  waited = 0;
  readonly #start = performance.now();

  /** In milliseconds. */
  get elapsed(): number {
    return performance.now() - this.#start;
  }
}

export type Pace = Readonly<Pick<PaceMeter, 'bytes' | 'waited' | 'elapsed'>>;

/**
 * Whether one connection should receive the `remaining` bytes alone, or share them with others.
 *
 * @param hungry the layer that is being unpacked waits for these bytes. Then all elapsed time counts. Otherwise only idle time counts: the
 * network is not the bottleneck while the thread is busy.
 */
export function judgePace(pace: Pace, remaining: number, hungry: boolean): 'alone' | 'share' | 'unknown' {
  if (remaining < LEAST) return 'alone';
  const time = hungry ? pace.elapsed : pace.waited;
  if (time < WATCH) return pace.bytes < BIG ? 'unknown' : 'alone';
  const rate = pace.bytes / time;
  return rate * 1000 < FAST && remaining / rate > SOON ? 'share' : 'alone';
}
