import { openNative } from './blob/native.ts';
import type { Native } from './blob/native.ts';
import { loadKoffi } from './rootfs/koffi.ts';

/** What can be called in C; undefined where that is impossible: then the program is slower, and two runs may fetch the same blob. */
export function nativeCalls(): Native | undefined {
  try {
    return openNative(loadKoffi());
  } catch {
    return undefined;
  }
}
