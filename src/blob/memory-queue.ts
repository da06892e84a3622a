/** Pieces of bytes in the order they came. What is pushed belongs to the queue: its memory is freed as soon as it was taken. */
export class MemoryQueue {
  #chunks: Uint8Array[] = [];
  /** Of the first chunk, gone already. */
  #offset = 0;
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
      const part = first.subarray(this.#offset, this.#offset + into.length - count);
      into.set(part, count);
      count += part.length;
      this.#offset += part.length;
      if (this.#offset < first.length) break;
      this.#chunks.shift();
      this.#offset = 0;
      release(first);
    }
    this.#bytes -= count;
    return count;
  }

  clear(): void {
    this.#chunks = [];
    this.#offset = 0;
    this.#bytes = 0;
  }
}

/** In bytes; smaller ones may lie in a pool that others share. */
const WORTH_RELEASING = 32 * 1024;

/** Frees the memory of a chunk that has a buffer of its own now: V8 would let 64 MiB of them pile up. */
function release({ buffer, byteLength }: Uint8Array): void {
  const alone = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
  if (alone && byteLength >= WORTH_RELEASING) buffer.transfer(0);
}
