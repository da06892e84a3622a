import { ReadableStream } from 'node:stream/web';
import type { ByteReader } from './byte-reader.ts';
import { ENDS_EARLY, MalformedDataError } from './malformed-data.ts';

/** In bytes; what the decoder takes at once. */
const INPUT = 64 * 1024;
/** xz.h of XZ Embedded, which the package is made of. */
const XZ_UNSUPPORTED_CHECK = 2;
const XZ_MEM_ERROR = 3;
const XZ_MEMLIMIT_ERROR = 4;
const XZ_OPTIONS_ERROR = 6;
const XZ_BUF_ERROR = 8;

/**
 * xz: streams one after another, zeros between and after them.
 *
 * @throws MalformedDataError, also for filters other than LZMA2 and for SHA-256 as the check, which this decoder does not have
 */
export async function* unxz(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const XzReadableStream = await load();
  const source = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const piece = new Uint8Array(INPUT);
        const count = await reader.read(piece);
        if (count === 0) controller.close();
        else controller.enqueue(piece.subarray(0, count));
      },
    },
    { highWaterMark: 0 },
  );
  try {
    for await (const chunk of new XzReadableStream(source)) {
      if (chunk.length > 0) yield chunk;
    }
  } catch (error) {
    throw explain(error);
  }
}

/** The package is CommonJS in a wrapper that hides its names from Node's import, though its types promise them. */
async function load() {
  const module: typeof import('xz-decompress') & { readonly default?: typeof import('xz-decompress') } =
    await import('xz-decompress');
  return (module.default ?? module).XzReadableStream;
}

function explain(error: unknown): unknown {
  const text = error instanceof Error ? error.message : '';
  const code = Number(/get_next_output failed with error code (\d+)/.exec(text)?.[1]);
  if (Number.isNaN(code)) return error;
  if (code === XZ_BUF_ERROR) return new MalformedDataError(ENDS_EARLY);
  if (code === XZ_MEM_ERROR || code === XZ_MEMLIMIT_ERROR)
    return new MalformedDataError('needs too much memory');
  if (code === XZ_UNSUPPORTED_CHECK || code === XZ_OPTIONS_ERROR) {
    return new MalformedDataError('uses a filter or a check that is not supported');
  }
  return new MalformedDataError('is corrupt');
}
