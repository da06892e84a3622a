import type { FileHandle } from 'node:fs/promises';

/** On the way to the file, in bytes. */
const LIMIT = 512 * 1024;

/** Writes to a file one after the other; whatever gathers during one write goes out with the next. */
export class WriteBehind {
  readonly #file: () => Promise<FileHandle>;
  readonly #wrote: (end: number) => void;
  readonly #failed: (error: unknown) => void;
  #pending: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;

  /** `wrote` hears where each write ended, `failed` of the first that went wrong. */
  constructor(
    file: () => Promise<FileHandle>,
    wrote: (end: number) => void,
    failed: (error: unknown) => void,
  ) {
    this.#file = file;
    this.#wrote = wrote;
    this.#failed = failed;
  }

  /** Takes bytes that follow those before; `offset` is where they belong. Waits when too much is on the way. */
  async write(chunk: Uint8Array, offset: number): Promise<void> {
    this.#pending.push(chunk);
    this.#bytes += chunk.length;
    if (!this.#writing) {
      this.#writing = this.#flush(offset);
      this.#writing.catch(this.#failed);
    }
    if (this.#bytes > LIMIT) await this.#writing;
  }

  /** Resolves when all is in the file. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #flush(start: number): Promise<void> {
    try {
      const file = await this.#file();
      for (let offset = start; this.#pending.length > 0; this.#wrote(offset)) {
        const chunks = this.#pending;
        this.#pending = [];
        this.#bytes = 0;
        offset = await writeFully(file, chunks, offset);
      }
    } finally {
      // At once, not when the promise is looked at: a write in between would wait for nobody.
      this.#writing = undefined;
    }
  }
}

/** Writes all chunks from `offset` on; answers where they end. */
export async function writeFully(
  file: FileHandle,
  chunks: readonly Uint8Array[],
  offset: number,
): Promise<number> {
  let end = offset;
  for (let rest = chunks; rest.length > 0;) {
    const { bytesWritten } = await file.writev(rest, end);
    end += bytesWritten;
    rest = skip(rest, bytesWritten);
  }
  return end;
}

function skip(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes;
  const index = chunks.findIndex((chunk) => {
    if (chunk.length > left) return true;
    left -= chunk.length;
    return false;
  });
  if (index === -1) return [];
  return [chunks[index]!.subarray(left), ...chunks.slice(index + 1)];
}
