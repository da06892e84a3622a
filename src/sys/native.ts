import { loadKoffi } from './koffi.ts';

type Koffi = typeof import('koffi');

/** C functions of the running program: libc's, and those of the libraries inside Node, which exports them for its addons. */
export interface Native {
  readonly koffi: Koffi;
  readonly library: ReturnType<Koffi['load']>;
}

let native: Native | null | undefined;

/** The C functions, the same object for all of this thread; undefined where koffi has no library for this platform. */
export function loadNative(): Native | undefined {
  if (native === undefined) {
    try {
      const koffi = loadKoffi();
      native = { koffi, library: koffi.load(null) };
      if (isOwnProcess) tuneMalloc(native);
    } catch {
      native = null;
    }
  }
  return native ?? undefined;
}

let trim: ((pad: number) => number) | undefined;

/** Gives back to the system what malloc holds on to though it is free, in all threads: it takes about a millisecond. */
export function releaseFreeMemory(): void {
  const there = loadNative();
  if (!there) return;
  try {
    trim ??= there.library.func('int malloc_trim(size_t pad)') as (pad: number) => number;
  } catch {
    // Other libcs than glibc have no such function.
    trim = () => 0;
  }
  trim(0);
}

let isOwnProcess = false;

/** This process does nothing but what it was started for, so that its malloc may be tuned. For a library that is its user's business. */
export function ownProcess(): void {
  isOwnProcess = true;
}

/** malloc.h of glibc. */
const M_MMAP_THRESHOLD = -3;
const M_ARENA_MAX = -8;
/** From this size on, in bytes, memory goes back to the system as soon as it is free. */
const LARGE = 2 ** 20;
const ARENAS = 2;

/**
 * Keeps malloc from holding on to what is free: by default, windows of zstd that were freed stay (20 MiB and more), and each thread has an
 * arena of its own.
 */
function tuneMalloc({ library }: Native): void {
  try {
    const mallopt = library.func('int mallopt(int parameter, int value)');
    mallopt(M_MMAP_THRESHOLD, LARGE);
    mallopt(M_ARENA_MAX, ARENAS);
  } catch {
    // Other libcs than glibc have no such function.
  }
}
