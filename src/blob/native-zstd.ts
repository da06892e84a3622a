import type { Engine, Region, Run } from './engine.ts';
import { MalformedDataError } from './malformed-data.ts';
import type { Koffi, Library } from './native.ts';
import { WINDOW_LOG_MAX, WINDOW_TOO_LARGE } from './zstd-window.ts';

/** zstd.h */
const ZSTD_D_WINDOW_LOG_MAX = 100;

/** zstd by the library inside Node. Throws where its functions cannot be found. */
export function nativeZstd(koffi: Koffi, library: Library): () => Engine {
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
    return {
      feed(bytes: Region, length: number) {
        memory.writeBigUInt64LE(bytes.address, 0);
        memory.writeBigUInt64LE(BigInt(length), at.size);
        memory.writeBigUInt64LE(0n, at.position);
      },
      left: () => number(at.size) - number(at.position),
      async run(target: Region): Promise<Run> {
        memory.writeBigUInt64LE(target.address, size);
        memory.writeBigUInt64LE(BigInt(target.bytes.length), size + at.size);
        memory.writeBigUInt64LE(0n, size + at.position);
        const code = await new Promise<bigint | number>((resolve, reject) => {
          decompress.async(stream, output, input, (error: Error | null, result: bigint | number) =>
            error ? reject(error) : resolve(result),
          );
        });
        if (isError(code) !== 0) throw malformed(errorName(code) as string);
        return { produced: number(size + at.position), ended: Number(code) === 0 };
      },
      // RFC 8878: frames follow one another; the decoder tells a frame from garbage itself.
      after: () => 'member',
      restart: () => undefined,
      close: () => void free(stream),
    };
  };
}

function malformed(name: string): MalformedDataError {
  if (/window|memory/i.test(name)) return new MalformedDataError(WINDOW_TOO_LARGE);
  return new MalformedDataError(`is damaged (${name})`);
}
