import { promisify } from 'node:util';
import { loadNative, type Native as NativeLibrary } from '../../sys/native.ts';
import type { Engine, Region, DecoderRun } from './engine.ts';
import { MalformedDataError, WINDOW_LOG_MAX, WINDOW_TOO_LARGE } from './byte-reader.ts';

type Koffi = NativeLibrary['koffi'];
type Library = NativeLibrary['library'];

/**
 * zlib and zstd called in C, as Node carries them: through Node's streams each piece of output is a new buffer (60 MiB of garbage at any
 * time).
 */
export interface NativeDecoders {
  /** Undefined where Node does not export the functions. */
  readonly gzip: (() => Engine) | undefined;
  readonly zstd: (() => Engine) | undefined;
  readonly allocate: (length: number) => Region;
  /** Bytes of shared memory, which stay where they are. */
  readonly locate: (bytes: Uint8Array<SharedArrayBuffer>) => Region;
}

let decoders: NativeDecoders | undefined;

/** The decoders of this thread; undefined where no C function can be called. */
export function nativeDecoders(): NativeDecoders | undefined {
  const native = loadNative();
  if (!native) return undefined;
  const { koffi, library } = native;
  const found = <T>(open: (koffi: Koffi, library: Library) => T): T | undefined => {
    try {
      return open(koffi, library);
    } catch {
      return undefined;
    }
  };
  decoders ??= {
    gzip: found(nativeGzip),
    zstd: found(nativeZstd),
    allocate: (length) => region(koffi, length),
    locate: (bytes) => ({ bytes, address: koffi.address(bytes) }),
  };
  return decoders;
}

/** A buffer of its own outside V8's heap: it stays where it is for as long as it is referred to. */
function region(koffi: Koffi, length: number): Region {
  const bytes = Buffer.allocUnsafeSlow(length);
  return { bytes, address: koffi.address(bytes) };
}

/** zlib.h */
const Z_NO_FLUSH = 0;
const Z_STREAM_END = 1;
const Z_NEED_DICT = 2;
const Z_BUF_ERROR = -5;
const Z_OK = 0;
/** 32 KiB of window, the most there is; 16 more: a gzip header and trailer, which zlib checks (RFC 1952), and nothing else. */
const GZIP_ONLY = 15 + 16;
const FIRST_MAGIC_BYTE = 0x1f;

/**
 * gzip by the zlib inside Node.
 *
 * @throws where its functions cannot be found
 */
function nativeGzip(koffi: Koffi, library: Library): () => Engine {
  const stream = koffi.struct({
    next_in: 'uintptr_t',
    avail_in: 'unsigned int',
    total_in: 'unsigned long',
    next_out: 'uintptr_t',
    avail_out: 'unsigned int',
    total_out: 'unsigned long',
    msg: 'uintptr_t',
    state: 'uintptr_t',
    zalloc: 'uintptr_t',
    zfree: 'uintptr_t',
    opaque: 'uintptr_t',
    data_type: 'int',
    adler: 'unsigned long',
    reserved: 'unsigned long',
  });
  const size = koffi.sizeof(stream);
  const at = {
    nextIn: koffi.offsetof(stream, 'next_in'),
    availIn: koffi.offsetof(stream, 'avail_in'),
    nextOut: koffi.offsetof(stream, 'next_out'),
    availOut: koffi.offsetof(stream, 'avail_out'),
  };
  const version = (library.func('const char *zlibVersion()') as () => string)();
  const inflateInit2 = library.func(
    'int inflateInit2_(uintptr_t stream, int bits, const char *version, int size)',
  );
  const inflate = library.func('int inflate(uintptr_t stream, int flush)');
  const inflateInPool = promisify<bigint, number, number>(inflate.async);
  const inflateReset = library.func('int inflateReset(uintptr_t stream)');
  const inflateValidate = library.func('int inflateValidate(uintptr_t stream, int check)');
  const inflateEnd = library.func('int inflateEnd(uintptr_t stream)');

  return () => {
    const memory = Buffer.from(new ArrayBuffer(size));
    const address = koffi.address(memory);
    if (inflateInit2(address, GZIP_ONLY, version, size) !== Z_OK)
      throw new Error('zlib cannot be initialised');
    const prepare = (output: Region): void => {
      memory.writeBigUInt64LE(output.address, at.nextOut);
      memory.writeUInt32LE(output.bytes.length, at.availOut);
    };
    const outcome = (code: number, output: Region): DecoderRun => {
      if ((code < 0 && code !== Z_BUF_ERROR) || code === Z_NEED_DICT)
        throw new MalformedDataError('is corrupt');
      return {
        produced: output.bytes.length - memory.readUInt32LE(at.availOut),
        ended: code === Z_STREAM_END,
      };
    };
    return {
      feed(input: Region) {
        memory.writeBigUInt64LE(input.address, at.nextIn);
        memory.writeUInt32LE(input.bytes.length, at.availIn);
      },
      left: () => memory.readUInt32LE(at.availIn),
      async run(output: Region): Promise<DecoderRun> {
        prepare(output);
        return outcome(await inflateInPool(address, Z_NO_FLUSH), output);
      },
      runNow(output: Region): DecoderRun {
        prepare(output);
        return outcome(inflate(address, Z_NO_FLUSH) as number, output);
      },
      // GNU tar and tape drives pad with zeros; everything else that follows a member must be one.
      after: (byte) => (byte === FIRST_MAGIC_BYTE ? 'member' : byte === 0 ? 'padding' : 'garbage'),
      compareChecksums: (compare) => void inflateValidate(address, compare ? 1 : 0),
      restart: () => void inflateReset(address),
      close: () => void inflateEnd(address),
    };
  };
}

/** zstd.h */
const ZSTD_D_WINDOW_LOG_MAX = 100;
const ZSTD_D_FORCE_IGNORE_CHECKSUM = 1002;
const ZSTD_RESET_SESSION_ONLY = 1;

/**
 * zstd by the library inside Node.
 *
 * @throws where its functions cannot be found
 */
function nativeZstd(koffi: Koffi, library: Library): () => Engine {
  // ZSTD_inBuffer and ZSTD_outBuffer: pointer, size, position.
  const buffer = koffi.struct({ pointer: 'uintptr_t', size: 'size_t', position: 'size_t' });
  const size = koffi.sizeof(buffer);
  const at = { size: koffi.offsetof(buffer, 'size'), position: koffi.offsetof(buffer, 'position') };
  const create = library.func('uintptr_t ZSTD_createDStream()') as () => bigint | number;
  const setParameter = library.func(
    'size_t ZSTD_DCtx_setParameter(uintptr_t stream, int parameter, int value)',
  );
  const decompress = library.func(
    'size_t ZSTD_decompressStream(uintptr_t stream, uintptr_t output, uintptr_t input)',
  );
  const decompressInPool = promisify<bigint | number, bigint, bigint, bigint | number>(decompress.async);
  const reset = library.func('size_t ZSTD_DCtx_reset(uintptr_t stream, int directive)');
  const isError = library.func('unsigned int ZSTD_isError(size_t code)');
  const errorName = library.func('const char *ZSTD_getErrorName(size_t code)');
  const free = library.func('size_t ZSTD_freeDStream(uintptr_t stream)');

  return () => {
    const stream = create();
    if (Number(stream) === 0) throw new Error('zstd cannot be initialised');
    setParameter(stream, ZSTD_D_WINDOW_LOG_MAX, WINDOW_LOG_MAX);
    const memory = Buffer.from(new ArrayBuffer(2 * size));
    const input = koffi.address(memory);
    const output = input + BigInt(size);
    const number = (offset: number) => Number(memory.readBigUInt64LE(offset));
    const prepare = (target: Region): void => {
      memory.writeBigUInt64LE(target.address, size);
      memory.writeBigUInt64LE(BigInt(target.bytes.length), size + at.size);
      memory.writeBigUInt64LE(0n, size + at.position);
    };
    const outcome = (code: bigint | number): DecoderRun => {
      if (isError(code) !== 0) throw malformed(errorName(code) as string);
      return { produced: number(size + at.position), ended: Number(code) === 0 };
    };
    return {
      feed({ address, bytes }: Region) {
        memory.writeBigUInt64LE(address, 0);
        memory.writeBigUInt64LE(BigInt(bytes.length), at.size);
        memory.writeBigUInt64LE(0n, at.position);
      },
      left: () => number(at.size) - number(at.position),
      async run(target: Region): Promise<DecoderRun> {
        prepare(target);
        return outcome(await decompressInPool(stream, output, input));
      },
      runNow(target: Region): DecoderRun {
        prepare(target);
        return outcome(decompress(stream, output, input) as bigint | number);
      },
      // RFC 8878: frames follow one another; the decoder tells a frame from garbage itself.
      after: () => 'member',
      compareChecksums: (compare) => void setParameter(stream, ZSTD_D_FORCE_IGNORE_CHECKSUM, compare ? 0 : 1),
      restart: () => void reset(stream, ZSTD_RESET_SESSION_ONLY),
      close: () => void free(stream),
    };
  };
}

function malformed(name: string): MalformedDataError {
  if (/window|memory/i.test(name)) return new MalformedDataError(WINDOW_TOO_LARGE);
  return new MalformedDataError(`is corrupt (${name})`);
}
