import { createHash } from 'node:crypto';
import { type Difference, exactRules } from '../comparison/differences.ts';
import { TreeComparison } from '../comparison/trees.ts';
import { UsageError } from '../errors.ts';
import { parseSource } from '../layout/local-source.ts';
import type { Image } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { OpenFile } from '../rootfs/image-contents.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { PartOptions } from '../rootfs/selection.ts';
import { openYielder } from '../sys/yielder.ts';
import type { BytePath } from '../tar/entry.ts';
import { ExtentCursor } from '../tar/sparse.ts';
import { withImageTree } from './with-image-tree.ts';
import { parseImage } from './image-source.ts';
import { type OpenedImage, withImage } from './with-session.ts';

const CONTENT_BLOCK_BYTES = 16 * 1024;
const ZEROS = Buffer.alloc(CONTENT_BLOCK_BYTES);

/** One of two images. */
export interface ComparedImage {
  /** `library/ubuntu:14.04`, or `name@sha256:…`. */
  readonly reference: string;
  /** 64 hex digits. */
  readonly id: string;
  /** The digest of the manifest; absent with registry v1. */
  readonly digest?: string | undefined;
}

/** The result of `diff`, which `--json` prints. */
export interface ImageDifferences {
  readonly images: readonly [ComparedImage, ComparedImage];
  /** Sorted by path, each directory before its content. Empty: both images make the same root file system. */
  readonly differences: readonly Difference<'removed' | 'added'>[];
}

/**
 * Compares the root file systems of two images, without a directory. Contents of equal size are compared,
 * unless both files come from the same entry of the same layer.
 *
 * @throws a DlrootfsError, or the signal's reason
 */
export async function diff(first: PullOptions, second: PullOptions): Promise<ImageDifferences> {
  refuseSharedStdin(first, second);
  refuseSharedCredentials(first, second);
  return await withImage(first, async (opened) => {
    return await withImage(second, async (other) => {
      const { image } = opened;
      const { image: otherImage } = other;
      const images = [comparedImage(opened), comparedImage(other)] as const;
      const { part } = first;
      if (!part && hasSameLayers(image, otherImage)) return { images, differences: [] };
      // The blobs of the first one arrive first: progress is about its layers until then.
      first.report({ type: 'image', id: image.id, layers: image.layers });
      const whole = { ...first, part: undefined };
      return await withImageTree(opened, whole, true, async (tree) => {
        second.report({ type: 'image', id: otherImage.id, layers: otherImage.layers });
        return await withImageTree(other, whole, true, async (otherTree) => {
          if (part) selectOfEither(part, [tree, otherTree]);
          const differences = await compare({ image, tree }, { image: otherImage, tree: otherTree }, first);
          return { images, differences };
        });
      });
    });
  });
}

/** @throws NotFoundError for a path that neither image has */
function selectOfEither(part: PartOptions, trees: readonly [ImageTree, ImageTree]): void {
  const [missing, missingToo] = trees.map((tree) => {
    const paths = new Set<string>();
    tree.select(part, (path) => paths.add(path));
    return paths;
  });
  const nowhere = [...missing!].find((path) => missingToo!.has(path));
  if (nowhere !== undefined) throw trees[0].absent(nowhere);
}

/** An image whose tree is open. */
interface ImageWithTree {
  readonly image: Image;
  readonly tree: ImageTree;
}

/** @throws UsageError if both images are on standard input, which can be read only once */
function refuseSharedStdin(first: PullOptions, second: PullOptions): void {
  if (![first, second].every(({ image }) => parseSource(image)?.transport === 'stdin')) return;
  throw new UsageError('cannot read two images from standard input', {
    hint: 'save one of them to a file, and name it as docker-archive:FILE or oci-archive:FILE',
  });
}

/** @throws UsageError if the caller's credentials would go to two registries */
function refuseSharedCredentials(first: PullOptions, second: PullOptions): void {
  const { credentials, registryToken } = first.registry;
  const given = credentials ?? registryToken;
  const [one, other] = [parseImage(first).registry, parseImage(second).registry];
  if (given === undefined || one === undefined || other === undefined || one === other) return;
  throw new UsageError(`cannot send the credentials to two registries: ${one} and ${other}`, {
    hint: 'log in to both with docker, podman or skopeo, and leave out the credentials',
  });
}

function comparedImage({ source: { reference }, image: { id, digest } }: OpenedImage): ComparedImage {
  return { reference, id, digest };
}

function hasSameLayers(one: Image, other: Image): boolean {
  const isSame = ({ diffID }: Image['layers'][number], index: number): boolean =>
    diffID !== undefined && diffID === other.layers[index]?.diffID;
  return one.layers.length === other.layers.length && one.layers.every(isSame);
}

async function compare(
  first: ImageWithTree,
  second: ImageWithTree,
  { signal }: PullOptions,
): Promise<Difference<'removed' | 'added'>[]> {
  const { pause } = openYielder(signal);
  const pairs: (readonly [path: BytePath, inode: number, otherInode: number])[] = [];
  const comparison = new TreeComparison<ImageTreeEntry, ImageTreeEntry, 'removed' | 'added'>({
    kinds: ['removed', 'added'],
    rules: exactRules,
    onFiles: (one, other) => {
      if (!isSameEntry(first, one.inode, second, other.inode)) pairs.push([one.path, one.inode, other.inode]);
    },
  });
  const withRoot = first.tree.hasRoot && second.tree.hasRoot;
  await comparison.compare(first.tree.walk(withRoot), second.tree.walk(withRoot), pause);
  const ones = await digestsOf(first.tree, new Set(pairs.map(([, inode]) => inode)), pause);
  const others = await digestsOf(second.tree, new Set(pairs.map(([, , inode]) => inode)), pause);
  for (const [path, inode, otherInode] of pairs)
    if (ones.get(inode) !== others.get(otherInode)) comparison.noteContent(path);
  return comparison.differences();
}

/** True if both files have the content of the same entry of a layer that both images have. */
function isSameEntry(
  first: ImageWithTree,
  inode: number,
  second: ImageWithTree,
  otherInode: number,
): boolean {
  const [one, other] = [first.tree.contentOf(inode)!, second.tree.contentOf(otherInode)!];
  if (one.ordinal !== other.ordinal) return false;
  const diffID = first.image.layers[one.layer]?.diffID;
  return diffID !== undefined && diffID === second.image.layers[other.layer]?.diffID;
}

async function digestsOf(
  tree: ImageTree,
  inodes: ReadonlySet<number>,
  pause: () => Promise<void>,
): Promise<Map<number, string>> {
  const digests = new Map<number, string>();
  await tree.readInOrder(inodes, async (inode, file) => {
    await pause();
    digests.set(inode, await contentDigest(file));
  });
  return digests;
}

/**
 * Returns a SHA-256 of all blocks that are not zero, each with its number; one character per byte. Files of
 * the same size and content have the same digest, whether their holes are stored or not. The time depends
 * only on the stored bytes.
 */
async function contentDigest({ extents, pieces }: OpenFile): Promise<string> {
  const hash = createHash('sha256');
  const block = Buffer.alloc(CONTENT_BLOCK_BYTES);
  const number = Buffer.alloc(8);
  let current = 0;
  let filled = 0;
  const finishBlock = (): void => {
    if (block.compare(ZEROS, 0, filled, 0, filled) !== 0) {
      number.writeDoubleLE(current);
      hash.update(number).update(block);
    }
    block.fill(0, 0, filled);
    filled = 0;
  };
  const cursor = new ExtentCursor(extents);
  for await (const bytes of pieces) {
    for (const { position, part } of cursor.split(bytes)) {
      for (let done = 0; done < part.length;) {
        const start = (position + done) % CONTENT_BLOCK_BYTES;
        const index = (position + done - start) / CONTENT_BLOCK_BYTES;
        if (index !== current) finishBlock();
        current = index;
        const length = Math.min(part.length - done, CONTENT_BLOCK_BYTES - start);
        block.set(part.subarray(done, done + length), start);
        filled = start + length;
        done += length;
      }
    }
  }
  finishBlock();
  return hash.digest('binary');
}
