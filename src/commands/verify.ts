import { tmpdir } from 'node:os';
import path from 'node:path';
import { describeExistingImage, PART, readExistingImage } from './existing-image.ts';
import { type Difference, shownPath } from '../comparison/differences.ts';
import { type DiskEntry, type DiskFile, DiskRules, DiskTree, filesWith } from '../comparison/disk-tree.ts';
import { TreeComparison } from '../comparison/trees.ts';
import { DlrootfsError, printable } from '../errors.ts';
import { countWithTop } from '../oci/first-layers.ts';
import type { Image } from '../oci/image.ts';
import { isObject, textsOf } from '../oci/json.ts';
import type { PullOptions } from '../options.ts';
import { isWritable } from '../rootfs/destination.ts';
import { childPath } from '../rootfs/directories.ts';
import { mountPointsBelow } from '../rootfs/location.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { PartOptions } from '../rootfs/selection.ts';
import { filledFiles, neededDirectories } from '../runtime/prepare.ts';
import { explainOsError } from '../sys/os-error.ts';
import { absolutePath } from '../sys/os-path.ts';
import { openYielder } from '../sys/yielder.ts';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { withImageTree } from './with-image-tree.ts';
import { withImage } from './with-session.ts';

/** The result of `verify`, which `--json` prints. */
export interface Verification {
  /** `library/ubuntu:14.04`, or `name@sha256:…`. */
  readonly reference: string;
  /** 64 hex digits, of the image. */
  readonly id: string;
  /** The digest of the manifest; absent with registry v1. */
  readonly digest?: string | undefined;
  /** The directory, as given. */
  readonly destination: string;
  /** True if the contents of files were compared too. */
  readonly contents: boolean;
  /**
   * Sorted by path, each directory before its content. Empty: the directory holds the image and nothing else.
   */
  readonly differences: readonly Difference<'missing' | 'extra'>[];
  /** Directories and files that this process may not read: their contents are unknown. */
  readonly unread: readonly string[];
  /** Mount points in the directory: the content of the image below them could not be compared. */
  readonly mounted: readonly string[];
}

/**
 * Compares a directory with an image and changes nothing. It ignores files that the pull itself wrote
 * (`json`, `layersize`, `.git`), and metadata that this process cannot restore (such as owners and devices
 * for a plain user). With `prepare` it ignores the files that this adds. If the options select a part of the
 * image, it ignores all other files.
 *
 * @param contents compare the contents of files, not only their sizes and times
 * @throws a DlrootfsError, or the signal's reason
 */
export async function verify(request: PullOptions, contents: boolean): Promise<Verification> {
  const { destination, report, signal } = request;
  using disk = new DiskTree(destination);
  const options = { ...request, destination: placeForSpool(destination) };
  return await withImage(options, async (opened) => {
    const { image, source } = opened;
    const differ = new DirectoryComparison(disk, image, request, contents);
    await withImageTree(opened, options, contents, async (tree) => {
      await differ.compare(tree).catch((error: unknown) => {
        throw signal.aborted || error instanceof DlrootfsError
          ? error
          : explainOsError(error, `read ${printable(destination)}`, 'name another directory with -d');
      });
    });
    const { differences, unread, mounted } = differ;
    if (differ.imageThere !== undefined)
      report({ type: 'notice', message: otherImageNotice(destination, differ.imageThere) });
    if (differ.layersThere !== undefined)
      report({ type: 'notice', message: layersNotice(destination, differ.layersThere, image) });
    if (differ.partThere !== undefined)
      report({ type: 'notice', message: partNotice(destination, differ.partThere) });
    if (unread.length > 0) report({ type: 'notice', message: unreadNotice(unread.length) });
    if (mounted.length > 0) report({ type: 'notice', message: mountedNotice(destination, mounted) });
    const { id, digest } = image;
    return {
      reference: source.reference,
      id,
      digest,
      destination,
      contents,
      differences,
      unread: unread.toSorted().map(shownPath),
      mounted: mounted.map(shownPath),
    };
  });
}

function unreadNotice(count: number): string {
  const what = count === 1 ? '1 file or directory' : `${count} files or directories`;
  return `${what} may not be read by this user and could not be compared: run as root`;
}

/** The largest number of mount points in a notice. */
const MAX_NAMED = 5;

function mountedNotice(destination: string, mounted: readonly BytePath[]): string {
  const names = mounted.slice(0, MAX_NAMED).map((place) => displayPath(place));
  const more = mounted.length > names.length ? ` and ${mounted.length - names.length} more` : '';
  return `not compared, since something is mounted there in ${printable(destination)}: ${names.join(', ')}${more}`;
}

function otherImageNotice(destination: string, there: string): string {
  const shown = printable(destination);
  return `${shown}/json says that ${shown} holds another image, ${there}`;
}

function layersNotice(destination: string, there: number, { layers, allLayers = layers }: Image): string {
  const shown = printable(destination);
  const total = allLayers.length;
  const hint = `to compare with these ${there === total ? 'leave out --layers' : `use --layers ${there}`}`;
  return `${shown}/json says that ${shown} holds ${there} of the image's ${total} layers: ${hint}`;
}

/**
 * Returns the notice that the directory holds another part. It does not select the compared paths: the
 * directory is not trusted.
 */
function partNotice(destination: string, { paths, excludes }: PartOptions): string {
  const shown = printable(destination);
  const flags = [...paths.map((each) => `--path ${each}`), ...excludes.map((each) => `--exclude ${each}`)];
  const what =
    flags.length > 0 ? `only a part of the image: ${printable(flags.join(' '))}` : 'all of the image';
  return `${shown}/json says that ${shown} holds ${what}`;
}

/**
 * Returns the place for temporary files: beside the directory, because a file in it would change its mtime.
 */
function placeForSpool(destination: string): string {
  const beside = path.dirname(absolutePath(destination));
  return path.join(isWritable(beside) ? beside : tmpdir(), '-');
}

/** The longest `layersize`: a sign and 20 digits. */
const MAX_LAYER_SIZE_BYTES = 21;

const wholeTree: PartOptions = { paths: [], excludes: [] };

/** For a file with several names in the image: the paths in the directory, by inode. */
type Copies = Map<DiskEntry['inode'], BytePath[]>;

/** Compares one directory with one image. */
class DirectoryComparison {
  readonly unread: BytePath[] = [];
  /** Mount points at paths that the image has too. */
  readonly mounted: BytePath[] = [];
  /** The part of the image that `json` in the directory names, if it differs from the compared one. */
  partThere: PartOptions | undefined;
  /** The number of layers that `json` in the directory names, if it differs from the compared number. */
  layersThere: number | undefined;
  /** The image that `json` in the directory describes, if it is another one. */
  imageThere: string | undefined;
  #tree: ImageTree | undefined;
  readonly #disk: DiskTree;
  readonly #image: Image;
  readonly #options: PullOptions;
  readonly #comparison: TreeComparison<ImageTreeEntry, DiskEntry, 'missing' | 'extra'>;
  /**
   * Paths whose content is compared, by the inode in the image: files with one name here, those with more
   * below.
   */
  readonly #files = new Map<number, BytePath>();
  readonly #linked = new Map<number, Copies>();

  constructor(disk: DiskTree, image: Image, options: PullOptions, contents: boolean) {
    this.#disk = disk;
    this.#image = image;
    this.#options = options;
    const rules = new DiskRules(disk);
    const mounts = mountPointsBelow(disk.self);
    this.#comparison = new TreeComparison<ImageTreeEntry, DiskEntry, 'missing' | 'extra'>({
      kinds: ['missing', 'extra'],
      rules,
      mayLack: rules.mayLack,
      exempt: (found, expected) => {
        if (!expected) return this.#ignored(found);
        if (!mounts.has(found.path))
          return options.prepare && isFilled(expected, found) ? 'added' : undefined;
        this.mounted.push(found.path);
        return 'known';
      },
      isClosed: (found) => {
        if (found.names !== undefined) return false;
        this.unread.push(found.path);
        return true;
      },
      ...(contents && {
        onFiles: (expected: ImageTreeEntry, found: DiskEntry) => this.#noteFiles(expected, found),
      }),
    });
  }

  #noteFiles(expected: ImageTreeEntry, found: DiskEntry): void {
    if (expected.links < 2) {
      this.#files.set(expected.inode, expected.path);
      return;
    }
    const copies: Copies = this.#linked.get(expected.inode) ?? new Map<DiskEntry['inode'], BytePath[]>();
    this.#linked.set(expected.inode, copies);
    copies.set(found.inode, [...(copies.get(found.inode) ?? []), expected.path]);
  }

  get differences(): Difference<'missing' | 'extra'>[] {
    return this.#comparison.differences();
  }

  async compare(tree: ImageTree): Promise<void> {
    const { signal } = this.#options;
    this.#tree = tree;
    const { pause } = openYielder(signal);
    await this.#comparison.compare(tree.walk(), this.#disk.walk(tree.hasRoot), pause);
    await tree.readInOrder([...this.#linked.keys(), ...this.#files.keys()], async (inode, content) => {
      await pause();
      const found = this.#linked.get(inode)?.values() ?? [[this.#files.get(inode)!]];
      const open = new Map<DiskFile, readonly BytePath[]>();
      try {
        for (const names of found) this.#open(names, open);
        const same = await filesWith(content, tree.contentOf(inode)!.size, [...open.keys()]);
        for (const [file, names] of open) if (!same.has(file)) this.#noteContent(names);
      } finally {
        for (const file of open.keys()) file.close();
      }
    });
  }

  #open(names: readonly BytePath[], open: Map<DiskFile, readonly BytePath[]>): void {
    const first = names[0]!;
    const file = this.#disk.open(first);
    if (file === 'denied') this.unread.push(first);
    else if (file === undefined) this.#noteContent(names);
    else open.set(file, names);
  }

  #noteContent(names: readonly BytePath[]): void {
    for (const name of names) this.#comparison.noteContent(name);
  }

  /** Excludes files that the image does not have, but dlrootfs or mke2fs(8) wrote. */
  #ignored({ path: place, type, mode, uid, names }: DiskEntry): 'known' | 'added' | undefined {
    if (place === '.git' && type === 'directory') return 'known';
    // mke2fs(8) makes it, and a pull leaves it.
    const isOfSystem = place === 'lost+found' && uid === 0 && mode === 0o700;
    if (isOfSystem && type === 'directory' && names?.length === 0) return 'known';
    if (place === 'layersize' && type === 'file' && this.#isLayerSize()) return 'known';
    if (place === 'json' && type === 'file' && this.#isWrittenJson()) return 'known';
    if (this.#tree?.isSelected(place, type === 'directory') === false) return 'known';
    if (!this.#options.prepare) return undefined;
    const isPrepared = neededDirectories.some(([name, own]) => name === place && own === mode);
    const isFilledAlone = names?.every((name) => filledFiles.some((file) => file === childPath(place, name)));
    if (isPrepared && type === 'directory' && isFilledAlone === true) return 'added';
    return filledFiles.some((name) => name === place) && type === 'file' ? 'added' : undefined;
  }

  #isLayerSize(): boolean {
    const text = Buffer.from(this.#disk.readSmall('layersize', MAX_LAYER_SIZE_BYTES) ?? []).toString();
    return /^-?\d{1,20}$/.test(text);
  }

  /**
   * True if a pull wrote `json`. Notes the image, the number of layers or the part in it, if these differ.
   */
  #isWrittenJson(): boolean {
    const existing = readExistingImage(this.#disk.self);
    if (!existing) return false;
    const { layers, allLayers = layers } = this.#image;
    const count = countWithTop(allLayers, existing);
    if (count === undefined) this.imageThere = describeExistingImage(existing);
    else if (count !== layers.length) this.layersThere = count;
    if (count !== layers.length) return true;
    const part = existing[PART];
    const { paths = [], excludes = [] } = this.#options.part ?? {};
    const there = isObject(part)
      ? { paths: textsOf(part['paths']) ?? [], excludes: textsOf(part['excludes']) ?? [] }
      : wholeTree;
    if (JSON.stringify(there) !== JSON.stringify({ paths, excludes })) this.partThere = there;
    return true;
  }
}

/** True if `prepare` filled a file that is empty in the image. */
function isFilled(expected: ImageTreeEntry, found: DiskEntry): boolean {
  const isOne = filledFiles.some((name) => name === expected.path);
  return isOne && expected.type === 'file' && found.type === 'file' && expected.size === 0 && found.size > 0;
}
