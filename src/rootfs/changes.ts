/**
 * What a layer changed, in order: `W path` for a file or symlink that was written, `D path` for what was removed with all below
 * it (also where something stands that git does not keep, as a device), each ended by NUL. Bytes as they are on disk.
 */
export class ChangeLog {
  #bytes = Buffer.allocUnsafeSlow(4096);
  #length = 0;

  written(path: string): void {
    this.#add('W ', path);
  }

  removed(path: string): void {
    this.#add('D ', path);
  }

  /** The records since the last call. */
  take(): Uint8Array {
    const records = this.#bytes.subarray(0, this.#length);
    this.#bytes = Buffer.allocUnsafeSlow(4096);
    this.#length = 0;
    return records;
  }

  #add(kind: string, path: string): void {
    const record = `${kind}${path}\0`;
    if (this.#length + record.length > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(2 * (this.#bytes.length + record.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#length += this.#bytes.write(record, this.#length, 'latin1');
  }
}
