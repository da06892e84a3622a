import { nativeGzip } from './native-gzip.ts';
import { nativeZstd } from './native-zstd.ts';
import type { Engine, Region } from './engine.ts';
import { nativeLock, type LockFile } from './lock-file.ts';

export type Koffi = typeof import('koffi');
/** The running program's own symbols: Node exports those of the libraries inside it for its addons, and libc's are there too. */
export type Library = ReturnType<Koffi['load']>;

/**
 * What is called in C where it can be: zlib and zstd as Node carries them, since through Node's streams each piece of output is
 * a new buffer (60 MiB of garbage at any time), and flock(2), which Node does not have.
 */
export interface Native {
  /** Undefined where Node does not export the functions. */
  readonly gzip: (() => Engine) | undefined;
  readonly zstd: (() => Engine) | undefined;
  readonly lock: LockFile | undefined;
  readonly allocate: (length: number) => Region;
}

/** Looks the functions up. */
export function openNative(koffi: Koffi): Native {
  const library = koffi.load(null);
  const found = <T>(open: (koffi: Koffi, library: Library) => T): T | undefined => {
    try {
      return open(koffi, library);
    } catch {
      return undefined;
    }
  };
  return {
    gzip: found(nativeGzip),
    zstd: found(nativeZstd),
    lock: found(nativeLock),
    allocate: (length) => region(koffi, length),
  };
}

/** A buffer of its own outside V8's heap: it stays where it is for as long as it is referred to. */
function region(koffi: Koffi, length: number): Region {
  const bytes = Buffer.allocUnsafeSlow(length);
  return { bytes, address: koffi.address(bytes) };
}
