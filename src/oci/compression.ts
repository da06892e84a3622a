/** The compression of a tar; the original knew all but zstd. */
export type Compression = 'none' | 'gzip' | 'zstd' | 'bzip2' | 'xz';

/**
 * Decompresses bytes, in the format that their first bytes show. Each chunk is valid until the next one is
 * requested.
 *
 * @param name of the file or layer, for messages
 * @throws IntegrityError if they are corrupt
 */
export type Decompress = (bytes: AsyncIterable<Uint8Array>, name: string) => AsyncIterable<Uint8Array>;

/** The number of first bytes that `compressionOf` needs, or all of a shorter file. */
export const MAGIC_LENGTH = 10;

const MAGICS: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b, 0x08]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
];
/**
 * After `BZh` and the block size comes the mark of a block, or that of the end. A tar may begin with a name
 * `BZh9`.
 */
const BZIP2_MARKS = new Set(['314159265359', '177245385090']);

/** Returns the compression of a layer or archive by its first bytes; unknown bytes mean a plain tar. */
export function compressionOf(head: Uint8Array): Compression {
  for (const [compression, magic] of MAGICS) {
    if (magic.every((byte, index) => head[index] === byte)) return compression;
  }
  if (isBzip2(Buffer.from(head))) return 'bzip2';
  return isSkippableFrame(head) ? 'zstd' : 'none';
}

function isBzip2(head: Buffer): boolean {
  return /^BZh[1-9]$/.test(head.toString('latin1', 0, 4)) && BZIP2_MARKS.has(head.toString('hex', 4, 10));
}

/** RFC 8878, 3.1.2: a zstd stream may begin with frames that a decoder skips. */
function isSkippableFrame(head: Uint8Array): boolean {
  return head[0]! >> 4 === 5 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
}

/** Returns the compression in a layer's media type; undefined if it has none (registry v1, schema 1). */
export function promisedCompression(mediaType: string): Compression | undefined {
  const suffix = /(?:\.tar|\.diff\.tar)(?:[.+](gzip|zstd|bzip2|xz))?$/.exec(mediaType);
  if (!suffix) return undefined;
  return (suffix[1] as Compression | undefined) ?? 'none';
}
