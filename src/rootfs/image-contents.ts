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
  /** The layer's tar, from the start. Its end shows that it is verified. Each chunk is valid until the next is asked for. */
  open(): AsyncIterable<Uint8Array>;
}

/** A file that is being read. */
export interface OpenFile {
  /** Extents of a sparse file; undefined for any other file. */
  readonly extents: readonly SparseExtent[] | undefined;
  /** The stored bytes, extents back to back; each piece is valid until the next is asked for. */
  readonly pieces: AsyncIterable<Uint8Array>;
}

/** In the spool: the length of a file's extents, the extents, its data. */
const LENGTH_BYTES = 4;
const none: AsyncIterable<Uint8Array> = { async *[Symbol.asyncIterator]() {} };

/**
 * Reads the contents of files in an order that differs a little from that of the layers. All layers are open at once, each read as far as
 * needed. Data that is read too early is kept in the spool. Nearly all archives are in the order of names, so that this is little data.
 */
export class ImageContents {
  readonly #inodes: MemoryInodes;
  readonly #spool: () => Promise<Spool>;
  readonly #cursors: readonly Cursor[];

  /**
   * @param wanted the inodes that will be read
   * @param spool makes the file for data that is read too early
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

  /** The inodes in the order of their contents in the layers. Opening files in this order needs no disk space. */
  *inOrder(): Generator<number, void, void> {
    for (const { wanted } of this.#cursors) for (const inode of wanted) if (inode !== undefined) yield inode;
  }

  /** Opens a file, to be read to its end before the next one is opened. */
  async open(inode: number): Promise<OpenFile> {
    const content = this.#inodes.content(inode);
    if (content === undefined || content.stored === 0)
      return { extents: content?.sparse === true ? [] : undefined, pieces: none };
    if (content.position !== undefined) return this.#openSpooled(content, content.position);
    const cursor = this.#cursors[content.layer]!;
    const entry = await this.#advance(cursor, inode);
    return { extents: entry.sparse, pieces: this.#piecesOf(cursor) };
  }

  /** Frees what is open, after an error too. */
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

/** Whether the bytes of a file are to be read from its layer: it has some, and they are not in the spool. */
export function isInLayer(content: FileContent | undefined): content is FileContent {
  return content !== undefined && content.stored > 0 && content.position === undefined;
}

/** A layer that is read when it is first needed, and the position in it. */
class Cursor {
  /** By the ordinal of an entry, the inode that has its content and will be read. */
  readonly wanted: (number | undefined)[] = [];
  /** How many of them were not read yet. */
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
