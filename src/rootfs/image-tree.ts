import type { FileHandle } from 'node:fs/promises';
import { DestinationError, IntegrityError } from '../errors.ts';
import { LARGEST_ACCOUNT_FILE } from '../sys/passwd.ts';
import { AsyncTarReader } from '../tar/reader.ts';
import type { BytePath, Entry } from '../tar/entry.ts';
import { storedSize } from '../tar/sparse.ts';
import { LayerApplication, startRun } from './apply.ts';
import { ImageContents, type ImageLayer, isInLayer, type OpenFile } from './image-contents.ts';
import { Spool } from './spool.ts';
import { Directories, join } from './directories.ts';
import { finishRun } from './metadata.ts';
import { MemoryFilesystem } from './memory.ts';
import { type FileContent, type InodeMetadata, MOST_IN_MEMORY } from './memory-inodes.ts';
import { nothingLost, type NotRestored } from './not-restored.ts';
import type { Run } from './run.ts';
import type { Content } from './place.ts';
import { noSuchPath, type PartOptions, type ResolvedPath, Selection } from './selection.ts';
import { SyscallError } from '../sys/os-error.ts';

/** One name in an image's tree. */
export interface ImageTreeEntry extends InodeMetadata {
  /** Without a slash at the ends; empty for the root. */
  readonly path: BytePath;
  /** Of an inode that has more than one name: the path that came first. It is undefined for that one, and for directories. */
  readonly linkTo: BytePath | undefined;
  /** Equal for two names of one inode. */
  readonly inode: number;
}

export interface ImageTreeOptions {
  /** What messages call it. */
  readonly name: string;
  /** A new empty file, open for reading and writing, that nobody else has: for what would take too much memory. */
  readonly temporaryFile: () => Promise<FileHandle>;
  /** Where that file is, for errors. */
  readonly temporaryDirectory: string;
  /** Called when a layer is opened, and with its number of entries when it has been read. */
  readonly onLayer?: (index: number, entries?: number) => void;
}

/** Bytes of all account files together; more is an attack on memory. */
const MOST_ACCOUNT_BYTES = 4 * LARGEST_ACCOUNT_FILE;

const nothing: Content = { data: () => undefined };

/**
 * The root file system of an image in memory, by the rules by which it is written to disk: all names with their metadata, in about
 * 150 bytes each. Contents of files are read from the layers again, on request.
 */
export class ImageTree {
  /** How many entries each layer has. */
  readonly layerEntries: number[] = [];
  /** Where the tree differs from the image. */
  counts: Readonly<NotRestored> = nothingLost();
  /** An entry of the layers describes the root directory. */
  hasRoot = false;
  readonly #layers: ImageLayer[] = [];
  readonly #filesystem = new MemoryFilesystem();
  readonly #options: ImageTreeOptions;
  #temporaryFile: FileHandle | undefined;
  #spool: Spool | undefined;
  #accountBytes = 0;
  #selection: Selection | undefined;

  private constructor(options: ImageTreeOptions) {
    this.#options = options;
  }

  /**
   * Applies layers, base layer first, each to its last byte: only there it is known to be verified.
   *
   * @throws IntegrityError for an invalid layer, with its name and the entry; the errors of the layers themselves
   */
  static async build(
    layers: Iterable<ImageLayer> | AsyncIterable<ImageLayer>,
    options: ImageTreeOptions,
  ): Promise<ImageTree> {
    const tree = new ImageTree(options);
    try {
      const run = startRun(tree.#filesystem, { name: options.name, mode: 'stage' });
      for await (const layer of layers) {
        const index = tree.#layers.length;
        options.onLayer?.(index);
        const entries = await tree.#apply(run, layer, index);
        tree.#layers.push(layer);
        tree.layerEntries.push(entries);
        options.onLayer?.(index, entries);
      }
      finishRun(run, undefined);
      run.directories.close();
      tree.counts = run.counts;
      tree.hasRoot = run.atEnd.rootEntry !== undefined;
      return tree;
    } catch (error) {
      await tree.close();
      throw malformed(error);
    }
  }

  /** Returns how many entries the layer had. */
  async #apply(run: Run, layer: ImageLayer, index: number): Promise<number> {
    const filesystem = this.#filesystem;
    const chunks = layer.open()[Symbol.asyncIterator]();
    const application = new LayerApplication(run, layer.name);
    try {
      const reader = new AsyncTarReader(chunks, layer.name);
      let ordinal = 0;
      for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
        if (needsSpool(entry)) filesystem.inodes.spool = await this.#openSpool();
        filesystem.source = {
          layer: index,
          ordinal,
          size: entry.size,
          stored: storedSize(entry),
          sparse: entry.sparse !== undefined,
          linkMode: entry.mode,
        };
        application.apply(entry, this.#isAccountFile(entry) ? await readContent(reader) : nothing);
        ordinal += 1;
      }
      const entries = application.finish();
      while ((await chunks.next()).done !== true);
      return entries;
    } finally {
      await chunks.return?.();
    }
  }

  /** Whether it may be the image's passwd or group, which `accountFile` returns. */
  #isAccountFile({ type, path, size, sparse }: Entry): boolean {
    if (type !== 'file' || sparse !== undefined || !/(?:^|\/)etc\/(?:passwd|group)$/.test(path)) return false;
    if (size > LARGEST_ACCOUNT_FILE || this.#accountBytes + size > MOST_ACCOUNT_BYTES) return false;
    this.#accountBytes += size;
    return true;
  }

  /**
   * From now on the tree is a part of it only. A file of several names is where it has the first one that is left.
   *
   * @param onAbsent gets each path that the tree lacks; left out: a missing path is an error
   * @throws NotFoundError, UsageError for contradictions
   */
  select(options: PartOptions, onAbsent?: (path: string) => void): void {
    const refuse = (path: string): never => {
      throw noSuchPath(path, this.#options.name);
    };
    this.#selection = Selection.of(options, (path) => this.find(path, false), onAbsent ?? refuse);
  }

  /** Whether a path that the tree may not have would be in the part that is selected. */
  isSelected(path: BytePath, isDirectory: boolean): boolean {
    if (!this.#selection) return true;
    let wanted: 'whole' | 'way' | undefined = this.#selection.root;
    for (let end = path.indexOf('/'); end >= 0 && wanted; end = path.indexOf('/', end + 1))
      wanted = this.#selection.of(path.slice(0, end) as BytePath, true, wanted);
    return wanted !== undefined && this.#selection.of(path, isDirectory, wanted) === 'whole';
  }

  /**
   * The path that a process in the image would reach by a path.
   *
   * @param followLast a symlink there is followed too
   * @returns undefined where it does not exist
   */
  find(path: BytePath, followLast: boolean): ResolvedPath | undefined {
    const filesystem = this.#filesystem;
    const links: BytePath[] = [];
    const directories = new Directories({
      root: filesystem.root,
      openDirectory: (parent, name) => filesystem.openDirectory(parent, name),
      closeDirectory: () => undefined,
      readLink: (parent, name) => {
        const target = filesystem.readLink(parent, name);
        if (typeof target === 'string') links.push(join(parent.path, name));
        return target;
      },
    });
    try {
      const isDirectory = /(?:^|\/)\.{0,2}$/.test(path);
      const found = followLast || isDirectory ? directories.follow(path) : directories.place(path, 'find');
      if (!found) return undefined;
      const inode = filesystem.inodeAt(found.parent, found.name);
      if (inode < 0) return undefined;
      const { type, size } = filesystem.inodes.status(inode);
      const { path: own } = found;
      return isDirectory && type !== 'directory' ? undefined : { path: own, inode, type, size, links };
    } catch (error) {
      // Symlinks in a circle, or a path that is too long.
      if (error instanceof IntegrityError || error instanceof SyscallError) return undefined;
      throw error;
    }
  }

  /**
   * All names: each directory before what is in it, all of that before anything else, names by their bytes. So readers can finish a
   * directory when they leave it, and the order does not depend on the layers. The root is included only if a layer has an entry for it.
   */
  [Symbol.iterator](): Generator<ImageTreeEntry, void, boolean | undefined> {
    return this.walk();
  }

  /**
   * The same. `next(false)` after a directory skips its content.
   *
   * @param withRoot false: the root is left out
   */
  *walk(withRoot = this.hasRoot): Generator<ImageTreeEntry, void, boolean | undefined> {
    const filesystem = this.#filesystem;
    const { inodes } = filesystem;
    const root = filesystem.root.handle;
    const selection = this.#selection;
    const firstNames = new Map<number, BytePath>();
    if (withRoot) yield { ...inodes.metadata(root), path: '' as BytePath, linkTo: undefined, inode: root };
    /** The directories on the way, each with the length of its path and the slash after it: the path itself may be long. */
    const way = [
      { names: filesystem.inOrder(root), length: 0, wanted: selection?.root ?? ('whole' as const) },
    ];
    let path = '' as BytePath;
    for (let last = way.at(-1); last !== undefined; last = way.at(-1)) {
      const next = last.names.next();
      if (next.done === true) {
        way.pop();
        continue;
      }
      const [name, inode] = next.value;
      path = (path.slice(0, last.length) + name) as BytePath;
      const isDirectory = inodes.type(inode) === 'directory';
      const wanted = selection ? selection.of(path, isDirectory, last.wanted) : last.wanted;
      if (wanted === undefined) continue;
      const linked = !isDirectory && inodes.links.get(inode) > 1;
      const linkTo = linked ? firstNames.get(inode) : undefined;
      if (linked && linkTo === undefined) firstNames.set(inode, path);
      const descend = yield { ...inodes.metadata(inode), path, linkTo, inode };
      if (descend === false || !isDirectory) continue;
      path = `${path}/` as BytePath;
      way.push({ names: filesystem.inOrder(inode), length: path.length, wanted });
    }
  }

  /** The text of the image's /etc/passwd or /etc/group; undefined where it has none, or one of more than 4 MiB. */
  accountFile(name: 'passwd' | 'group'): string | undefined {
    const found = this.find(`etc/${name}` as BytePath, true);
    const bytes = found && this.#filesystem.written(found.inode);
    return bytes && Buffer.from(bytes).toString();
  }

  /**
   * The contents of files, each to be read once.
   *
   * @param inodes those to be read, or more, in the order of reading; any other order costs disk space. Left out: all
   */
  contents(inodes: Iterable<number> = this.#firstInodes()): ImageContents {
    return new ImageContents(this.#layers, this.#filesystem.inodes, inodes, () => this.#openSpool());
  }

  *#firstInodes(): Generator<number, void, void> {
    for (const { inode, linkTo } of this.walk()) if (linkTo === undefined) yield inode;
  }

  metadataOf(inode: number): InodeMetadata {
    return this.#filesystem.inodes.metadata(inode);
  }

  /** Where the bytes of a file are; undefined for anything else. */
  contentOf(inode: number): FileContent | undefined {
    return this.#filesystem.inodes.content(inode);
  }

  /**
   * Reads the contents of files in the order of the layers, so that nothing has to be stored temporarily. Calls `use` for each of
   * `inodes`; it reads the file to its end.
   */
  async readInOrder(
    inodes: readonly number[] | ReadonlySet<number>,
    use: (inode: number, file: OpenFile) => Promise<void>,
  ): Promise<void> {
    const contents = this.contents(inodes);
    try {
      for (const inode of inodes)
        if (!isInLayer(this.contentOf(inode))) await use(inode, await contents.open(inode));
      for (const inode of contents.inOrder()) await use(inode, await contents.open(inode));
    } finally {
      await contents.close();
    }
  }

  /** Closes the temporary file. */
  async close(): Promise<void> {
    await this.#temporaryFile?.close();
    this.#temporaryFile = undefined;
  }

  async #openSpool(): Promise<Spool> {
    this.#temporaryFile ??= await this.#options.temporaryFile();
    return (this.#spool ??= new Spool(this.#temporaryFile.fd, this.#options.temporaryDirectory));
  }
}

/** The tree refuses only names that are too long for every Linux. */
function malformed(error: unknown): unknown {
  if (!(error instanceof DestinationError) || error.code !== 'ENAMETOOLONG') return error;
  const { message, code } = error;
  const hint = 'the layer is malformed: report it to the publisher of the image';
  return new IntegrityError(message, { code, hint, cause: error });
}

function needsSpool({ linkPath, xattrs }: Entry): boolean {
  let length = 0;
  for (const [name, value] of xattrs ?? []) length += name.length + value.length;
  return linkPath.length > MOST_IN_MEMORY || length > MOST_IN_MEMORY;
}

async function readContent(reader: AsyncTarReader): Promise<Content> {
  const pieces: Uint8Array[] = [];
  for (let bytes = await reader.data(); bytes !== undefined; bytes = await reader.data())
    pieces.push(Uint8Array.from(bytes));
  return { data: () => pieces.shift() };
}
