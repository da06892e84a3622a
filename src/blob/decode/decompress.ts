import { setImmediate as turn } from 'node:timers/promises';
import { IntegrityError } from '../../errors.ts';
import { type Compression, compressionOf, type Decompress, MAGIC_LENGTH } from '../../oci/compression.ts';
import { type ByteReader, MalformedDataError, prepend, readerOf, readFully } from './byte-reader.ts';
import { bunzip2 } from './bzip2.ts';
import { type Engine, type NativeDecoders, nativeDecoders, StepDecoder } from './engine.ts';
import { gunzip, unzstd } from './node-streams.ts';
import { unxz } from './xz.ts';

/**
 * Finds the compression of a blob by its first bytes, not by a media type. The returned reader begins with
 * these bytes.
 */
export async function recognise(
  blob: ByteReader,
): Promise<{ readonly compression: Compression; readonly reader: ByteReader }> {
  const head = new Uint8Array(MAGIC_LENGTH);
  const length = await readFully(blob, head);
  const start = head.subarray(0, length);
  return { compression: compressionOf(start), reader: prepend(start, blob) };
}

/**
 * Returns the uncompressed bytes of a blob. Each chunk is valid until the next is requested.
 *
 * @param native null if no C function can be called
 * @throws MalformedDataError, also from the result
 */
export function decode(
  compression: Compression,
  reader: ByteReader,
  native: NativeDecoders | null = nativeDecoders(),
): Chunks {
  return decoders[compression](reader, native);
}

/**
 * As `decode`, for data other than layers, such as an archive that holds an image.
 *
 * @throws IntegrityError if the data is malformed
 */
export const decompress: Decompress = async function* (bytes, name) {
  try {
    const { compression, reader } = await recognise(readerOf(bytes));
    yield* decode(compression, reader);
  } catch (error) {
    if (!(error instanceof MalformedDataError)) throw error;
    throw new IntegrityError(`${name}: its compressed data ${error.message}`, {
      code: 'MALFORMED_ARCHIVE',
      hint: 'the file is corrupt or incomplete: download it again',
      cause: error,
    });
  }
};

type Chunks = AsyncGenerator<Uint8Array, void, undefined>;

/**
 * The decoders by compression: functions in C, or Node's streams. For bzip2 and xz, packages are loaded on
 * demand.
 */
const decoders: Readonly<Record<Compression, (reader: ByteReader, native: NativeDecoders | null) => Chunks>> =
  {
    none: uncompressed,
    gzip: (reader, native) => (native ? byEngine(native, native.gzip, reader) : gunzip(reader)),
    zstd: (reader, native) => (native ? byEngine(native, native.zstd, reader) : unzstd(reader)),
    bzip2: bunzip2,
    xz: unxz,
  };

/** Sizes of the buffers for input and output, in bytes. */
const INPUT_BYTES = 256 * 1024;
const OUTPUT_BYTES = 512 * 1024;

async function* uncompressed(reader: ByteReader): Chunks {
  const buffer = new Uint8Array(INPUT_BYTES);
  for (let count = await reader.read(buffer); count > 0; count = await reader.read(buffer)) {
    yield buffer.subarray(0, count);
  }
}

/** Decodes in this thread, from one buffer into another. Many small members share a chunk of output. */
async function* byEngine({ locate }: NativeDecoders, start: () => Engine, reader: ByteReader): Chunks {
  const engine = start();
  try {
    const decoder = new StepDecoder(engine, true);
    const input = Buffer.allocUnsafeSlow(INPUT_BYTES);
    const output = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
    let length = 0;
    for (;;) {
      if (length === OUTPUT_BYTES) {
        yield output;
        length = 0;
        // A reader whose bytes have all come must not delay sockets and signals.
        await turn();
      }
      if (decoder.hungry) {
        if (length > 0) yield output.subarray(0, length);
        length = 0;
        const count = await reader.read(input);
        if (count === 0) break;
        decoder.feed(locate(input.subarray(0, count)));
      }
      length += decoder.step(locate(output.subarray(length)));
    }
    decoder.end();
  } finally {
    engine.close();
  }
}
