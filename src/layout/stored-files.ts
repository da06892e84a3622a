import { IntegrityError, NotFoundError } from '../errors.ts';

/** One file of a layout: its size in bytes, and a way to read a part of it. */
export interface StoredFile {
  readonly size: number;
  /** The bytes from `start` up to `end`, in chunks that the caller may keep. */
  read(start: number, end: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** The files of a layout, in a directory or in an archive. */
export interface StoredFiles {
  /** As it was typed, fit for a terminal. */
  readonly name: string;
  /** The file at `path` (slashes, relative to the layout), or undefined. */
  find(path: string): Promise<StoredFile | undefined>;
  close(): Promise<void>;
}

/** The file at `path`; throws NotFoundError when there is none. */
export async function findFile(files: StoredFiles, path: string, what: string): Promise<StoredFile> {
  const file = await files.find(path);
  if (file !== undefined) return file;
  throw new NotFoundError(`${files.name} lacks ${what}: there is no ${path}`, {
    code: 'BLOB_NOT_FOUND',
    hint: 'the image is incomplete here: save or copy it again',
  });
}

/** A whole small file; throws IntegrityError when it is larger than `max` bytes. */
export async function readDocument(
  file: StoredFile,
  max: number,
  what: string,
  signal: AbortSignal,
): Promise<Buffer> {
  if (file.size > max) throw new IntegrityError(`${what} has ${file.size} bytes, ${max} are allowed`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of file.read(0, file.size, signal)) chunks.push(chunk);
  return Buffer.concat(chunks);
}
