import type { Writable } from 'node:stream';
import type { PullEvent, Report } from './event.ts';

const PROGRESS_MILLISECONDS = 200;

/** One JSON object per event and line (docs/schema/progress.schema.json); progress at most five times per second. */
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
