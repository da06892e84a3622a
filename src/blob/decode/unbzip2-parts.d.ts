// The block decoder alone. The package's stream decodes all blocks of a write before the reader gets any of
// them, so that a few hundred bytes grow to gigabytes in memory.
declare module 'unbzip2-stream/lib/bzip2.js' {
  /** Reads `count` bits, most significant first. `null` skips to the next whole byte. */
  type ReadBits = (count: number | null) => number;
  interface BlockDecoder {
    /** Reads a stream's header. Returns its block size in units of 100,000 bytes. */
    header(bits: ReadBits): number;
    /**
     * Decodes a block byte by byte into `write`. Returns the running checksum, or null after the end mark.
     */
    decompress(
      bits: ReadBits,
      write: (byte: number) => void,
      work: Int32Array,
      workLength: number,
      checksum: number,
    ): number | null;
  }
  const decoder: BlockDecoder;
  export default decoder;
}
