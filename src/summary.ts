import { performance } from 'node:perf_hooks';
import type { Image } from './oci/image.ts';
import type { PullEvent, Report } from './report/event.ts';
import type { NotRestored } from './rootfs/not-restored.ts';

export interface LayerSummary {
  readonly id: string;
  readonly digest?: string | undefined;
  readonly diffID?: string | undefined;
  /** Compressed, in bytes. */
  readonly size?: number | undefined;
  /** Entries of its archive. */
  readonly entries: number;
}

/** Compressed layers, in bytes; a blob that is listed twice counts once. */
export interface BytesBySource {
  readonly cache: number;
  readonly network: number;
}

/** Adds up the sizes of cached and of downloaded blobs. */
export function bytesBySource(
  layers: readonly (Pick<LayerSummary, 'id' | 'digest' | 'size'> & {
    readonly cached: boolean;
    /** Bytes that an earlier run left; less than all. */
    readonly resumed?: number | undefined;
  })[],
): BytesBySource {
  // Only the first of several equal blobs is downloaded.
  const distinct = [
    ...new Map(layers.toReversed().map((layer) => [layer.digest ?? layer.id, layer])).values(),
  ];
  const bytes = { cache: 0, network: 0 };
  for (const { cached, size = 0, resumed = 0 } of distinct) {
    const there = cached ? size : resumed;
    bytes.cache += there;
    bytes.network += size - there;
  }
  return bytes;
}

/** The result of a pull: `pull()` returns it and `--json` prints it. */
export interface PullSummary {
  /** `library/ubuntu:14.04`, or `name@sha256:…`. */
  readonly reference: string;
  /** 64 hex digits, as printed after `Image ID:`. */
  readonly id: string;
  /** The manifest's; absent with registry v1. */
  readonly digest?: string | undefined;
  readonly platform: Image['platform'];
  /** Base layer first. */
  readonly layers: readonly LayerSummary[];
  /** The image's configuration as it is in the registry. */
  readonly config: Readonly<Record<string, unknown>>;
  /** As given. */
  readonly destination: string;
  readonly notRestored: Readonly<NotRestored>;
  readonly bytes: BytesBySource;
  readonly seconds: Readonly<Record<string, number>>;
}

/** A reporter in front of another one, that counts bytes by source. */
export class Tally {
  readonly #report: Report;
  readonly #cached = new Set<number>();
  /** Bytes that an earlier run left, of each layer that is downloaded. */
  readonly #resumed = new Map<number, number>();

  constructor(report: Report) {
    this.#report = report;
  }

  readonly report: Report = (event: PullEvent) => {
    if (event.type === 'layer-start') this.#start(event.index, event.cached, event.resumed);
    this.#report(event);
  };

  /** A pull that starts again finds in the store what it downloaded itself before. */
  #start(index: number, cached: boolean, resumed = 0): void {
    if (!cached) {
      this.#cached.delete(index);
      this.#resumed.set(index, resumed);
    } else if (!this.#resumed.has(index)) {
      this.#cached.add(index);
    }
  }

  bytes(layers: readonly LayerSummary[]): BytesBySource {
    return bytesBySource(
      layers.map((layer, index) => {
        const cached = this.#cached.has(index);
        return { ...layer, cached, resumed: this.#resumed.get(index) };
      }),
    );
  }
}

/** Seconds by stage, in the order in which the stages ended. */
export class Stopwatch {
  readonly #seconds: Record<string, number> = {};
  readonly #start = performance.now();
  #last = this.#start;

  /** Adds the time since the previous call to `stage`. */
  lap(stage: string): void {
    const now = performance.now();
    this.#seconds[stage] = (this.#seconds[stage] ?? 0) + round(now - this.#last);
    this.#last = now;
  }

  seconds(): PullSummary['seconds'] {
    return { ...this.#seconds, total: round(performance.now() - this.#start) };
  }
}

const round = (milliseconds: number) => Math.round(milliseconds) / 1000;

/** The summary of a completed pull. */
export function summarize(pulled: {
  readonly source: { readonly reference: string };
  readonly image: Image;
  readonly built: Pick<PullSummary, 'layers' | 'notRestored'>;
  readonly destination: string;
  readonly tally: Tally;
  readonly stopwatch: Stopwatch;
}): PullSummary {
  const { image, built } = pulled;
  return {
    reference: pulled.source.reference,
    id: image.id,
    digest: image.digest,
    platform: image.platform,
    layers: built.layers,
    config: image.config.raw,
    destination: pulled.destination,
    notRestored: built.notRestored,
    bytes: pulled.tally.bytes(built.layers),
    seconds: pulled.stopwatch.seconds(),
  };
}
