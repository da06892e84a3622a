import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { osPath } from '../sys/os-path.ts';

const CHUNK_BYTES = 1024 * 1024;

/** Opens a file for reading, and never waits for the other end of a pipe. Throws NotFoundError when it is none. */
export async function openRegular(path: string): Promise<{ handle: FileHandle; size: number }> {
  const handle = await open(osPath(path), constants.O_RDONLY | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      throw sourceError(error, path);
    },
  );
  const status = await handle.stat();
  if (status.isFile()) return { handle, size: status.size };
  await handle.close();
  throw new NotFoundError(
    `${printable(path)} is ${status.isDirectory() ? 'a directory' : 'no regular file'}`,
    {
      code: 'SOURCE_UNREADABLE',
      hint: status.isDirectory()
        ? `for an OCI layout in a directory write oci:${printable(path)}`
        : 'to read an archive from a pipe write - and connect the pipe to standard input',
    },
  );
}

/** The bytes of an open file from `start` up to `end`; throws IntegrityError when the file ends before. */
export async function* readRange(
  handle: FileHandle,
  start: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let position = start; position < end;) {
    signal.throwIfAborted();
    const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - position));
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) throw new IntegrityError(`a file became shorter while it was read`);
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

/** What a failed system call on a source means to its user; other errors come back as they are. */
export function sourceError(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return error;
  const name = printable(path);
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new NotFoundError(`there is no ${name}`, {
        code: 'SOURCE_NOT_FOUND',
        hint: 'check the path; it ends at the next colon, behind which a tag stands',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new NotFoundError(`${name} cannot be read: permission denied`, {
        code: 'SOURCE_UNREADABLE',
        hint: 'change its permissions, or run as a user who may read it',
        cause: error,
      });
    default:
      return new NotFoundError(`${name} cannot be read: ${printable(String(error.code))}`, {
        code: 'SOURCE_UNREADABLE',
        hint: 'see whether the file can be read otherwise, and what the kernel says of its disk (dmesg)',
        cause: error,
      });
  }
}
