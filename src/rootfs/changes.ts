import type { Entry } from '../tar/entry.ts';
import type { ContentWriter } from './contents.ts';

/** Kinds of changes. `special`: a device or FIFO was made. `executable`: a file that its owner may run. */
const kinds = ['removed', 'directory', 'file', 'executable', 'symlink', 'hardlink', 'special'] as const;

/**
 * One change that a layer made to the tree. Paths are relative to the root and go through no symlink. Each
 * character is one byte.
 */
export interface TreeChange {
  readonly kind: (typeof kinds)[number];
  readonly path: string;
  /** Another path of a hard-linked file; empty for other kinds. */
  readonly target: string;
  /** Number of the content of a file or symlink, as ContentWriter counts; else 0. */
  readonly number: number;
}

/** Bytes of kind, number, length of the path and length of the target. */
const HEADER_BYTES = 1 + 4 + 4 + 4;
/** Bytes in one message: each message costs about 0.3 ms. */
const BATCH_BYTES = 256 * 1024;

/** Records the changes of layers in order, for -g, as bytes that `readChanges` reads. */
export class ChangeLog {
  /** Receives the content of each file and symlink before its change is added. */
  readonly contents: ContentWriter;
  readonly #tell: (records: Uint8Array<ArrayBuffer>) => void;
  #bytes = Buffer.allocUnsafeSlow(BATCH_BYTES);
  #length = 0;
  /** Number of changes with a content so far. */
  #count = 0;

  /** @param tell receives many records at a time */
  constructor(contents: ContentWriter, tell: (records: Uint8Array<ArrayBuffer>) => void) {
    this.contents = contents;
    this.#tell = tell;
  }

  /**
   * Records that an entry was put at `path`. The last content in `contents` belongs to it.
   *
   * @param target for a hard link: its other path on disk
   * @throws Error for a file or symlink without a content of its own
   */
  written(path: string, { type, mode }: Pick<Entry, 'type' | 'mode'>, target: string): void {
    switch (type) {
      case 'file':
      case 'symlink': {
        const number = this.contents.count - 1;
        if (number !== this.#count) throw new Error(`content ${number} came for file ${this.#count}`);
        this.#count += 1;
        const kind = type === 'symlink' ? type : (mode & 0o100) === 0 ? 'file' : 'executable';
        return this.#add(kind, path, '', number);
      }
      case 'directory':
        return this.made(path);
      case 'hardlink':
        return this.#add('hardlink', path, target, 0);
      default:
        return this.#add('special', path, '', 0);
    }
  }

  /** Records that a directory was made at `path`, or existed already. */
  made(path: string): void {
    if (path !== '') this.#add('directory', path, '', 0);
  }

  /** Records that the entry at `path` was removed, with all below it. */
  removed(path: string): void {
    this.#add('removed', path, '', 0);
  }

  /** Sends all records, and has the reader of `contents` send the ids of all contents so far. */
  flush(): void {
    this.contents.flush();
    this.#send();
  }

  #add(kind: TreeChange['kind'], path: string, target: string, number: number): void {
    const size = HEADER_BYTES + path.length + target.length;
    if (this.#length + size > BATCH_BYTES) this.#send();
    const bytes = this.#bytes;
    let at = bytes.writeUInt8(kinds.indexOf(kind), this.#length);
    at = bytes.writeUInt32LE(number, at);
    at = bytes.writeUInt32LE(path.length, at);
    at = bytes.writeUInt32LE(target.length, at);
    at += bytes.write(path, at, 'latin1');
    this.#length = at + bytes.write(target, at, 'latin1');
  }

  #send(): void {
    if (this.#length === 0) return;
    this.#tell(this.#bytes.subarray(0, this.#length));
    this.#bytes = Buffer.allocUnsafeSlow(BATCH_BYTES);
    this.#length = 0;
  }
}

/** Yields the changes in records of a ChangeLog. */
export function* readChanges(records: Uint8Array): Generator<TreeChange, void, void> {
  const bytes = Buffer.from(records.buffer, records.byteOffset, records.length);
  for (let at = 0; at < bytes.length;) {
    const kind = kinds[bytes.readUInt8(at)]!;
    const number = bytes.readUInt32LE(at + 1);
    const targetAt = at + HEADER_BYTES + bytes.readUInt32LE(at + 5);
    const end = targetAt + bytes.readUInt32LE(at + 9);
    const path = bytes.toString('latin1', at + HEADER_BYTES, targetAt);
    const target = targetAt === end ? '' : bytes.toString('latin1', targetAt, end);
    yield { kind, path, target, number };
    at = end;
  }
}
