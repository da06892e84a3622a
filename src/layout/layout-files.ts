import { constants } from 'node:fs';
import { type FileHandle, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { IntegrityError, NotFoundError, printable, UsageError } from '../errors.ts';
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts';
import type { LocalBlob, LocalLayer } from '../oci/image.ts';
import type { Descriptor } from '../oci/manifest.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { hasCode, osErrorOf } from '../sys/os-error.ts';
import { O_PATH, osPath } from '../sys/os-path.ts';

/** A file of a layout, and its size in bytes. */
export interface LayoutFile {
  readonly size: number;
  /** Yields the bytes from `start` up to `end`, in chunks that the caller may keep. */
  read(start: number, end: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  open(): Promise<LocalBlob>;
}

/** The files of a layout in a directory or an archive. */
export interface LayoutFiles {
  /** The source as the user typed it, printable. */
  readonly name: string;
  /** Aborts the reading of documents; layers have other signals. */
  readonly signal: AbortSignal;
  /** Returns the file at `path`, relative to the layout, with slashes; undefined if it does not exist. */
  find(path: string): Promise<LayoutFile | undefined>;
  close(): Promise<void>;
}

/**
 * Returns the file at `path`.
 *
 * @throws NotFoundError if it does not exist
 */
export async function findFile(files: LayoutFiles, path: string, what: string): Promise<LayoutFile> {
  const file = await files.find(path);
  if (file !== undefined) return file;
  throw new NotFoundError(`${files.name} lacks ${what}: ${path} is missing`, {
    code: 'BLOB_NOT_FOUND',
    hint: 'save or copy the image again: it is incomplete',
  });
}

/**
 * Reads a whole small file.
 *
 * @throws NotFoundError if it does not exist; IntegrityError if it has more than `max` bytes, or not `size`
 */
export async function readLayoutDocument(
  files: LayoutFiles,
  path: string,
  what: string,
  { max, size }: { readonly max: number; readonly size?: number },
): Promise<Buffer> {
  const file = await findFile(files, path, what);
  const whole = `${what} of ${files.name}`;
  if (file.size > max) throw new IntegrityError(`${whole} has ${file.size} bytes, ${max} are allowed`);
  if (size !== undefined && file.size !== size) throw wrongSize(whole, file.size, size);
  const chunks: Uint8Array[] = [];
  for await (const chunk of file.read(0, file.size, files.signal)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function wrongSize(what: string, found: number, expected: number): IntegrityError {
  return new IntegrityError(`${what} has ${found} bytes but must have ${expected}`, {
    code: 'SIZE_MISMATCH',
  });
}

const READ_BYTES = 1024 * 1024;

/**
 * Opens a file for reading, without waiting for the other end of a pipe.
 *
 * @param name in messages
 * @param more flags of open(2)
 * @throws NotFoundError if it is not a regular file
 */
export async function openRegular(
  place: string | Buffer,
  name: string,
  more = 0,
): Promise<{ handle: FileHandle; size: number }> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | more;
  const handle = await open(place, flags).catch((error: unknown) => {
    throw sourceError(error, name);
  });
  const status = await handle.stat();
  if (status.isFile()) return { handle, size: status.size };
  await handle.close();
  throw new NotFoundError(
    `${printable(name)} is ${status.isDirectory() ? 'a directory' : 'not a regular file'}`,
    {
      code: 'SOURCE_UNREADABLE',
      hint: status.isDirectory()
        ? `for an OCI layout in a directory write oci:${printable(name)}`
        : 'to read an archive from a pipe write - and connect the pipe to standard input',
    },
  );
}

/**
 * Yields the bytes of an open file from `start` up to `end`.
 *
 * @throws IntegrityError if the file ends before
 */
export async function* readRange(
  handle: FileHandle,
  start: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let position = start; position < end;) {
    signal.throwIfAborted();
    const chunk = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - position));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) throw new IntegrityError(`a file became shorter while it was read`);
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

/** Explains a failed system call on a source; returns other errors unchanged. */
function sourceError(error: unknown, file: string): unknown {
  const os = osErrorOf(error);
  if (!os) return error;
  const name = printable(file);
  if (['ENOENT', 'ENOTDIR'].includes(os.code)) {
    return new NotFoundError(`${name} does not exist`, {
      code: 'SOURCE_NOT_FOUND',
      hint: 'check the path: it ends at the first colon after the transport, and a tag follows',
      cause: error,
    });
  }
  return new NotFoundError(`cannot read ${name}: ${os.text}`, {
    code: 'SOURCE_UNREADABLE',
    hint: ['EACCES', 'EPERM'].includes(os.code)
      ? 'change its permissions, or run as a user who may read it'
      : 'check the disk: see the messages of the kernel (dmesg), and read the file with another program',
    cause: error,
  });
}

/**
 * Selects an image by its name, or by `@N` the N-th. Without `wanted` it must be the only one: entries with
 * the same `groupOf` are one image, for several platforms.
 *
 * @throws NotFoundError and UsageError that list the names
 */
export function selectImage<T>(
  images: readonly T[],
  wanted: string | undefined,
  what: string,
  by: {
    readonly isNamed: (image: T, name: string) => boolean;
    readonly nameOf: (image: T) => string | undefined;
    readonly groupOf: (image: T) => unknown;
  },
): readonly T[] {
  const names = new Set(images.map((image, place) => printable(by.nameOf(image) ?? `@${place}`, 80)));
  const hint = `name one after a colon: ${[...names].join(', ')}`;
  const place = /^@(\d{1,9})$/.exec(wanted ?? '')?.[1];
  if (images.length === 0) {
    throw new NotFoundError(`${what} is empty: it lists no image`, { hint: 'save or copy the image again' });
  }
  if (wanted === undefined) {
    if (new Set(images.map(by.groupOf)).size === 1) return images;
    throw new UsageError(`${what} has more than one image`, { code: 'AMBIGUOUS_IMAGE', hint });
  }
  const found =
    place === undefined
      ? images.filter((image) => by.isNamed(image, wanted))
      : images.slice(Number(place), Number(place) + 1);
  if (found.length > 0) return found;
  throw new NotFoundError(`${what} has no image "${printable(wanted, 120)}"`, { hint });
}

/**
 * Opens the files of a layout in a directory. Callers make paths of fixed names and digests only. Symlinks of
 * blobs are followed, since some tools link blobs to a shared store, and digests verify them. No digest
 * verifies the documents at the top: a link to one must stay inside the layout.
 *
 * @throws NotFoundError if the directory does not exist
 */
export function directoryFiles(name: string, shown: string, signal: AbortSignal): LayoutFiles {
  const directory = openLayoutDirectory(name);
  const openFile = (file: string) =>
    file.includes('/')
      ? openRegular(osPath(`${directory.self}/${file}`), join(name, file))
      : openDocument(directory, file, join(name, file));
  const find: LayoutFiles['find'] = async (file) => {
    try {
      const { handle, size } = await openFile(file);
      await handle.close();
      const reopen = async () => {
        const opened = await openFile(file);
        return partOfFile(opened.handle, 0, opened.size, () => opened.handle.close());
      };
      const read: LayoutFile['read'] = (start, end, ending) =>
        readFrom(() => openFile(file), start, end, ending);
      return { size, read, open: reopen };
    } catch (error) {
      if (error instanceof NotFoundError && error.code === 'SOURCE_NOT_FOUND') return undefined;
      throw error;
    }
  };
  const close = () => {
    directory.close();
    return Promise.resolve();
  };
  return { name: shown, signal, find, close };
}

function openLayoutDirectory(name: string): OpenDirectory {
  try {
    return OpenDirectory.open(name, { trustLinks: true });
  } catch (error) {
    if (!hasCode(error, 'ENOTDIR')) throw sourceError(error, name);
    throw new NotFoundError(`${printable(name)} is not a directory`, {
      code: 'SOURCE_NOT_FOUND',
      hint: `for an archive write oci-archive:${printable(name)}`,
    });
  }
}

/**
 * Opens a file that no digest verifies.
 *
 * @throws IntegrityError if a symlink leads out of the directory
 */
async function openDocument(
  directory: OpenDirectory,
  file: string,
  name: string,
): ReturnType<typeof openRegular> {
  const place = directory.at(file);
  if (directory.stat(file)?.isSymbolicLink() !== true)
    return await openRegular(place, name, constants.O_NOFOLLOW);
  // Opened without reading: first the kernel tells where it is.
  const found = await open(place, O_PATH).catch((error: unknown) => {
    throw sourceError(error, name);
  });
  try {
    const self = `/proc/self/fd/${found.fd}`;
    const inside = join(directory.currentPath, '/');
    if (!directory.isNamedByDescriptor || !(await readlink(self)).startsWith(inside)) {
      throw new IntegrityError(`${printable(name)} is a symlink that leads out of the layout`, {
        code: 'LINK_OUTSIDE',
        hint: `copy the file that it leads to into ${printable(directory.path)}`,
      });
    }
    return await openRegular(self, name);
  } finally {
    await found.close();
  }
}

async function* readFrom(
  opening: () => ReturnType<typeof openRegular>,
  start: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { handle } = await opening();
  try {
    yield* readRange(handle, start, end, signal);
  } finally {
    await handle.close();
  }
}

/** Returns `size` bytes of an open file, from `offset` on, as a blob. */
export function partOfFile(
  handle: FileHandle,
  offset: number,
  size: number,
  close: () => Promise<void>,
): LocalBlob {
  return {
    size,
    read: async (into, position) => {
      const length = Math.max(0, Math.min(into.length, size - position));
      return (await handle.read(into, 0, length, offset + position)).bytesRead;
    },
    close,
  };
}

/**
 * Returns `LocalLayer.openLocal` for a blob in a file of a layout.
 *
 * @param size in the manifest, if it names one
 */
export function openLayoutFile(
  files: LayoutFiles,
  path: string,
  size: number | undefined,
): LocalLayer['openLocal'] {
  return async () => {
    const file = await findFile(files, path, 'a layer');
    if (size !== undefined && file.size !== size)
      throw wrongSize(`${path} of ${files.name}`, file.size, size);
    return await file.open();
  };
}

const REF_NAME = 'org.opencontainers.image.ref.name';
/** The full name, which containerd and Docker write besides the tag. */
const IMAGE_NAME = 'io.containerd.image.name';

/** Returns the path of a blob in a layout (OCI image-layout.md); a parsed digest cannot lead out of it. */
export function blobPath(digest: Digest): string {
  return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

/** Returns the names of an entry of index.json, the tag first. */
export function namesOf({ annotations }: Descriptor): string[] {
  return [annotations?.[REF_NAME], annotations?.[IMAGE_NAME]].filter((name) => name !== undefined);
}
