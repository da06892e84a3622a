import { deserialize, serialize } from 'node:v8';
import { IntegrityError } from '../errors.ts';
import { AsyncTarReader } from '../tar/reader.ts';
import type { Entry, SparseExtent } from '../tar/entry.ts';
import { storedSize } from '../tar/sparse.ts';
import type { FileContent, MemoryInodes } from './memory-inodes.ts';
import type { Spool } from './spool.ts';

/** One layer of an image, for its tree. */
export interface ImageLayer {
  /** Its name in messages: `layer 0123456789ab`. */
  readonly name: string;
  /**
   * Opens the layer's tar at its start. Reaching its end shows that it is verified. Each chunk is valid until
   * the next is asked for.
   */
  open(): AsyncIterable<Uint8Array>;
}

/** A file that is being read. */
export interface OpenFile {
  /** Extents of a sparse file; undefined for any other file. */
  readonly extents: readonly SparseExtent[] | undefined;
  /** The stored bytes, extents back to back. Each piece is valid until the next is asked for. */
  readonly pieces: AsyncIterable<Uint8Array>;
}

/** Bytes of the length before a file's extents and data in the spool. */
const LENGTH_BYTES = 4;
const emptyContents: AsyncIterable<Uint8Array> = { async *[Symbol.asyncIterator]() {} };

/**
 * Reads the contents of files in nearly the order of the layers. All layers are open at once, and each is
 * read as far as needed. Contents before the wanted one are kept in the spool. They are few, since nearly all
 * archives are in the order of names.
 */
export class ImageContents {
  readonly #inodes: MemoryInodes;
  readonly #spool: () => Promise<Spool>;
  readonly #cursors: readonly Cursor[];

  /**
   * @param wanted the inodes that will be read
   * @param spool makes the file for contents that are read too early
   */
  constructor(
    layers: readonly ImageLayer[],
    inodes: MemoryInodes,
    wanted: Iterable<number>,
    spool: () => Promise<Spool>,
  ) {
    this.#inodes = inodes;
    this.#spool = spool;
    this.#cursors = layers.map((layer) => new Cursor(layer));
    for (const inode of wanted) {
      const content = inodes.content(inode);
      if (!isInLayer(content)) continue;
      const cursor = this.#cursors[content.layer]!;
      cursor.wanted[content.ordinal] = inode;
      cursor.waiting += 1;
    }
  }

  /** Yields the inodes in the order of their contents in the layers, which needs no disk space to open. */
  *inOrder(): Generator<number, void, void> {
    for (const { wanted } of this.#cursors) for (const inode of wanted) if (inode !== undefined) yield inode;
  }

  /** Opens a file. Read it to its end before the next one is opened. */
  async open(inode: number): Promise<OpenFile> {
    const content = this.#inodes.content(inode);
    if (content === undefined || content.stored === 0)
      return { extents: content?.sparse === true ? [] : undefined, pieces: emptyContents };
    if (content.position !== undefined) return this.#openSpooled(content, content.position);
    const cursor = this.#cursors[content.layer]!;
    const entry = await this.#advance(cursor, inode);
    return { extents: entry.sparse, pieces: this.#piecesOf(cursor) };
  }

  /** Closes the open layers, also after an error. */
  async close(): Promise<void> {
    for (const cursor of this.#cursors) await cursor.close();
  }

  /** Reads a layer up to the entry of `inode`. Contents of other inodes before it go to the spool. */
  async #advance(cursor: Cursor, inode: number): Promise<Entry> {
    for (;;) {
      const entry = await cursor.next();
      const found = cursor.wanted[cursor.ordinal];
      if (found === undefined) continue;
      if (this.#inodes.content(found)?.stored !== storedSize(entry)) throw cursor.changed();
      cursor.waiting -= 1;
      if (found === inode) return entry;
      await this.#putAside(cursor, entry, found);
    }
  }

  async *#piecesOf(cursor: Cursor): AsyncGenerator<Uint8Array, void, void> {
    const { reader } = cursor;
    for (let piece = await reader.data(); piece !== undefined; piece = await reader.data()) yield piece;
    if (cursor.waiting === 0) await cursor.close();
  }

  async #putAside({ reader }: Cursor, { sparse }: Entry, inode: number): Promise<void> {
    const spool = await this.#spool();
    this.#inodes.moveToSpool(inode, spool.size);
    const head = serialize(sparse);
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32LE(head.length);
    spool.append(length);
    spool.append(head);
    for (let piece = await reader.data(); piece !== undefined; piece = await reader.data())
      spool.append(piece);
  }

  async #openSpooled({ stored }: FileContent, position: number): Promise<OpenFile> {
    const spool = await this.#spool();
    const length = Buffer.alloc(LENGTH_BYTES);
    spool.read(position, length);
    const head = Buffer.alloc(length.readUInt32LE());
    spool.read(position + LENGTH_BYTES, head);
    const extents = deserialize(head) as OpenFile['extents'];
    return { extents, pieces: spool.pieces(position + LENGTH_BYTES + head.length, stored) };
  }
}

/** Returns true if a file has bytes in its layer that are not in the spool. */
export function isInLayer(content: FileContent | undefined): content is FileContent {
  return content !== undefined && content.stored > 0 && content.position === undefined;
}

/** The reading position in a layer, which is opened when it is first needed. */
class Cursor {
  /** Inode that will be read, by the ordinal of the entry that has its content. */
  readonly wanted: (number | undefined)[] = [];
  /** Number of wanted contents that were not read yet. */
  waiting = 0;
  ordinal = -1;
  readonly #layer: ImageLayer;
  #chunks: AsyncIterator<Uint8Array> | undefined;
  #reader: AsyncTarReader | undefined;

  constructor(layer: ImageLayer) {
    this.#layer = layer;
  }

  get reader(): AsyncTarReader {
    this.#chunks ??= this.#layer.open()[Symbol.asyncIterator]();
    return (this.#reader ??= new AsyncTarReader(this.#chunks, this.#layer.name));
  }

  async next(): Promise<Entry> {
    this.ordinal += 1;
    const entry = await this.reader.next();
    if (entry === undefined) throw this.changed();
    return entry;
  }

  changed(): IntegrityError {
    return new IntegrityError(`${this.#layer.name}: it has other entries than when it was read first`, {
      code: 'LAYER_CHANGED',
      hint: 'run it again: the cache was changed while it was read',
    });
  }

  async close(): Promise<void> {
    await this.#chunks?.return?.();
  }
}
