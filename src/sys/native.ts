import { loadKoffi } from './koffi.ts';

type Koffi = typeof import('koffi');

/** C functions of the running program: libc's, and those of the libraries inside Node, which exports them for its addons. */
export interface Native {
  readonly koffi: Koffi;
  readonly library: ReturnType<Koffi['load']>;
}

let native: Native | null | undefined;

/** What C functions are looked up in, the same for all of this thread; undefined where koffi has no library for this platform. */
export function loadNative(): Native | undefined {
  if (native === undefined) {
    try {
      const koffi = loadKoffi();
      native = { koffi, library: koffi.load(null) };
    } catch {
      native = null;
    }
  }
  return native ?? undefined;
}
