import type { Engine, Region, Run } from './engine.ts';
import { MalformedDataError } from './malformed-data.ts';
import type { Koffi, Library } from './native.ts';

/** zlib.h */
const Z_NO_FLUSH = 0;
const Z_STREAM_END = 1;
const Z_NEED_DICT = 2;
const Z_BUF_ERROR = -5;
const Z_OK = 0;
/** 32 KiB of window, the most there is; 16 more: a gzip header and trailer, which zlib checks (RFC 1952), and nothing else. */
const GZIP_ONLY = 15 + 16;
const FIRST_MAGIC_BYTE = 0x1f;

/** gzip by the zlib inside Node. Throws where its functions cannot be found. */
export function nativeGzip(koffi: Koffi, library: Library): () => Engine {
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
  const inflateReset = library.func('int inflateReset(uintptr_t stream)');
  const inflateEnd = library.func('int inflateEnd(uintptr_t stream)');

  return () => {
    const memory = Buffer.from(new ArrayBuffer(size));
    const address = koffi.address(memory);
    if (inflateInit2(address, GZIP_ONLY, version, size) !== Z_OK)
      throw new Error('zlib cannot be initialised');
    return {
      feed(input: Region, length: number) {
        memory.writeBigUInt64LE(input.address, at.nextIn);
        memory.writeUInt32LE(length, at.availIn);
      },
      left: () => memory.readUInt32LE(at.availIn),
      async run(output: Region): Promise<Run> {
        memory.writeBigUInt64LE(output.address, at.nextOut);
        memory.writeUInt32LE(output.bytes.length, at.availOut);
        const code = await new Promise<number>((resolve, reject) => {
          inflate.async(address, Z_NO_FLUSH, (error: Error | null, result: number) =>
            error ? reject(error) : resolve(result),
          );
        });
        if ((code < 0 && code !== Z_BUF_ERROR) || code === Z_NEED_DICT)
          throw new MalformedDataError('is damaged');
        return {
          produced: output.bytes.length - memory.readUInt32LE(at.availOut),
          ended: code === Z_STREAM_END,
        };
      },
      // GNU tar and tape drives pad with zeros; everything else that follows a member must be one.
      after: (byte) => (byte === FIRST_MAGIC_BYTE ? 'member' : byte === 0 ? 'padding' : 'garbage'),
      restart: () => void inflateReset(address),
      close: () => void inflateEnd(address),
    };
  };
}
