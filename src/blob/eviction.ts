import { constants } from 'node:fs';
import { unlink } from 'node:fs/promises';
import path from 'node:path';
import type { Native } from './native.ts';
import { openTrusted } from './trust.ts';

/** A file of the store, whole or partial. */
export interface StoredFile {
  readonly path: string;
  /** On disk, in bytes. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly lastUsed: number;
  /** Being used by this run. */
  readonly pinned: boolean;
}

/** Files that must go so that the rest fits into `maxBytes`: those used longest ago first, never a pinned one. */
export function victims(files: readonly StoredFile[], maxBytes: number): StoredFile[] {
  let excess = files.reduce((sum, file) => sum + file.bytes, 0) - maxBytes;
  const chosen: StoredFile[] = [];
  for (const file of files.toSorted((a, b) => a.lastUsed - b.lastUsed)) {
    if (excess <= 0) break;
    if (file.pinned) continue;
    chosen.push(file);
    excess -= file.bytes;
  }
  return chosen;
}

const DAY = 86_400_000;

/** Files of runs that were killed: private ones after a day, other partial ones when nobody went on with them for a month. */
export function abandoned(files: readonly StoredFile[], now: number): StoredFile[] {
  return files.filter((file) => {
    if (path.basename(path.dirname(file.path)) !== 'partial') return false;
    const days = path.basename(file.path).startsWith('private-') ? 1 : 30;
    return !file.pinned && now - file.lastUsed > days * DAY;
  });
}

/** Removes files of the store, except partial ones that another process is writing. Answers how many bytes are free then. */
export async function removeUnused(
  files: readonly StoredFile[],
  native: Native | undefined,
): Promise<number> {
  let freed = 0;
  for (const file of files) {
    const handle = await openTrusted(file.path, constants.O_RDWR).catch(() => undefined);
    const busy = handle && native?.lock?.(handle.fd, 'exclusive') === 'busy';
    const removed = busy
      ? false
      : await unlink(file.path)
          .then(() => true)
          .catch(() => false);
    if (removed) freed += file.bytes;
    await handle?.close();
  }
  return freed;
}
