import { readSync, writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { IntegrityError } from '../errors.ts';
import { AsyncTarReader } from '../tar/async-reader.ts';
import type { Entry } from '../tar/entry.ts';
import { unwritable } from './archive-file.ts';
import type { Inode } from './node.ts';
import type { Placed } from './walk.ts';

/** One layer of an image as this room needs it. */
export interface FlattenLayer {
  /** What messages call it: `layer 0123456789ab`. */
  readonly name: string;
  /** The layer's tar, verified to its last byte; opened twice. Each chunk is valid until the next is asked for. */
  open(): AsyncIterable<Uint8Array>;
}

/** Where in the spool the data of a file is. */
interface Spooled {
  readonly start: number;
  readonly size: number;
}

const pieceSize = 256 * 1024;

/**
 * Hands out the data of files in an order that is not quite that of the layers. All layers are read at once, each as far as it is
 * needed; data that comes before its turn waits in a file. Archives are nearly always in the order of names, so that hardly any does.
 */
export class Contents {
  readonly #layers: readonly FlattenLayer[];
  readonly #temporaryFile: () => Promise<FileHandle>;
  /** Of each layer, the entries whose data the archive will have. */
  readonly #wanted: readonly Map<number, Inode>[];
  readonly #cursors: (Cursor | undefined)[];
  readonly #spooled = new Map<Inode, Spooled>();
  #spool: FileHandle | undefined;
  #spoolSize = 0;

  /**
   * @param names all that the archive will have
   * @param temporaryFile a new empty file, open for reading and writing, that nobody else has
   */
  constructor(
    layers: readonly FlattenLayer[],
    names: Iterable<Placed>,
    temporaryFile: () => Promise<FileHandle>,
  ) {
    this.#layers = layers;
    this.#temporaryFile = temporaryFile;
    this.#wanted = layers.map(() => new Map<number, Inode>());
    this.#cursors = layers.map(() => undefined);
    for (const { inode, linkTo } of names) {
      if (linkTo === undefined && storedSize(inode.entry) > 0)
        this.#wanted[inode.layer]!.set(inode.ordinal, inode);
    }
  }

  /** The stored data of a file (extents back to back where sparse); each piece is valid until the next is asked for. */
  async *read(inode: Inode): AsyncGenerator<Uint8Array, void, void> {
    if (storedSize(inode.entry) === 0) return;
    const spooled = this.#spooled.get(inode);
    if (spooled !== undefined) {
      this.#spooled.delete(inode);
      yield* this.#readSpool(spooled);
      return;
    }
    const cursor = (this.#cursors[inode.layer] ??= new Cursor(this.#layers[inode.layer]!));
    const wanted = this.#wanted[inode.layer]!;
    for (;;) {
      const entry = await cursor.next();
      const found = wanted.get(cursor.ordinal);
      if (found === undefined) continue;
      if (storedSize(found.entry) !== storedSize(entry)) throw cursor.changed();
      wanted.delete(cursor.ordinal);
      if (found === inode) break;
      await this.#spoolData(cursor, found);
    }
    for (let piece = await cursor.reader.data(); piece !== undefined; piece = await cursor.reader.data())
      yield piece;
    if (wanted.size === 0) await cursor.close();
  }

  /** Frees what is open, after an error too. */
  async close(): Promise<void> {
    for (const cursor of this.#cursors) await cursor?.close();
    await this.#spool?.close();
    this.#spool = undefined;
  }

  async #spoolData({ reader }: Cursor, inode: Inode): Promise<void> {
    this.#spool ??= await this.#temporaryFile();
    const start = this.#spoolSize;
    for (let piece = await reader.data(); piece !== undefined; piece = await reader.data()) {
      try {
        for (let done = 0; done < piece.length;) {
          done += writeSync(this.#spool.fd, piece, done, piece.length - done, this.#spoolSize + done);
        }
      } catch (error) {
        throw unwritable('a temporary file beside the archive', error);
      }
      this.#spoolSize += piece.length;
    }
    this.#spooled.set(inode, { start, size: this.#spoolSize - start });
  }

  *#readSpool({ start, size }: Spooled): Generator<Uint8Array, void, void> {
    const piece = Buffer.allocUnsafe(Math.min(size, pieceSize));
    for (let done = 0; done < size;) {
      const count = readSync(this.#spool!.fd, piece, 0, Math.min(piece.length, size - done), start + done);
      if (count === 0) throw new Error('the temporary file is shorter than what was written to it');
      done += count;
      yield piece.subarray(0, count);
    }
  }
}

/** Bytes that the archive has of an entry's data. */
function storedSize({ size, sparse }: Entry): number {
  return sparse === undefined ? size : sparse.reduce((sum, { length }) => sum + length, 0);
}

/** A layer that is being read, and how far. */
class Cursor {
  ordinal = -1;
  readonly reader: AsyncTarReader;
  readonly #name: string;
  readonly #chunks: AsyncIterator<Uint8Array>;

  constructor(layer: FlattenLayer) {
    this.#name = layer.name;
    this.#chunks = layer.open()[Symbol.asyncIterator]();
    this.reader = new AsyncTarReader(this.#chunks, layer.name);
  }

  async next(): Promise<Entry> {
    this.ordinal += 1;
    const entry = await this.reader.next();
    if (entry === undefined) throw this.changed();
    return entry;
  }

  changed(): IntegrityError {
    return new IntegrityError(`${this.#name}: it has other entries than when it was read first`, {
      code: 'LAYER_CHANGED',
      hint: 'the store was changed meanwhile, run it again',
    });
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
