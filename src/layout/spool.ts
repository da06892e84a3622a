import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { Readable, addAbortSignal } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Transform } from 'node:stream';
import { DestinationError, DlrootfsError, IntegrityError, printable } from '../errors.ts';
import { MAGIC_LENGTH, compressionOf } from '../oci/compression.ts';
import type { Compression } from '../oci/compression.ts';

/**
 * Writes an archive that comes as a stream, decompressed, to a file in `directory` that has no name any more when this returns: it goes
 * when it is closed, however the program ends. Throws IntegrityError for a compression that cannot be read or is broken,
 * DestinationError where the file cannot be written.
 */
export async function spool(
  input: AsyncIterable<Uint8Array>,
  directory: string,
  name: string,
  signal: AbortSignal,
): Promise<FileHandle> {
  const handle = await unnamedFile(directory);
  try {
    const readable = input instanceof Readable ? input : Readable.from(input, { objectMode: false });
    const { start, all } = await peek(addAbortSignal(signal, readable));
    const step = decompressor(compressionOf(start), name);
    const write = (bytes: AsyncIterable<Uint8Array>): Promise<void> => handle.writeFile(bytes);
    await (step === undefined ? pipeline(all, write, { signal }) : pipeline(all, step, write, { signal }));
    return handle;
  } catch (error) {
    await handle.close();
    signal.throwIfAborted();
    throw spoolError(error, directory, name);
  }
}

/** The first bytes of a stream, and all of it. */
async function peek(input: Readable): Promise<{ start: Uint8Array; all: AsyncIterable<Uint8Array> }> {
  const iterator: AsyncIterator<Uint8Array> = input[Symbol.asyncIterator]();
  let start = Buffer.alloc(0);
  while (start.length < MAGIC_LENGTH) {
    const next = await iterator.next();
    if (next.done === true) break;
    start = Buffer.concat([start, next.value]);
  }
  return { start, all: follow(start, iterator) };
}

async function* follow(
  start: Uint8Array,
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield start;
  yield* { [Symbol.asyncIterator]: () => iterator };
}

function decompressor(compression: Compression, name: string): Transform | undefined {
  const options = { chunkSize: 1024 * 1024 };
  if (compression === 'none') return undefined;
  if (compression === 'gzip') return createGunzip(options);
  if (compression === 'zstd') return createZstdDecompress(options);
  throw new IntegrityError(`${name} is compressed with ${compression}, which cannot be read here`, {
    code: 'UNKNOWN_COMPRESSION',
    hint: `decompress it first: ${compression} -dc FILE | dlrootfs -`,
  });
}

async function unnamedFile(directory: string): Promise<FileHandle> {
  const place = path.join(directory, `.dlrootfs-spool-${randomUUID()}`);
  try {
    const handle = await open(place, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    await unlink(place);
    return handle;
  } catch (error) {
    throw spoolError(error, directory, '');
  }
}

function spoolError(error: unknown, directory: string, name: string): unknown {
  if (error instanceof DlrootfsError || !(error instanceof Error) || !('code' in error)) return error;
  const code = String(error.code);
  if (code.startsWith('Z_') || code.startsWith('ZSTD_') || code.startsWith('ERR_ZLIB')) {
    return new IntegrityError(`${name} is damaged: ${printable(error.message, 120)}`, { cause: error });
  }
  if (!('syscall' in error)) return error;
  return new DestinationError(
    `cannot write a temporary file in ${printable(directory)}: ${printable(code)}`,
    {
      code: code === 'ENOSPC' ? 'DISK_FULL' : 'SPOOL',
      hint: 'a compressed archive, or one on standard input, is unpacked there first: it needs that much space',
      cause: error,
    },
  );
}
