import type { BytePath } from '../tar/entry.ts';

/** Mode and time that a directory gets after everything is written. */
export interface DirectoryRecord {
  readonly path: BytePath;
  /** Undefined: the directory already has its mode. */
  readonly mode: number | undefined;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

const CHUNK_BYTES = 65_536;
const NO_MODE = 0xffff;
/** In bytes: length of the shared prefix, length of the rest, mode, seconds, nanoseconds. */
const FIXED_BYTES = 2 + 2 + 2 + 8 + 4;

/**
 * The directories of a run in the order of their entries, in about thirty bytes each: a path is stored without the prefix that it shares
 * with the previous one. The last record of a path applies.
 */
export class DirectoryLog {
  readonly #chunks: Buffer[] = [];
  readonly #lengths: number[] = [];
  #last = '';

  add(path: string, mode: number | undefined, mtimeSeconds: number, mtimeNanoseconds: number): void {
    let shared = 0;
    const most = Math.min(path.length, this.#last.length);
    while (shared < most && path.charCodeAt(shared) === this.#last.charCodeAt(shared)) shared += 1;
    const rest = path.length - shared;
    const chunk = this.#room(FIXED_BYTES + rest);
    let at = this.#lengths.at(-1)!;
    at = chunk.writeUInt16LE(shared, at);
    at = chunk.writeUInt16LE(rest, at);
    at = chunk.writeUInt16LE(mode ?? NO_MODE, at);
    at = chunk.writeDoubleLE(mtimeSeconds, at);
    at = chunk.writeUInt32LE(mtimeNanoseconds, at);
    at += chunk.write(path.slice(shared), at, 'latin1');
    this.#lengths[this.#lengths.length - 1] = at;
    this.#last = path;
  }

  *[Symbol.iterator](): Generator<DirectoryRecord, void, void> {
    let path = '';
    for (const [index, chunk] of this.#chunks.entries()) {
      const end = this.#lengths[index]!;
      for (let at = 0; at < end;) {
        const shared = chunk.readUInt16LE(at);
        const rest = chunk.readUInt16LE(at + 2);
        const mode = chunk.readUInt16LE(at + 4);
        const start = at + FIXED_BYTES;
        path = path.slice(0, shared) + chunk.toString('latin1', start, start + rest);
        yield {
          path: path as BytePath,
          mode: mode === NO_MODE ? undefined : mode,
          mtimeSeconds: chunk.readDoubleLE(at + 6),
          mtimeNanoseconds: chunk.readUInt32LE(at + 14),
        };
        at = start + rest;
      }
    }
  }

  /** The last chunk, or a new one if fewer than `size` bytes are left in it. */
  #room(size: number): Buffer {
    const chunk = this.#chunks.at(-1);
    if (chunk && this.#lengths.at(-1)! + size <= chunk.length) return chunk;
    const next = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, size));
    this.#chunks.push(next);
    this.#lengths.push(0);
    return next;
  }
}
