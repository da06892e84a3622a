import { nativeGzip } from './native-gzip.ts';
import { nativeZstd } from './native-zstd.ts';
import type { Engine, Region } from './engine.ts';
import { lockFile } from '../sys/file-lock.ts';
import type { Native as NativeLibrary } from '../sys/native.ts';

export type Koffi = NativeLibrary['koffi'];
export type Library = NativeLibrary['library'];

/**
 * What is called in C where it can be: zlib and zstd as Node carries them, since through Node's streams each piece of output is
 * a new buffer (60 MiB of garbage at any time), and flock(2), which Node does not have.
 */
export interface Native {
  /** Undefined where Node does not export the functions. */
  readonly gzip: (() => Engine) | undefined;
  readonly zstd: (() => Engine) | undefined;
  readonly lock: typeof lockFile;
  readonly allocate: (length: number) => Region;
}

/** Looks the functions up. */
export function openNative({ koffi, library }: NativeLibrary): Native {
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
    lock: lockFile,
    allocate: (length) => region(koffi, length),
  };
}

/** A buffer of its own outside V8's heap: it stays where it is for as long as it is referred to. */
function region(koffi: Koffi, length: number): Region {
  const bytes = Buffer.allocUnsafeSlow(length);
  return { bytes, address: koffi.address(bytes) };
}
