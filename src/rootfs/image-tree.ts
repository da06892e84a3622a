import type { FileHandle } from 'node:fs/promises';
import { DestinationError, IntegrityError, type NotFoundError } from '../errors.ts';
import { MAX_ACCOUNT_FILE_BYTES } from '../sys/passwd.ts';
import { AsyncTarReader } from '../tar/reader.ts';
import type { BytePath, Entry } from '../tar/entry.ts';
import { storedSize } from '../tar/sparse.ts';
import { LayerApplication, startRun } from './apply.ts';
import { ImageContents, type ImageLayer, isInLayer, type OpenFile } from './image-contents.ts';
import { Spool } from './spool.ts';
import { Directories, childPath } from './directories.ts';
import { finishRun } from './directory-metadata.ts';
import { MemoryFilesystem } from './memory.ts';
import { type FileContent, type InodeMetadata, MAX_IN_MEMORY } from './memory-inodes.ts';
import { nothingLost, type NotRestored } from './not-restored.ts';
import type { Run } from './run.ts';
import type { Content } from './place.ts';
import { noSuchPath, type PartOptions, type ResolvedPath, Selection } from './selection.ts';
import { SyscallError } from '../sys/os-error.ts';

/** One name in an image's tree. */
export interface ImageTreeEntry extends InodeMetadata {
  /** Path without a slash at either end; empty for the root. */
  readonly path: BytePath;
  /**
   * For an inode with more than one name: the path that came first. Undefined for that path itself, and for
   * directories.
   */
  readonly linkTo: BytePath | undefined;
  /** Number of the inode: equal for two names of one file. */
  readonly inode: number;
}

export interface ImageTreeOptions {
  /** Name of the image in messages. */
  readonly name: string;
  /**
   * Makes a new empty file of this process alone, open for reading and writing. It holds data that would take
   * too much memory.
   */
  readonly temporaryFile: () => Promise<FileHandle>;
  /** Directory of that file, for errors. */
  readonly temporaryDirectory: string;
  /** Called when a layer is opened, and with its number of entries when it has been read. */
  readonly onLayer?: (index: number, entries?: number) => void;
}

/** Most bytes of all account files together: more is an attack on memory. */
const MAX_ACCOUNT_BYTES = 4 * MAX_ACCOUNT_FILE_BYTES;

const emptyContent: Content = { data: () => undefined };

/**
 * The root file system of an image in memory, by the rules that apply on disk. All names with their metadata
 * take about 150 bytes each. Contents of files are read from the layers again.
 */
export class ImageTree {
  /** Number of entries of each layer. */
  readonly layerEntries: number[] = [];
  /** Differences between the tree and the image. */
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
   * Applies layers, base layer first. Each is read to its last byte, since only then is it verified.
   *
   * @throws IntegrityError for an invalid layer, with its name and the entry
   * @throws the errors of the layers themselves
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
      throw asMalformed(error);
    }
  }

  /** Returns the number of entries in the layer. */
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
        application.apply(entry, this.#isAccountFile(entry) ? await readContent(reader) : emptyContent);
        ordinal += 1;
      }
      const entries = application.finish();
      while ((await chunks.next()).done !== true);
      return entries;
    } finally {
      await chunks.return?.();
    }
  }

  /** Returns true if it may be the image's passwd or group, which `accountFile` returns. */
  #isAccountFile({ type, path, size, sparse }: Entry): boolean {
    if (type !== 'file' || sparse !== undefined || !/(?:^|\/)etc\/(?:passwd|group)$/.test(path)) return false;
    if (size > MAX_ACCOUNT_FILE_BYTES || this.#accountBytes + size > MAX_ACCOUNT_BYTES) return false;
    this.#accountBytes += size;
    return true;
  }

  /**
   * Limits the tree to a part of it. A file with several names is at the first that is left.
   *
   * @param onAbsent receives each path that the tree lacks; left out: a missing path is an error
   * @throws NotFoundError
   * @throws UsageError for contradictions
   */
  select(options: PartOptions, onAbsent?: (path: string) => void): void {
    const refuse = (path: string): never => {
      throw this.absent(path);
    };
    this.#selection = Selection.of(options, (path) => this.find(path, false), onAbsent ?? refuse);
  }

  /** Returns the error for a path that the tree lacks. */
  absent(path: string): NotFoundError {
    return noSuchPath(path, this.#options.name, (above) => this.find(above, true));
  }

  /** Returns true if a path, whether or not the tree has it, would be in the selected part. */
  isSelected(path: BytePath, isDirectory: boolean): boolean {
    if (!this.#selection) return true;
    let wanted: 'whole' | 'way' | undefined = this.#selection.root;
    for (let end = path.indexOf('/'); end >= 0 && wanted; end = path.indexOf('/', end + 1))
      wanted = this.#selection.of(path.slice(0, end) as BytePath, true, wanted);
    return wanted !== undefined && this.#selection.of(path, isDirectory, wanted) === 'whole';
  }

  /**
   * Resolves a path as a process in the image would.
   *
   * @param followLast follow a symlink at the last name too
   * @returns undefined if it does not exist
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
        if (typeof target === 'string') links.push(childPath(parent.path, name));
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
      // The path has a loop of symlinks, or is too long.
      if (error instanceof IntegrityError || error instanceof SyscallError) return undefined;
      throw error;
    }
  }

  /**
   * Yields all names, sorted by their bytes: each directory, then all that is in it, then the next name. So
   * readers can finish a directory when they leave it, and the order does not depend on the layers. The root
   * is included only if a layer has an entry for it.
   */
  [Symbol.iterator](): Generator<ImageTreeEntry, void, boolean | undefined> {
    return this.walk();
  }

  /**
   * Does the same. `next(false)` after a directory skips its content.
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
    /**
     * The directories above the next name, each with the length of its path and slash: the path may be long.
     */
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

  /**
   * Returns the text of the image's /etc/passwd or /etc/group. Undefined if it has none, or one of more than
   * 4 MiB.
   */
  accountFile(name: 'passwd' | 'group'): string | undefined {
    const found = this.find(`etc/${name}` as BytePath, true);
    const bytes = found && this.#filesystem.written(found.inode);
    return bytes && Buffer.from(bytes).toString();
  }

  /**
   * Opens the contents of files, each to be read once.
   *
   * @param inodes those to be read, or more, in the order of reading; any other order costs disk space. Left
   * out: all
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

  /** Returns where the bytes of a file are; undefined for anything else. */
  contentOf(inode: number): FileContent | undefined {
    return this.#filesystem.inodes.content(inode);
  }

  /**
   * Calls `use` for each of `inodes` in the order of the layers, so that nothing goes to the spool. `use`
   * reads the file to its end.
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

/** Returns a name that is too long for every Linux as an IntegrityError: the tree refuses nothing else. */
function asMalformed(error: unknown): unknown {
  if (!(error instanceof DestinationError) || error.code !== 'ENAMETOOLONG') return error;
  const { message, code } = error;
  const hint = 'the layer is malformed: report it to the publisher of the image';
  return new IntegrityError(message, { code, hint, cause: error });
}

function needsSpool({ linkPath, xattrs }: Entry): boolean {
  let length = 0;
  for (const [name, value] of xattrs ?? []) length += name.length + value.length;
  return linkPath.length > MAX_IN_MEMORY || length > MAX_IN_MEMORY;
}

async function readContent(reader: AsyncTarReader): Promise<Content> {
  const pieces: Uint8Array[] = [];
  for (let bytes = await reader.data(); bytes !== undefined; bytes = await reader.data())
    pieces.push(Uint8Array.from(bytes));
  return { data: () => pieces.shift() };
}
