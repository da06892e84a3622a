import type { Writable } from 'node:stream';
import { shortID } from '../oci/digest.ts';
import type { LiveReport, PullEvent } from './event.ts';

export interface LayerProgress {
  /** The first 12 hex digits of the id. */
  readonly name: string;
  /** Compressed size in bytes; undefined if unknown. */
  readonly size: number | undefined;
  received: number;
  /** The part of `received` that an earlier run downloaded. */
  resumed: number;
  state: 'waiting' | 'fetching' | 'fetched' | 'applying' | 'applied';
  cached: boolean;
  /** The number of unpacked entries, while the layer is unpacked. */
  entries: number;
}

/** The state of a pull, computed from its events. Times are milliseconds of one clock. */
export class Progress {
  layers: LayerProgress[] = [];
  /** The entries of a disk image that are written, and all of them. */
  disk: { readonly entries: number; readonly total: number } | undefined;
  #samples: { readonly at: number; readonly received: number }[] = [];

  add(event: PullEvent, now: number): void {
    if (event.type === 'image') {
      this.layers = event.layers.map(({ id, size }) => {
        return {
          name: shortID(id),
          size,
          received: 0,
          resumed: 0,
          state: 'waiting',
          cached: false,
          entries: 0,
        };
      });
      this.#samples = [{ at: now, received: 0 }];
    }
    if (event.type === 'disk-entries') this.disk = event;
    const layer = 'index' in event ? this.layers[event.index] : undefined;
    if (layer === undefined) return;
    if (event.type === 'layer-start') {
      const { cached, resumed = 0 } = event;
      Object.assign(layer, { state: 'fetching', cached, resumed, received: resumed });
    }
    if (event.type === 'layer-progress') layer.received = event.received;
    if (event.type === 'layer-fetched') {
      layer.received = layer.size ?? layer.received;
      if (layer.state === 'fetching' || layer.state === 'waiting') layer.state = 'fetched';
    }
    if (event.type === 'layer-apply') layer.state = 'applying';
    if (event.type === 'layer-entries') layer.entries = event.entries;
    if (event.type === 'layer-applied') Object.assign(layer, { state: 'applied', entries: 0 });
    if (event.type === 'layer-progress') this.#sample(now);
  }

  get received(): number {
    return this.layers.reduce((sum, layer) => sum + layer.received, 0);
  }

  /** The bytes of all blobs together; undefined if one is unknown. */
  get size(): number | undefined {
    let sum = 0;
    for (const { size } of this.layers) {
      if (size === undefined) return undefined;
      sum += size;
    }
    return sum;
  }

  /**
   * The number of layers that are done: downloaded until the first is unpacked, since `cache add` unpacks
   * none.
   */
  get layersDone(): { readonly count: number; readonly what: 'downloaded' | 'unpacked' } {
    const isUnpacking = this.#count('applying', 'applied') > 0;
    return isUnpacking
      ? { count: this.#count('applied'), what: 'unpacked' }
      : { count: this.#count('fetched'), what: 'downloaded' };
  }

  /** Unpacked entries of the current layer. */
  get entries(): number {
    return this.layers.reduce((sum, { entries }) => sum + entries, 0);
  }

  #count(...states: readonly LayerProgress['state'][]): number {
    return this.layers.filter(({ state }) => states.includes(state)).length;
  }

  /** Returns bytes per second over the last few seconds; bytes from the store do not count. */
  rate(now: number): number {
    const oldest = this.#samples[0];
    if (oldest === undefined || now <= oldest.at) return 0;
    return ((this.#networkBytes() - oldest.received) * 1000) / (now - oldest.at);
  }

  #networkBytes(): number {
    return this.layers.reduce((sum, layer) => sum + (layer.cached ? 0 : layer.received - layer.resumed), 0);
  }

  #sample(now: number): void {
    this.#samples.push({ at: now, received: this.#networkBytes() });
    const windowMilliseconds = 5000;
    while (this.#samples.length > 2 && this.#samples[1]!.at < now - windowMilliseconds) this.#samples.shift();
  }
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** Formats bytes: `1536` as `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]!}`;
}

/** Formats seconds: `75` as `1:15`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const tail = `${String(minutes).padStart(hours > 0 ? 2 : 1, '0')}:${String(whole % 60).padStart(2, '0')}`;
  return hours > 0 ? `${hours}:${tail}` : tail;
}

/**
 * Returns the sum as text: `12.3 MiB of 40.0 MiB, 3.1 MiB/s, 0:09 left, 2 of 7 layers unpacked` (or
 * `downloaded`); as many parts as fit, none of them cut.
 */
export function progressText(progress: Progress, now: number, columns = Infinity): string {
  const { received, size, layers, layersDone } = progress;
  const parts = [
    size === undefined ? formatBytes(received) : `${formatBytes(received)} of ${formatBytes(size)}`,
  ];
  const rate = progress.rate(now);
  const left = size === undefined ? undefined : size - received;
  if (rate > 0 && left !== 0) parts.push(`${formatBytes(rate)}/s`);
  if (rate > 0 && left !== undefined && left > 0) parts.push(`${formatSeconds(left / rate)} left`);
  parts.push(`${layersDone.count} of ${layers.length} layers ${layersDone.what}`);
  if (progress.entries > 0) parts.push(`${progress.entries} entries of the next`);
  if (progress.disk) parts.push(`${progress.disk.entries} of ${progress.disk.total} entries written`);
  while (parts.length > 1 && parts.join(', ').length > columns) parts.pop();
  const whole = parts.join(', ');
  if (whole.length <= columns) return whole;
  const amount = formatBytes(received);
  return amount.length <= columns ? amount : '';
}

const LINE_MILLISECONDS = 5000;

/**
 * Prints the sum every few seconds if it changed, for logs; a shorter pull prints nothing. If a line was
 * printed, a last one has all layers.
 */
export function plainReport(err: Writable): LiveReport {
  const progress = new Progress();
  let timer: NodeJS.Timeout | undefined;
  let last: string | undefined;
  const print = () => {
    // Compares the state, since the rate changes even if nothing arrives.
    const { received, layersDone, entries, disk } = progress;
    const state = [received, layersDone.what, layersDone.count, entries, disk?.entries].join(' ');
    if (state !== last) err.write(`${progressText(progress, performance.now())}\n`);
    last = state;
  };
  const stop = () => {
    clearInterval(timer);
    const isComplete = progress.layersDone.count === progress.layers.length;
    if (last !== undefined && isComplete) print();
  };
  return {
    report: (event) => {
      progress.add(event, performance.now());
      if (event.type === 'image') {
        // A comparison of two images sends this event several times.
        clearInterval(timer);
        timer = setInterval(print, LINE_MILLISECONDS).unref();
      }
      if (event.type === 'done') stop();
    },
    stop,
  };
}
