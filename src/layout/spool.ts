import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { Readable, addAbortSignal } from 'node:stream';
import { DestinationError, printable } from '../errors.ts';
import type { Decompress } from '../oci/compression.ts';

/** What an archive needs that cannot be read where it is. */
export interface Spooling {
  /** The file lies there. */
  readonly directory: string;
  readonly decompress: Decompress;
  readonly signal: AbortSignal;
}

/**
 * Writes an archive that comes as a stream, decompressed, to a file that has no name any more when this returns: it goes when it is
 * closed, however the program ends. Throws what `decompress` throws, DestinationError where the file cannot be written.
 */
export async function spool(
  input: AsyncIterable<Uint8Array>,
  name: string,
  { directory, decompress, signal }: Spooling,
): Promise<FileHandle> {
  const handle = await unnamedFile(directory);
  const readable = input instanceof Readable ? input : Readable.from(input, { objectMode: false });
  try {
    await handle.writeFile(decompress(addAbortSignal(signal, readable), name), { signal });
    return handle;
  } catch (error) {
    await handle.close();
    signal.throwIfAborted();
    throw spoolError(error, directory);
  } finally {
    readable.destroy();
  }
}

async function unnamedFile(directory: string): Promise<FileHandle> {
  const place = path.join(directory, `.dlrootfs-spool-${randomUUID()}`);
  try {
    const handle = await open(place, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      await unlink(place);
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (error) {
    throw spoolError(error, directory);
  }
}

function spoolError(error: unknown, directory: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return error;
  const code = String(error.code);
  return new DestinationError(
    `cannot write a temporary file in ${printable(directory)}: ${printable(code)}`,
    {
      code: code === 'ENOSPC' ? 'DISK_FULL' : 'SPOOL',
      hint: 'a compressed archive, or one on standard input, is unpacked there first: it needs that much space',
      cause: error,
    },
  );
}
