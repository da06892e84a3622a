import type { BytePath, Entry } from '../tar/entry.ts';
import type { Mtime } from './filesystem.ts';
import { PathSet } from './path-set.ts';

/** Size of one chunk of the log, in bytes. */
const LOG_CHUNK_BYTES = 65_536;
const NO_MODE = 0xffff;
/**
 * Bytes of one record without its path: length of the shared prefix, of the rest, mode, seconds, nanoseconds.
 */
const FIXED_BYTES = 2 + 2 + 2 + 8 + 4;

/** Modes and times that the directories of a run get at its end. */
export class DirectoryNotes {
  readonly #log = new DirectoryLog();
  /** Directories with a mode for the end: later entries for them need one too. */
  readonly #lateModes = new PathSet();
  /** Names of extended attributes that were set on directories. */
  readonly xattrs = new Set<string>();
  /** The last entry for the root itself. */
  rootEntry: Entry | undefined;

  /** @param isLate the mode is set at the end; else the directory already has it */
  add(path: string, mode: number, isLate: boolean, mtime: Mtime): void {
    if (isLate) this.#lateModes.add(path);
    this.#log.add(path, isLate || this.#lateModes.has(path) ? mode : undefined, mtime);
  }

  /** Yields records in the order of `add`: the last record of a path applies. */
  [Symbol.iterator](): Iterator<DirectoryRecord, void, void> {
    return this.#log[Symbol.iterator]();
  }
}

/** Mode and time that a directory gets after everything is written. */
interface DirectoryRecord extends Mtime {
  readonly path: BytePath;
  /** Undefined: the directory already has its mode. */
  readonly mode: number | undefined;
}

/**
 * The directories of a run in the order of their entries, in about thirty bytes each. A path is stored
 * without the prefix that it shares with the previous one. Its last record applies.
 */
export class DirectoryLog {
  readonly #chunks: Buffer[] = [];
  readonly #lengths: number[] = [];
  #last = '';

  add(path: string, mode: number | undefined, { mtimeSeconds, mtimeNanoseconds }: Mtime): void {
    const most = Math.min(path.length, this.#last.length);
    // Most directories follow their parent; comparing byte by byte is slow at thousands of levels.
    let shared = path.startsWith(this.#last) ? most : 0;
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

  /** Returns the last chunk, or a new one if fewer than `size` bytes are left in it. */
  #room(size: number): Buffer {
    const chunk = this.#chunks.at(-1);
    if (chunk && this.#lengths.at(-1)! + size <= chunk.length) return chunk;
    const next = Buffer.allocUnsafeSlow(Math.max(LOG_CHUNK_BYTES, size));
    this.#chunks.push(next);
    this.#lengths.push(0);
    return next;
  }
}
