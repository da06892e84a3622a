import { type ByteReader, ENDS_EARLY, MalformedDataError } from './byte-reader.ts';

/**
 * Messages by xz_ret in xz.h of XZ Embedded, on which the package is built. Any other failure means corrupt
 * data.
 */
const XZ_FAULTS: Readonly<Record<string, string>> = {
  2: 'uses a filter or a check that is not supported',
  3: 'needs too much memory',
  4: 'needs too much memory',
  6: 'uses a filter or a check that is not supported',
  8: ENDS_EARLY,
};

/**
 * Decodes xz: streams one after another, with zeros between and after them. The decoder lacks all filters but
 * LZMA2, and the check SHA-256. Data with these counts as malformed.
 *
 * @throws MalformedDataError
 * @throws what the reader throws
 */
export async function* unxz(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  // The package is CommonJS in a wrapper that hides its names from Node's import. Its types promise them.
  const module: typeof import('xz-decompress') & { readonly default?: typeof import('xz-decompress') } =
    await import('xz-decompress');
  const { XzReadableStream } = module.default ?? module;
  try {
    for await (const chunk of new XzReadableStream(ReadableStream.from(piecesOf(reader)))) {
      if (chunk.length > 0) yield chunk;
    }
  } catch (error) {
    const text = error instanceof Error ? error.message : '';
    const code = /get_next_output failed with error code (\d+)/.exec(text)?.[1];
    throw code === undefined ? error : new MalformedDataError(XZ_FAULTS[code] ?? 'is corrupt');
  }
}

/** Size of a piece in bytes. */
const READ_BYTES = 256 * 1024;

/** Returns pieces, each in memory of its own: the decoder keeps a piece while it asks for the next. */
async function* piecesOf(reader: ByteReader): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(READ_BYTES);
  for (let count = await reader.read(buffer); count > 0; count = await reader.read(buffer)) {
    yield buffer.slice(0, count);
  }
}
