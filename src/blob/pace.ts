/** In milliseconds. */
const WINDOW = 250;
/** Of a window, idle for want of bytes: from here on the network is what everything waits for. */
const STARVING = 0.3;

/**
 * How long this thread had nothing to do so far, in milliseconds. Waits are counted in that: while the thread is busy, with other
 * connections for example, it is not the network that keeps a connection waiting.
 */
export function idleTime(): number {
  return performance.eventLoopUtilization().idle;
}

/** Whether the layer that is being unpacked gets its bytes as fast as it can take them. */
export class StarvationMeter {
  #start = performance.now();
  #waited = 0;
  #starving = false;

  /** Waits for bytes: `wait` resolves when some have come. */
  async during(wait: Promise<void>): Promise<void> {
    const before = idleTime();
    await wait;
    this.#waited += idleTime() - before;
  }

  /** Fetching ahead is worth filling the disk for. */
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

/** From so many bytes on a blob may gain by more connections than one. */
export const BIG = 16 * 2 ** 20;

/** Less than this is not worth a second connection, in bytes. */
const LEAST = 8 * 2 ** 20;
/** A connection that is faster than this needs no help, in bytes a second. */
const FAST = 100e6;
/** How long the first connection is watched, in milliseconds. */
const WATCH = 120;
/** A rest that comes in less time is left to one connection, in milliseconds. */
const SOON = 300;

/** What one connection did so far. */
export interface Pace {
  readonly bytes: number;
  /** Milliseconds since the answer began. */
  readonly elapsed: number;
  /** Of those, waiting for the network with nothing else to do in this thread. */
  readonly waited: number;
}

/** The pace of a body, from when it is made; a Body keeps it. */
export class PaceMeter implements Pace {
  bytes = 0;
  waited = 0;
  readonly #start = performance.now();

  get elapsed(): number {
    return performance.now() - this.#start;
  }
}

/**
 * Whether `remaining` bytes should come over the one connection whose pace is known, or be shared among several. `hungry`: the layer
 * that is being unpacked waits for them. Then the time counts in which they came; else only that in which the thread was idle,
 * since when it is busy it is not the network that is slow.
 */
export function judge(pace: Pace, remaining: number, hungry: boolean): 'alone' | 'share' | 'unknown' {
  if (remaining < LEAST) return 'alone';
  const time = hungry ? pace.elapsed : pace.waited;
  if (time < WATCH) return pace.bytes < BIG ? 'unknown' : 'alone';
  const rate = pace.bytes / time;
  return rate * 1000 < FAST && remaining / rate > SOON ? 'share' : 'alone';
}

/** Whether the connection is faster than a layer is unpacked, so that nothing is gained by fetching ahead onto the disk. */
export function outrunsReader(pace: Pace): boolean {
  return pace.bytes >= 4 * 2 ** 20 && pace.bytes / Math.max(pace.waited, 1) >= 40e3;
}
