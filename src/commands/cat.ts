import type { Writable } from 'node:stream';
import { STANDARD_OUTPUT, writeBytes } from '../archive/archive-file.ts';
import { fillGaps } from '../archive/sparse-map.ts';
import { NotFoundError, printable } from '../errors.ts';
import type { PullOptions } from '../options.ts';
import type { ListedEntry } from '../report/text.ts';
import type { ImageTree, ImageTreeEntry } from '../rootfs/image-tree.ts';
import type { ResolvedPath } from '../rootfs/selection.ts';
import { pathBytes } from '../sys/os-path.ts';
import { type BytePath, isDevice } from '../tar/entry.ts';
import { withImageTree } from './with-image-tree.ts';
import { withImage } from './with-session.ts';

/**
 * Writes the content of a file of an image to `output`, which stays open. Symlinks are followed inside the
 * image.
 *
 * @param file a path from the root of the image, with or without a leading slash
 * @throws NotFoundError for a path where no file is, DestinationError when the output cannot be written, and
 * as `pull` does
 */
export async function cat(options: PullOptions, file: string, output: Writable): Promise<void> {
  const { signal } = options;
  await withImage(options, async (opened) => {
    await withImageTree(opened, options, true, async (tree) => {
      const place = tree.find(pathBytes(file).toString('latin1') as BytePath, true);
      if (!place) throw tree.absent(file);
      if (place.type !== 'file') throw noFile(file, place, opened.source.reference);
      await writeBytes(content(tree, place), output, { name: STANDARD_OUTPUT, signal });
    });
  });
}

async function* content(
  tree: ImageTree,
  { inode, size }: ResolvedPath,
): AsyncGenerator<Uint8Array, void, void> {
  const contents = tree.contents([inode]);
  try {
    const { extents, pieces } = await contents.open(inode);
    yield* extents ? fillGaps(pieces, extents, [{ offset: 0, length: size }]) : pieces;
  } finally {
    await contents.close();
  }
}

function noFile(file: string, { type }: ResolvedPath, reference: string): NotFoundError {
  const what = { directory: 'a directory', symlink: 'a symlink', fifo: 'a FIFO' } as const;
  const is = type in what ? what[type as keyof typeof what] : 'a device';
  const path = printable(file);
  return new NotFoundError(`cannot read ${path} of ${printable(reference)}: it is ${is}, not a file`, {
    code: 'NOT_A_FILE',
    hint: `take it with dlrootfs ${printable(reference)} --path ${path} -d DIR`,
  });
}

/**
 * Lists the content of a directory of an image, sorted by the bytes of the names; for anything else the entry
 * itself. Symlinks in the path are followed inside the image.
 *
 * @throws NotFoundError for a path that the image does not have, and as `pull` does
 */
export async function list(options: PullOptions, path: string): Promise<ListedEntry[]> {
  return await withImage(options, async (opened) => {
    return await withImageTree(opened, options, false, (tree) => {
      const place = tree.find(pathBytes(path).toString('latin1') as BytePath, true);
      if (!place) throw tree.absent(path);
      return Promise.resolve([...entriesAt(tree, place)].map((entry) => listedEntry(entry)));
    });
  });
}

/** Yields the entries of a directory, or the entry itself. */
function* entriesAt(tree: ImageTree, { path, type }: ResolvedPath): Generator<ImageTreeEntry, void, void> {
  const start = path === '' ? '' : `${path}/`;
  const walk = tree.walk(false);
  for (let next = walk.next(); next.done !== true;) {
    const entry = next.value;
    const isAbove = start.startsWith(`${entry.path}/`);
    const isInside = type === 'directory' && entry.path.startsWith(start) && entry.path.length > start.length;
    if (isInside || (type !== 'directory' && entry.path === path)) yield entry;
    next = walk.next(isAbove);
  }
}

function listedEntry(entry: ImageTreeEntry): ListedEntry {
  const { path, type, mode, uid, gid, size, deviceMajor, deviceMinor, linkPath, mtimeSeconds } = entry;
  return {
    path: `/${Buffer.from(path, 'latin1').toString()}`,
    type,
    mode,
    uid,
    gid,
    ...(type === 'file' && { size }),
    ...(isDevice(type) && { device: `${deviceMajor}, ${deviceMinor}` }),
    ...(type === 'symlink' && { target: Buffer.from(linkPath, 'latin1').toString() }),
    mtime: new Date(mtimeSeconds * 1000).toISOString(),
  };
}
