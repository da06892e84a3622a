import { setFlagsFromString } from 'node:v8';
import type { PullEvent } from '../report/event.ts';

/**
 * Keeps the heap of young objects as small as it is when the blobs begin to come. V8 would let it grow to 16 MiB and more for buffers that are
 * garbage at once: 8 MiB of resident memory for no time gained. Not earlier, since V8 turns down code caches made under other flags.
 * For the program only: a library does not change its host's flags.
 */
export function keepYoungHeapSmall({ type }: PullEvent): void {
  if (type === 'image') setFlagsFromString('--semi-space-growth-factor=1');
}
