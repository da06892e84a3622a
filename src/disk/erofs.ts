import { ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import { unwritable } from '../archive/archive-file.ts';
import { nameOf, parentPath } from '../rootfs/directories.ts';
import { isInLayer, type OpenFile } from '../rootfs/image-contents.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { InodeMetadata } from '../rootfs/memory-inodes.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { ExtentCursor } from '../tar/sparse.ts';
import { xattrsBytes, storableXattrs, SharedXattrs } from './erofs-attributes.ts';
import {
  EROFS_BLOCK_BYTES,
  chunkBitsOf,
  chunkFormat,
  directoryBytes,
  type DirectoryName,
  directorySize,
  inodeBytes,
  type InodeFields,
  inodeSize,
  isDeviceNumber,
  type InodeLayout,
  layouts,
  NO_BLOCK,
  SLOT_BYTES,
  superblockBytes,
} from './erofs-format.ts';
import { FileRegion } from './file-region.ts';
import { type GuestFile, guestEntry, type DiskIdentity } from './format.ts';

const truncate = promisify(ftruncate);

/**
 * Limit in bytes: a longer tail of a file gets a block of its own. Next to its inode it would often waste the
 * end of a block.
 */
const MAX_TAIL_BYTES = 2048;
const METADATA_BLOCK = 1;
/** The number of the root, which has 16 bits in the superblock: the root is the first inode. */
const ROOT_NUMBER = 1;

export interface ErofsRequest {
  /** The empty file, open for writing. */
  readonly descriptor: number;
  /** The file in messages. */
  readonly name: string;
  readonly identity: DiskIdentity;
  /** Files for the guest; directories before their content. */
  readonly guestFiles: readonly GuestFile[];
  readonly signal: AbortSignal;
}

/**
 * Writes a tree as an EROFS without compression. The file has the superblock, the inodes with the tails of
 * their contents, shared attributes, directories, and the blocks of files in the order of the layers. The
 * same tree and identity give the same bytes.
 *
 * @returns the metadata that the file system could not restore
 * @throws DestinationError if the file cannot be written, and errors of the tree's layers
 */
export async function writeErofs(tree: ImageTree, request: ErofsRequest): Promise<NotRestored> {
  const writer = new ErofsWriter(tree, request);
  await writer.write();
  return writer.lost;
}

/** An entry of the walk; a directory comes after its content. */
interface Visit {
  readonly entry: ImageTreeEntry;
  /** The names in a directory. */
  readonly names: DirectoryName[];
  /** The inode of the parent directory; the root is its own parent. */
  readonly parent: number;
}

/** The layout of an inode, before it has a place. */
interface Plan {
  readonly fields: InodeFields;
  readonly attributes: Buffer;
  readonly layout: InodeLayout;
  /** The size of the inode and its attributes, in bytes. */
  readonly headLength: number;
  /** The number of bytes that follow: the tail of the content, or the addresses of chunks. */
  readonly tailLength: number;
}

class ErofsWriter {
  readonly lost: NotRestored;
  readonly #tree: ImageTree;
  readonly #request: ErofsRequest;
  readonly #metadata: FileRegion;
  readonly #data: FileRegion;
  /** Added entries by the path of their directory. */
  readonly #guestFiles = new Map<string, ImageTreeEntry[]>();
  /** The contents of added files, by inode. */
  readonly #contents = new Map<number, Buffer>();
  /** The number of names that files with several have in the tree, by inode. */
  readonly #links = new Map<number, number>();
  readonly #directories = new Map<number, { readonly size: number; readonly links: number }>();
  /** The numbers of inodes that have a place. */
  readonly #numbers = new Map<number, number>();
  readonly #shared = new SharedXattrs();
  /** The end of the last inode, in bytes from the first block of metadata. No inode has the number 0. */
  #end = SLOT_BYTES;
  /** The first block without data. */
  #nextBlock = 0;
  #hasChunks = false;

  constructor(tree: ImageTree, request: ErofsRequest) {
    this.#tree = tree;
    this.#request = request;
    this.lost = { ...tree.counts };
    this.#metadata = new FileRegion(request.descriptor, request.name);
    this.#data = new FileRegion(request.descriptor, request.name);
    for (const [index, guestFile] of request.guestFiles.entries()) {
      const inode = -1 - index;
      const above = parentPath(guestFile.path);
      const entry = { ...guestEntry(guestFile, request.identity), inode };
      this.#guestFiles.set(above, [...(this.#guestFiles.get(above) ?? []), entry]);
      this.#contents.set(inode, Buffer.from(guestFile.content ?? ''));
    }
  }

  async write(): Promise<void> {
    const { descriptor, name, identity, signal } = this.#request;
    try {
      this.#survey();
      const files = this.#place();
      const sharedBlock = METADATA_BLOCK + blocksFor(this.#end);
      const shared = this.#shared.toBytes();
      this.#nextBlock = sharedBlock + blocksFor(shared.length);
      await this.#writeAllButFiles();
      await this.#tree.readInOrder(files, async (inode, file) => {
        signal.throwIfAborted();
        await this.#writeFile(inode, file);
      });
      await this.#metadata.write(sharedBlock * EROFS_BLOCK_BYTES, shared);
      const superblock = superblockBytes({
        identity,
        rootNumber: ROOT_NUMBER,
        inodes: this.#numbers.size,
        blocks: this.#nextBlock,
        metadataBlock: METADATA_BLOCK,
        sharedAttributesBlock: sharedBlock,
        hasChunkedFiles: this.#hasChunks,
      });
      await this.#metadata.write(0, superblock);
      await this.#metadata.flush();
      await this.#data.flush();
    } finally {
      await Promise.allSettled([this.#metadata.written, this.#data.written]);
    }
    await Promise.all([this.#metadata.written, this.#data.written]);
    await truncate(descriptor, this.#nextBlock * EROFS_BLOCK_BYTES).catch((error: unknown) => {
      throw unwritable(name, error);
    });
  }

  /** Counts links, directory sizes and shared attributes, which the first inode's place depends on. */
  #survey(): void {
    for (const { entry, names, parent } of this.#visits(this.lost)) {
      const { inode, linkTo, type } = entry;
      if (linkTo !== undefined) {
        this.#links.set(inode, (this.#links.get(inode) ?? 1) + 1);
        continue;
      }
      for (const attribute of storableXattrs(entry)) this.#shared.count(attribute);
      if (type !== 'directory') continue;
      const links = 2 + names.filter((name) => name.type === 'directory').length;
      this.#directories.set(inode, { size: directorySize(withDots(names, inode, parent)), links });
    }
  }

  /**
   * Gives each inode its place, in the order of writing: first the root, then all but files, then files in
   * the order of the layers.
   *
   * @returns the inodes of the files
   */
  #place(): number[] {
    const files: number[] = [];
    for (const root of this.#entries()) {
      this.#placeInode(root.inode, root);
      break;
    }
    for (const { entry } of this.#visits()) {
      if (entry.linkTo !== undefined || this.#numbers.has(entry.inode)) continue;
      if (this.#isOfLayers(entry)) files.push(entry.inode);
      else this.#placeInode(entry.inode, entry);
    }
    const inLayers = this.#tree.contents(files);
    for (const inode of files)
      if (!isInLayer(this.#tree.contentOf(inode))) this.#placeInode(inode, this.#tree.metadataOf(inode));
    for (const inode of inLayers.inOrder()) this.#placeInode(inode, this.#tree.metadataOf(inode));
    return files;
  }

  #placeInode(inode: number, metadata: InodeMetadata): void {
    const plan = this.#plan(inode, metadata);
    const { layout, headLength, tailLength, attributes, refused } = plan;
    this.lost.xattrs += (metadata.xattrs?.size ?? 0) - storableXattrs(metadata).length + refused;
    const length = headLength + tailLength;
    this.#end = roundUp(this.#end, SLOT_BYTES);
    // The tail of the content must be in the block of its inode; attributes and addresses may continue in the
    // next one.
    const together =
      layout === layouts.chunks || length > EROFS_BLOCK_BYTES ? headLength - attributes.length : length;
    const room = EROFS_BLOCK_BYTES - (this.#end % EROFS_BLOCK_BYTES);
    if (room < together) this.#end += room;
    this.#numbers.set(inode, this.#end / SLOT_BYTES);
    this.#end += length;
  }

  #plan(inode: number, metadata: InodeMetadata): Plan & { readonly refused: number } {
    const fields = { ...metadata, ...this.#sizeAndLinks(inode, metadata) };
    const { bytes: attributes, refused } = xattrsBytes(storableXattrs(metadata), (attribute) =>
      this.#shared.numberOf(attribute),
    );
    const headLength = inodeSize(fields, this.#request.identity) + attributes.length;
    const { size } = fields;
    const plan = { fields, attributes, refused, headLength };
    if (size > 0 && this.#tree.contentOf(inode)?.sparse === true)
      return { ...plan, layout: layouts.chunks, tailLength: 4 * Math.ceil(size / 2 ** chunkBitsOf(size)) };
    const rest = size % EROFS_BLOCK_BYTES;
    const isInline = rest > 0 && rest <= MAX_TAIL_BYTES && headLength + rest <= EROFS_BLOCK_BYTES;
    if (!isInline) return { ...plan, layout: layouts.blocks, tailLength: 0 };
    return { ...plan, layout: layouts.blocksAndTail, tailLength: rest };
  }

  #sizeAndLinks(
    inode: number,
    { type, size, linkPath }: InodeMetadata,
  ): { readonly size: number; readonly links: number } {
    if (type === 'directory') return this.#directories.get(inode)!;
    const links = this.#links.get(inode) ?? 1;
    if (type === 'file') return { size, links };
    return { size: linkPath.length, links };
  }

  async #writeAllButFiles(): Promise<void> {
    for (const { entry, names, parent } of this.#visits()) {
      const { inode, type } = entry;
      if (entry.linkTo !== undefined || this.#isOfLayers(entry)) continue;
      const content =
        type === 'directory'
          ? directoryBytes(withDots(names, inode, parent), (each) => this.#numbers.get(each)!)
          : (this.#contents.get(inode) ?? Buffer.from(entry.linkPath, 'latin1'));
      await this.#writeContent(inode, this.#plan(inode, entry), [content]);
    }
  }

  async #writeFile(inode: number, { extents, pieces }: OpenFile): Promise<void> {
    const plan = this.#plan(inode, this.#tree.metadataOf(inode));
    if (plan.layout !== layouts.chunks) await this.#writeContent(inode, plan, pieces);
    else await this.#writeChunks(inode, plan, new ExtentCursor(extents), pieces);
  }

  /**
   * Writes an inode and its attributes. Returns the position after them.
   *
   * @param content the first block of the content, or the result of `chunkFormat`
   */
  async #writeHead(inode: number, { fields, attributes, layout }: Plan, content: number): Promise<number> {
    const number = this.#numbers.get(inode)!;
    const head = inodeBytes(fields, { attributes, layout, number, content }, this.#request.identity);
    const position = METADATA_BLOCK * EROFS_BLOCK_BYTES + number * SLOT_BYTES;
    await this.#metadata.write(position, head);
    return position + head.length;
  }

  async #writeContent(
    inode: number,
    plan: Plan,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const inBlocks = plan.fields.size - plan.tailLength;
    const first = this.#nextBlock;
    this.#nextBlock += blocksFor(inBlocks);
    const tail = await this.#writeHead(inode, plan, inBlocks > 0 ? first : NO_BLOCK);
    let done = 0;
    for await (const piece of pieces) {
      const part = piece.subarray(0, Math.max(0, inBlocks - done));
      const rest = piece.subarray(part.length);
      if (part.length > 0) await this.#data.write(first * EROFS_BLOCK_BYTES + done, part);
      if (rest.length > 0) await this.#metadata.write(tail + done + part.length - inBlocks, rest);
      done += piece.length;
    }
  }

  /** Writes a file with holes: only chunks with data get blocks. */
  async #writeChunks(
    inode: number,
    plan: Plan,
    cursor: ExtentCursor,
    pieces: AsyncIterable<Uint8Array>,
  ): Promise<void> {
    this.#hasChunks = true;
    const { size } = plan.fields;
    const bits = chunkBitsOf(size);
    const chunkBytes = 2 ** bits;
    const addresses = Buffer.alloc(plan.tailLength, 0xff);
    let current = -1;
    let start = 0;
    for await (const piece of pieces) {
      for (const { position, part } of cursor.split(piece)) {
        for (let at = 0; at < part.length;) {
          const chunk = Math.floor((position + at) / chunkBytes);
          if (chunk !== current) {
            addresses.writeUInt32LE(this.#nextBlock, 4 * chunk);
            current = chunk;
            start = this.#nextBlock * EROFS_BLOCK_BYTES;
            this.#nextBlock += blocksFor(Math.min(chunkBytes, size - chunk * chunkBytes));
          }
          const offset = position + at - chunk * chunkBytes;
          const bytes = part.subarray(at, at + chunkBytes - offset);
          await this.#data.write(start + offset, bytes);
          at += bytes.length;
        }
      }
    }
    await this.#metadata.write(await this.#writeHead(inode, plan, chunkFormat(bits)), addresses);
  }

  /** True if the content of the file is in a layer. */
  #isOfLayers({ type, inode }: ImageTreeEntry): boolean {
    return type === 'file' && !this.#contents.has(inode);
  }

  /**
   * Yields the entries to write, directories before their content.
   *
   * @param lost counts the entries that cannot be written
   */
  *#entries(lost?: NotRestored): Generator<ImageTreeEntry, void, void> {
    for (const entry of this.#tree.walk(true)) {
      if (!isDeviceNumber(entry)) {
        if (lost) lost.devices += 1;
        continue;
      }
      yield entry;
      if (entry.type === 'directory') yield* this.#added(entry.path);
    }
  }

  *#added(above: string): Generator<ImageTreeEntry, void, void> {
    for (const entry of this.#guestFiles.get(above) ?? []) {
      yield entry;
      yield* this.#added(entry.path);
    }
  }

  /** Yields the same entries, directories after their content. */
  *#visits(lost?: NotRestored): Generator<Visit, void, void> {
    const way: Visit[] = [];
    for (const entry of this.#entries(lost)) {
      const { path, inode, type } = entry;
      const above = parentPath(path);
      while (way.length > 0 && way.at(-1)!.entry.path !== above) yield way.pop()!;
      const directory = way.at(-1);
      directory?.names.push({ name: nameOf(path), type, inode });
      const visit = { entry, names: [], parent: directory?.entry.inode ?? inode };
      if (type === 'directory') way.push(visit);
      else yield visit;
    }
    yield* way.toReversed();
  }
}

function withDots(names: readonly DirectoryName[], inode: number, parent: number): DirectoryName[] {
  const dots = [
    { name: '.', type: 'directory', inode },
    { name: '..', type: 'directory', inode: parent },
  ] as const;
  return [...names, ...dots].toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

function blocksFor(bytes: number): number {
  return Math.ceil(bytes / EROFS_BLOCK_BYTES);
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
