import { type Native, openNative } from './blob/decode/native.ts';
import { loadNative } from './sys/native.ts';

/** What can be called in C; undefined where that is impossible: then the program is slower, and two runs may fetch the same blob. */
export function nativeCalls(): Native | undefined {
  const library = loadNative();
  return library && openNative(library);
}
