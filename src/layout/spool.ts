import type { FileHandle } from 'node:fs/promises';
import { Readable, addAbortSignal } from 'node:stream';
import { DestinationError, printable } from '../errors.ts';
import type { Decompress } from '../oci/compression.ts';

/** Makes a new empty file without a name in a directory; throws the system's errors. */
export type NamelessFile = (directory: string) => Promise<FileHandle>;

/** What an archive needs that cannot be read where it is. */
export interface Spooling {
  /** The file lies there. */
  readonly directory: string;
  readonly decompress: Decompress;
  readonly namelessFile: NamelessFile;
  readonly signal: AbortSignal;
}

/**
 * Writes an archive that comes as a stream, decompressed, to a file that has no name: it goes when it is closed, however
 * the program ends. Throws what `decompress` throws, DestinationError where the file cannot be written.
 */
export async function spool(
  input: AsyncIterable<Uint8Array>,
  name: string,
  { directory, decompress, namelessFile, signal }: Spooling,
): Promise<FileHandle> {
  const handle = await namelessFile(directory).catch((error: unknown) => {
    throw spoolError(error, directory);
  });
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
