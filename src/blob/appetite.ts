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
export class Appetite {
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
