/** Milliseconds between two measurements. */
const WINDOW = 250;
/** Share of a window that was idle for lack of bytes: above it, the network is the bottleneck. */
const STARVING = 0.3;

/**
 * How long the event loop was idle so far, in milliseconds. Waits are measured in idle time: while the thread is busy, for example with other
 * connections, the network is not the bottleneck.
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

/** The pace of one connection so far. */
export interface Pace {
  readonly bytes: number;
  /** Milliseconds since the answer began. */
  readonly elapsed: number;
  /** Milliseconds of those in which the event loop was idle. */
  readonly waited: number;
}

/** The pace of a body since its creation; `Body` updates it. */
export class PaceMeter implements Pace {
  bytes = 0;
  waited = 0;
  readonly #start = performance.now();

  get elapsed(): number {
    return performance.now() - this.#start;
  }
}

/**
 * Whether one connection should receive the `remaining` bytes alone, or share them with others.
 *
 * @param hungry the layer that is being unpacked waits for them: then all elapsed time counts; else only idle time, since the network is not
 * the bottleneck while the thread is busy
 */
export function judge(pace: Pace, remaining: number, hungry: boolean): 'alone' | 'share' | 'unknown' {
  if (remaining < LEAST) return 'alone';
  const time = hungry ? pace.elapsed : pace.waited;
  if (time < WATCH) return pace.bytes < BIG ? 'unknown' : 'alone';
  const rate = pace.bytes / time;
  return rate * 1000 < FAST && remaining / rate > SOON ? 'share' : 'alone';
}

/** Whether the connection is faster than unpacking: then downloading ahead onto the disk gains nothing. */
export function outrunsReader(pace: Pace): boolean {
  return pace.bytes >= 4 * 2 ** 20 && pace.bytes / Math.max(pace.waited, 1) >= 40e3;
}
