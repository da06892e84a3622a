import { setFlagsFromString } from 'node:v8';
import { loadKoffi } from './koffi.ts';

type Koffi = typeof import('koffi');

/**
 * The C functions of the running program: those of libc, and of the libraries inside Node, which exports them
 * for addons.
 */
export interface Native {
  readonly koffi: Koffi;
  readonly library: ReturnType<Koffi['load']>;
}

let native: Native | null | undefined;

/** Returns the C functions, one object per thread; undefined if koffi has no library for this platform. */
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

/** Returns free heap of all threads to the kernel: malloc_trim(3). It takes about a millisecond. */
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

/**
 * Allows malloc to be tuned, as in a process that runs only this program. A library leaves that to its
 * caller.
 */
export function ownProcess(): void {
  isOwnProcess = true;
}

/**
 * From now on V8 collects old objects when they have grown by 60 %, instead of up to fourfold. With -g that
 * takes 20 MiB off the peak, for 3 % of the time. A library leaves it to its caller.
 */
export function limitHeapGrowth(): void {
  if (isOwnProcess) setFlagsFromString('--heap-growing-percent=60');
}

/** Parameters of mallopt(3). */
const M_MMAP_THRESHOLD = -3;
const M_ARENA_MAX = -8;
/** Limit in bytes: allocations from this size on are returned to the kernel when they are freed. */
const MMAP_THRESHOLD = 2 ** 20;
const ARENAS = 2;

/**
 * Makes malloc return more free memory to the kernel: by default it keeps freed windows of zstd (20 MiB and
 * more), and an arena per thread.
 */
function tuneMalloc({ library }: Native): void {
  try {
    const mallopt = library.func('int mallopt(int parameter, int value)');
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    mallopt(M_ARENA_MAX, ARENAS);
  } catch {
    // Other libcs than glibc have no such function.
  }
}

/** From this length on, memcpy(3) is faster than V8. */
const MEMCPY_MIN_BYTES = 512;

/**
 * Returns a function that copies into shared memory, by memcpy(3) if it can be called. This is three times as
 * fast as V8, which copies word by word, or byte by byte if source and target are aligned differently.
 */
export function copyIntoShared(
  bytes: Uint8Array<SharedArrayBuffer>,
): (chunk: Uint8Array, position: number) => void {
  const there = loadNative();
  if (!there) return (chunk: Uint8Array, position: number) => bytes.set(chunk, position);
  const { koffi, library } = there;
  const memcpy = library.func('memcpy', 'intptr_t', ['intptr_t', 'const void *', 'size_t']);
  const address = koffi.address(bytes);
  return (chunk: Uint8Array, position: number) => {
    if (chunk.length < MEMCPY_MIN_BYTES) bytes.set(chunk, position);
    else memcpy(address + BigInt(position), chunk, chunk.length);
  };
}
