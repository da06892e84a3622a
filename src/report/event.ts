import type { Writable } from 'node:stream';
import type { Layer } from '../oci/image.ts';

/**
 * An event of a running pull. Ids are 64 hex digits, sizes are bytes, layers are in order, base layer first.
 */
export type PullEvent =
  /** A session with the registry starts; `name` is `library/x` for Hub, else `host[:port]/path`. */
  | { readonly type: 'session'; readonly name: string }
  | { readonly type: 'image'; readonly id: string; readonly layers: readonly Layer[] }
  /**
   * The download of a layer starts, or its blob is cached. `resumed`: bytes that an earlier run left in the
   * cache.
   */
  | {
      readonly type: 'layer-start';
      readonly index: number;
      readonly cached: boolean;
      readonly resumed?: number;
    }
  /** `received`: the number of bytes of the blob on disk. */
  | { readonly type: 'layer-progress'; readonly index: number; readonly received: number }
  /** The blob is complete and verified. */
  | { readonly type: 'layer-fetched'; readonly index: number }
  | { readonly type: 'layer-apply'; readonly index: number }
  /** About once per second: the number of entries unpacked so far. */
  | { readonly type: 'layer-entries'; readonly index: number; readonly entries: number }
  | { readonly type: 'layer-applied'; readonly index: number; readonly entries: number }
  /** About once per second: the number of entries that the program of a disk image has taken, of all. */
  | { readonly type: 'disk-entries'; readonly entries: number; readonly total: number }
  /** DIR is complete. */
  | {
      readonly type: 'done';
      readonly reference: string;
      readonly destination: string;
      /** What this run added by --add: the values as typed, and the number of paths that they have. */
      readonly added?: { readonly sources: readonly string[]; readonly paths: number } | undefined;
    }
  /** A runtime's configuration was written beside DIR; `command` starts the container. */
  | { readonly type: 'runtime-config'; readonly file: string; readonly command: string }
  /** A line for the user; the pull continues. */
  | { readonly type: 'notice'; readonly message: string }
  /** Only with -v: requests (redacted), decisions, timings. */
  | { readonly type: 'debug'; readonly message: string };

export type Report = (event: PullEvent) => void;

/** Returns a reporter that passes events to several others. */
export function fanOut(reports: readonly Report[]): Report {
  return (event) => {
    for (const report of reports) report(event);
  };
}

/** A reporter with its own timer. */
export interface LiveReport {
  readonly report: Report;
  /** Erases what is drawn and stops the timer. */
  readonly stop: () => void;
}

const PROGRESS_MILLISECONDS = 200;

/**
 * Writes one JSON object per event and line (docs/schema/progress.schema.json); progress at most five times
 * per second.
 */
export function jsonLinesReport(err: Writable, verbose: boolean): Report {
  const told = new Map<number, number>();
  return (event) => {
    if (event.type === 'debug' && !verbose) return;
    if (event.type === 'layer-progress') {
      const now = performance.now();
      if (now - (told.get(event.index) ?? -Infinity) < PROGRESS_MILLISECONDS) return;
      told.set(event.index, now);
    }
    err.write(`${JSON.stringify(toJson(event))}\n`);
  };
}

function toJson(event: PullEvent): unknown {
  if (event.type !== 'image') return event;
  const layers = event.layers.map(({ id, digest, diffID, size, mediaType }) => ({
    id,
    digest,
    diffID,
    size,
    mediaType,
  }));
  return { ...event, layers };
}
