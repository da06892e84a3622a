import { IntegrityError } from '../../errors.ts';
import { type Compression, compressionOf, type Decompress, MAGIC_LENGTH } from '../../oci/compression.ts';
import { type ByteReader, MalformedDataError, prepend, readerOf, readFully } from './byte-reader.ts';
import { decodeByEngine } from './engine.ts';
import type { NativeDecoders } from './native.ts';
import { portableDecoders } from './portable.ts';

/** The compression of a blob, by its first bytes and not by a media type; the returned reader begins with these bytes. */
export async function recognise(
  blob: ByteReader,
): Promise<{ readonly compression: Compression; readonly reader: ByteReader }> {
  const head = new Uint8Array(MAGIC_LENGTH);
  const length = await readFully(blob, head);
  const start = head.subarray(0, length);
  return { compression: compressionOf(start), reader: prepend(start, blob) };
}

/**
 * The bytes of a blob, unpacked: gzip and zstd in C where `native` can, else by `portableDecoders`. Each chunk is valid until the next is
 * requested.
 *
 * @param isDigestKnown the caller compares the digest of all bytes: checksums in the data are not compared
 * @throws MalformedDataError, also from the result
 */
export function decode(
  compression: Compression,
  reader: ByteReader,
  native: NativeDecoders | undefined,
  isDigestKnown = false,
): AsyncGenerator<Uint8Array, void, undefined> {
  const open = compression === 'gzip' || compression === 'zstd' ? native?.[compression] : undefined;
  if (!native || !open) return portableDecoders[compression](reader);
  return decodeByEngine(open, !isDigestKnown, reader, native.allocate);
}

/** `decode` for data other than layers, such as an archive that holds an image. */
export function decompressor(native: NativeDecoders | undefined): Decompress {
  return async function* (bytes, name) {
    try {
      const { compression, reader } = await recognise(readerOf(bytes));
      yield* decode(compression, reader, native);
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
