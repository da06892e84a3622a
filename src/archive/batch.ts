const size = 256 * 1024;

/** Gathers many small pieces into buffers of one size, each of its own memory: what readers hand out lives only until their next piece. */
export class Batch {
  #buffer = Buffer.allocUnsafe(size);
  #length = 0;

  /** Takes the bytes; yields every buffer that is full. */
  *add(bytes: Uint8Array): Generator<Buffer, void, void> {
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + size - this.#length);
      this.#buffer.set(bytes.subarray(at, end), this.#length);
      this.#length += end - at;
      at = end;
      if (this.#length === size) yield this.#take();
    }
  }

  /** What is left. */
  *flush(): Generator<Buffer, void, void> {
    if (this.#length > 0) yield this.#take();
  }

  #take(): Buffer {
    const full = this.#buffer.subarray(0, this.#length);
    this.#buffer = Buffer.allocUnsafe(size);
    this.#length = 0;
    return full;
  }
}
