/** Pieces of bytes in the order they came. */
export class MemoryQueue {
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** Moves as much as fits into `into`; how many bytes that were. */
  take(into: Uint8Array): number {
    let count = 0;
    while (this.#chunks.length > 0 && count < into.length) {
      const first = this.#chunks[0]!;
      const part = first.subarray(0, into.length - count);
      into.set(part, count);
      count += part.length;
      if (part.length === first.length) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(part.length);
    }
    this.#bytes -= count;
    return count;
  }

  clear(): void {
    this.#chunks = [];
    this.#bytes = 0;
  }
}
