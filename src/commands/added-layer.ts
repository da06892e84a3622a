import { createHash } from 'node:crypto';
import { readlinkSync, type Stats } from 'node:fs';
import { type FileHandle, readdir } from 'node:fs/promises';
import path from 'node:path';
import { entryBlocks } from '../archive/entry-blocks.ts';
import { fillGaps } from '../archive/sparse-map.ts';
import { decompress } from '../blob/decode/decompress.ts';
import { printable, UsageError } from '../errors.ts';
import type { DiffID, Digest } from '../oci/digest.ts';
import type { Image, Layer } from '../oci/image.ts';
import type { Addition } from '../options.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { explainOsError } from '../sys/os-error.ts';
import { pathBytes, pathText } from '../sys/os-path.ts';
import { type BytePath, type Entry, noBytes, type Owner } from '../tar/entry.ts';
import { TAR_BLOCK_BYTES, paddingOf } from '../tar/header.ts';
import { normalize } from '../tar/layer-path.ts';
import { AsyncTarReader } from '../tar/reader.ts';
import { bytesOf, namingSource, openFile, OpenPlace, unfit, whileUnchanged } from './added-sources.ts';

/** Archives by their endings. Such a file is unpacked, unless its destination has such an ending too. */
const ARCHIVE = /\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tzst)$/i;

/** The layer of the additions; disposing closes its temporary file. */
export interface AddedLayer extends AsyncDisposable {
  readonly layers: readonly [Layer];
}

/**
 * Makes a layer of the additions, uncompressed, in a temporary file. Its digest is known before any layer is
 * downloaded. The layer is applied on top of the image by the usual rules: files are replaced, directories
 * merged.
 *
 * @param owner of all files; default: root, and for entries of an archive the owner in the archive
 * @param spool makes a new, empty temporary file in `spoolDirectory`
 * @throws UsageError for what cannot be added; IntegrityError for a malformed archive; DestinationError for
 * what cannot be read or written; the signal's reason
 */
export async function addedLayer(
  additions: readonly Addition[],
  owner: Owner | undefined,
  image: Image,
  spool: { readonly spoolDirectory: string; spool(): Promise<FileHandle> },
  signal: AbortSignal,
): Promise<AddedLayer> {
  const handle = await spool.spool();
  try {
    const tar = new TarFile(handle, spool.spoolDirectory, signal);
    for (const addition of additions) {
      await namingSource(addition.source, () => addTo(tar, addition, owner));
    }
    const { size, digest } = await tar.end();
    const above = image.layers.at(-1)?.info;
    const id = digest.slice('sha256:'.length);
    const layer: Layer = {
      id,
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      checksum: { digest: digest as Digest },
      size,
      diffID: digest as unknown as DiffID,
      info: {
        ...above,
        id,
        ...(above && { parent: above['id'] }),
        container_config: { Cmd: ['dlrootfs', '--add'] },
      },
      createdBy: `dlrootfs --add ${additions.map(({ text }) => text).join(' --add ')}`,
      open: ({ start, end = size }) =>
        Promise.resolve({ body: bytesOf(handle, start, end), start, size, ranges: true }),
    };
    return { layers: [layer], [Symbol.asyncDispose]: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Writes an archive to a file and computes its digest. */
class TarFile {
  readonly #handle: FileHandle;
  readonly #directory: string;
  readonly #signal: AbortSignal;
  readonly #hash = createHash('sha256');
  #size = 0;

  /** @param directory where the file is, for errors */
  constructor(handle: FileHandle, directory: string, signal: AbortSignal) {
    this.#handle = handle;
    this.#directory = directory;
    this.#signal = signal;
  }

  /** Adds an entry. `data` is the content of a file: exactly `entry.size` bytes. */
  async add(entry: Omit<Entry, 'sparse'>, data?: AsyncIterable<Uint8Array>): Promise<void> {
    const { blocks } = entryBlocks({ ...entry, type: entry.type as 'file' }, undefined);
    await this.#write(blocks);
    if (!data) return;
    for await (const piece of data) await this.#write(piece);
    await this.#write(Buffer.alloc(paddingOf(entry.size)));
  }

  async end(): Promise<{ readonly size: number; readonly digest: string }> {
    await this.#write(Buffer.alloc(2 * TAR_BLOCK_BYTES));
    return { size: this.#size, digest: `sha256:${this.#hash.digest('hex')}` };
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#signal.throwIfAborted();
    this.#hash.update(bytes);
    try {
      for (let at = 0; at < bytes.length;) {
        const { bytesWritten } = await this.#handle.write(bytes, at, bytes.length - at, this.#size);
        at += bytesWritten;
        this.#size += bytesWritten;
      }
    } catch (error) {
      const action = `write the temporary file of --add in ${printable(this.#directory)}`;
      throw explainOsError(error, action, 'choose another place with -d or -o');
    }
  }
}

const ROOT_OWNER: Owner = { uid: 0, gid: 0 };

async function addTo(
  tar: TarFile,
  { source, destination }: Addition,
  owner: Owner | undefined,
): Promise<void> {
  using place = OpenPlace.open(source);
  const { stat } = place;
  if (stat.isDirectory()) {
    using directory = OpenDirectory.open(source);
    const target = inImage(destination ?? '/');
    return await addDirectory(tar, directory, { target, owner: owner ?? ROOT_OWNER });
  }
  if (!stat.isFile()) throw unfit(source);
  const file = await openFile(place, source);
  try {
    if (ARCHIVE.test(source) && !ARCHIVE.test(destination ?? '')) {
      const target = inImage(destination ?? '/');
      return await whileUnchanged(file.fd, source, ({ size }) =>
        addArchive(tar, bytesOf(file, 0, size), { source, target, owner }),
      );
    }
    const isWithin = destination === undefined || destination.endsWith('/');
    const target = inImage(isWithin ? `${destination ?? ''}/${path.basename(source)}` : destination);
    if (target === '' || STANDARD.has(target))
      throw new UsageError(
        `cannot add ${printable(source)} as ${printable(destination ?? '/')}: that is a directory`,
        {
          hint: `end it with a slash to add the file to that directory: ${printable(`${source}:/${target}`)}/`,
        },
      );
    await addFile(tar, file, { source, target, owner: owner ?? ROOT_OWNER });
  } finally {
    await file.close();
  }
}

/**
 * Returns the path in the form of archive entries: without a leading slash.
 *
 * @throws UsageError for a name that is a whiteout
 */
function inImage(text: string): BytePath {
  for (const name of text.split('/')) refuseWhiteout(name, text);
  return normalize(pathBytes(text).toString('latin1') as BytePath);
}

/** Whiteouts delete files of the layers below (image-spec, layer.md). */
function refuseWhiteout(name: string, shown: string): void {
  if (!name.startsWith('.wh.')) return;
  throw new UsageError(`cannot add ${printable(shown)}: such a name deletes files of the image`, {
    hint: 'rename it; to delete files of the image, add an archive with that name',
  });
}

const targetBelow = (above: BytePath, name: string): BytePath =>
  (above === '' ? name : name === '' ? above : `${above}/${name}`) as BytePath;

/** Returns the fields of an entry that come from the file's status; extended attributes are not read. */
function fieldsOf({ mode, mtimeMs }: Stats, owner: Owner) {
  const seconds = Math.floor(mtimeMs / 1000);
  return {
    mode: mode & 0o7777,
    ...owner,
    mtimeSeconds: seconds,
    mtimeNanoseconds: Math.floor((mtimeMs - seconds * 1000) * 1e6),
    deviceMajor: 0,
    deviceMinor: 0,
    linkPath: noBytes,
    xattrs: undefined,
  };
}

async function addFile(
  tar: TarFile,
  file: FileHandle,
  { source, target, owner }: { readonly source: string; readonly target: BytePath; readonly owner: Owner },
): Promise<void> {
  await whileUnchanged(file.fd, source, async (stat) => {
    const { size } = stat;
    await tar.add({ type: 'file', path: target, size, ...fieldsOf(stat, owner) }, bytesOf(file, 0, size));
  });
}

/**
 * Standard directories (hier(7)). They get no entries in the layer: those of the image keep their modes and
 * may be symlinks, such as /lib to usr/lib. Missing ones are created.
 */
const STANDARD: ReadonlySet<string> = new Set(
  (
    'bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp ' +
    'usr usr/bin usr/include usr/lib usr/lib32 usr/lib64 usr/libexec usr/libx32 usr/sbin usr/share usr/src ' +
    'usr/local usr/local/bin usr/local/etc usr/local/lib usr/local/sbin usr/local/share ' +
    'var var/cache var/lib var/lock var/log var/mail var/opt var/run var/spool var/tmp'
  ).split(' '),
);

/** The path and owner that a directory gets in the image. */
interface DirectoryTarget {
  readonly target: BytePath;
  readonly owner: Owner;
}

/** Adds a directory and its content, sorted by the bytes of the names: the same files make the same layer. */
async function addDirectory(
  tar: TarFile,
  directory: OpenDirectory,
  destination: DirectoryTarget,
): Promise<void> {
  await whileUnchanged(directory.descriptor, directory.path, (stat) =>
    addEntries(tar, directory, stat, destination),
  );
}

async function addEntries(
  tar: TarFile,
  directory: OpenDirectory,
  own: Stats,
  { target, owner }: DirectoryTarget,
): Promise<void> {
  if (target !== '' && !STANDARD.has(target))
    await tar.add({ type: 'directory', path: target, size: 0, ...fieldsOf(own, owner) });
  const names = (await readdir(directory.at('.'), { encoding: 'buffer' })).map((name) => pathText(name));
  for (const name of names.toSorted((one, other) => Buffer.compare(pathBytes(one), pathBytes(other)))) {
    const shown = directory.shown(name);
    refuseWhiteout(name, shown);
    const stat = directory.stat(name);
    if (!stat) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT', errno: -2, syscall: 'lstat' });
    const below = targetBelow(target, pathBytes(name).toString('latin1'));
    const entry = { path: below, size: 0, ...fieldsOf(stat, owner) };
    if (stat.isDirectory()) {
      using child = directory.openChild(name);
      await addDirectory(tar, child, { target: below, owner });
    } else if (stat.isSymbolicLink()) {
      const text = readlinkSync(directory.at(name), { encoding: 'buffer' });
      await tar.add({
        ...entry,
        type: 'symlink',
        linkPath: text.toString('latin1') as BytePath,
        mode: 0o777,
      });
    } else {
      if (!stat.isFile()) throw unfit(shown);
      const file = await openFile({ place: { directory, name } }, shown);
      try {
        await addFile(tar, file, { source: shown, target: below, owner });
      } finally {
        await file.close();
      }
    }
  }
}

/** Adds the entries of an archive, which may be compressed, below `target`. */
async function addArchive(
  tar: TarFile,
  bytes: AsyncIterable<Uint8Array>,
  {
    source,
    target,
    owner,
  }: { readonly source: string; readonly target: BytePath; readonly owner: Owner | undefined },
): Promise<void> {
  const chunks = decompress(bytes, printable(source));
  const reader = new AsyncTarReader(chunks[Symbol.asyncIterator](), printable(source));
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const { sparse, ...fields } = entry;
    const moved = {
      ...fields,
      ...owner,
      path: targetBelow(target, normalize(entry.path)),
      linkPath: entry.type === 'hardlink' ? targetBelow(target, normalize(entry.linkPath)) : entry.linkPath,
    };
    if (moved.path === '' || (entry.type === 'directory' && STANDARD.has(moved.path))) continue;
    const pieces = piecesOf(reader);
    const whole = sparse ? fillGaps(pieces, sparse, [{ offset: 0, length: entry.size }]) : pieces;
    await tar.add(moved, entry.type === 'file' ? whole : undefined);
  }
}

async function* piecesOf(reader: AsyncTarReader): AsyncGenerator<Uint8Array, void, void> {
  for (let piece = await reader.data(); piece !== undefined; piece = await reader.data()) yield piece;
}
