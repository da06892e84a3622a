import { createHash } from 'node:crypto';
import { type FileRecords, STAT_BYTES } from './file-records.ts';
import type { WritableFile } from './repository-files.ts';
import { ID_BYTES } from './trees.ts';

const INDEX_VERSION = 2;
const MODE_AT = 24;
const FLAGS_AT = STAT_BYTES + ID_BYTES;
/** Size of times, device, inode, mode, owner and size of the file, its blob and the flags. */
const FIXED_BYTES = FLAGS_AT + 2;
/** Bytes, many more than an entry takes. */
const BUFFER_BYTES = 1024 * 1024;
const MAX_NAME_IN_FLAGS = 0xfff;

/**
 * Writes an index (version 2, gitformat-index(5)) that marks every file as unchanged, so that `git status`
 * reads no file. git itself would hash all files again for that: `git update-index --refresh` takes 3 to 4.5
 * s on 100,000 files.
 */
export class IndexFile {
  readonly #file: WritableFile;
  readonly #hash = createHash('sha1');
  readonly #part = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #length = 0;
  /** The number of entries still to come. */
  #missing: number;

  /**
   * @param file an empty file
   * @param count the number of entries it will have
   */
  constructor(file: WritableFile, count: number) {
    this.#file = file;
    this.#missing = count;
    this.#length = this.#part.write('DIRC', 'latin1');
    this.#length = this.#part.writeUInt32BE(INDEX_VERSION, this.#length);
    this.#length = this.#part.writeUInt32BE(count, this.#length);
  }

  /** Adds the next file, in the order of the paths' bytes. If its status is unknown, git has to read it. */
  add(path: string, number: number, records: FileRecords): void {
    const size = entrySize(path);
    if (this.#length + size > BUFFER_BYTES) this.#flush();
    const part = this.#part;
    const start = this.#length;
    part.fill(0, start + size - 8, start + size);
    records.copyStatAndId(number, part, start);
    part.writeUInt32BE(Number.parseInt(records.mode(number), 8), start + MODE_AT);
    const at = part.writeUInt16BE(Math.min(path.length, MAX_NAME_IN_FLAGS), start + FLAGS_AT);
    part.write(path, at, 'latin1');
    this.#length += size;
    this.#missing -= 1;
  }

  /**
   * Completes the index.
   *
   * @throws Error unless it has as many entries as announced
   */
  finish(): void {
    if (this.#missing !== 0) throw new Error(`the index lacks ${this.#missing} entries`);
    this.#flush();
    this.#file.write(this.#hash.digest());
  }

  #flush(): void {
    const bytes = this.#part.subarray(0, this.#length);
    this.#hash.update(bytes);
    this.#file.write(bytes);
    this.#length = 0;
  }
}

/** Returns the size of an entry: one to eight NULs after the path make it a multiple of eight. */
function entrySize(path: string): number {
  return (FIXED_BYTES + path.length + 8) & ~7;
}
