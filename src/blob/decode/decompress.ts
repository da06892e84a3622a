import { IntegrityError } from '../../errors.ts';
import { type Compression, compressionOf, type Decompress, MAGIC_LENGTH } from '../../oci/compression.ts';
import { type ByteReader, prepend, readerOf, readFully } from './byte-reader.ts';
import { drive } from './engine.ts';
import { MalformedDataError } from './malformed-data.ts';
import type { NativeDecoders } from './native.ts';
import { nodeGunzip, nodeUnzstd } from './node-zlib.ts';

/** A piece of a plain tar, in bytes. */
const PIECE = 256 * 1024;

/** Looks at the first bytes of a blob: by them, not by a media type, its compression is known. The reader begins with them again. */
export async function recognise(
  blob: ByteReader,
): Promise<{ readonly compression: Compression; readonly reader: ByteReader }> {
  const head = new Uint8Array(MAGIC_LENGTH);
  const length = await readFully(blob, head);
  const start = head.subarray(0, length);
  return { compression: compressionOf(start), reader: prepend(start, blob) };
}

/**
 * The bytes of a blob, unpacked: gzip and zstd in C where `native` can, bzip2 and xz by packages loaded then. Each chunk is valid until the
 * next is asked for, and throws MalformedDataError.
 *
 * @param isDigestKnown the caller compares the digest of all bytes: checksums in the data are not compared
 */
export async function decode(
  compression: Compression,
  reader: ByteReader,
  native: NativeDecoders | undefined,
  isDigestKnown = false,
): Promise<AsyncGenerator<Uint8Array, void, undefined>> {
  return (await decoderOf(compression, native, isDigestKnown))(reader);
}

/** Both: a blob's compression, and its bytes unpacked. */
export async function decompress(
  blob: ByteReader,
  native: NativeDecoders | undefined,
): Promise<{
  readonly compression: Compression;
  readonly chunks: AsyncGenerator<Uint8Array, void, undefined>;
}> {
  const { compression, reader } = await recognise(blob);
  return { compression, chunks: await decode(compression, reader, native) };
}

/** `decompress` for what is no layer, such as an archive that holds an image. */
export function decompressor(native: NativeDecoders | undefined): Decompress {
  return async function* (bytes, name) {
    try {
      yield* (await decompress(readerOf(bytes), native)).chunks;
    } catch (error) {
      if (!(error instanceof MalformedDataError)) throw error;
      throw new IntegrityError(`${name}: its compressed data ${error.message}`, {
        code: 'MALFORMED_ARCHIVE',
        hint: 'the file is corrupt or incomplete: download it again',
        cause: error,
      });
    }
  };
}

type Decoder = (reader: ByteReader) => AsyncGenerator<Uint8Array, void, undefined>;

async function decoderOf(
  compression: Compression,
  native: NativeDecoders | undefined,
  isDigestKnown: boolean,
): Promise<Decoder> {
  if (compression === 'gzip' || compression === 'zstd') {
    const make = native?.[compression];
    if (!make || !native) return compression === 'gzip' ? nodeGunzip : nodeUnzstd;
    const open = () => {
      const engine = make();
      engine.compareChecksums(!isDigestKnown);
      return engine;
    };
    return (reader) => drive(open, reader, native.allocate);
  }
  if (compression === 'bzip2') return (await import('./bunzip2.ts')).bunzip2;
  if (compression === 'xz') return (await import('./unxz.ts')).unxz;
  return plain;
}

async function* plain(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(PIECE);
  for (let count = await reader.read(buffer); count > 0; count = await reader.read(buffer)) {
    yield buffer.subarray(0, count);
  }
}
