import { constants, type Stats } from 'node:fs';
import { lstat, mkdir, open, stat, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { geteuid } from 'node:process';

/** Modes of what is made here: nobody else's business. */
export const DIRECTORY_MODE = 0o700;
export const FILE_MODE = 0o600;
const WRITABLE_BY_OTHERS = 0o022;

/** Why the store must not use a directory, for people, or undefined when it may: it must be ours and nobody else may write there. */
function faultOf(stats: Stats): string | undefined {
  if (!stats.isDirectory()) return 'is not a directory';
  const me = geteuid?.();
  if (me !== undefined && stats.uid !== me) return `belongs to user ${stats.uid}, not to user ${me}`;
  if ((stats.mode & WRITABLE_BY_OTHERS) !== 0) return 'can be written by others';
  return undefined;
}

/** Makes the directory and what leads to it, where it is missing. Throws an Error that says why it cannot be used. */
export async function trustedDirectory(path: string): Promise<void> {
  await makeDirectories(path);
  const fault = faultOf(await stat(path));
  if (fault !== undefined) throw new Error(`${path} ${fault}`);
}

/** Makes a directory and what is missing above it. Node's recursive mkdir calls a read-only or failing disk ENOENT. */
async function makeDirectories(path: string): Promise<void> {
  const make = () =>
    mkdir(path, { mode: DIRECTORY_MODE }).then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error,
    );
  let failure = await make();
  if (failure?.code === 'ENOENT' && dirname(path) !== path) {
    await makeDirectories(dirname(path));
    failure = await make();
  }
  // What is there is looked at by the caller.
  if (failure && failure.code !== 'EEXIST' && failure.code !== 'EISDIR') throw failure;
}

/** The same for a directory inside a trusted one: a link in its place is not followed. */
export async function trustedSubdirectory(path: string): Promise<void> {
  await mkdir(path, { mode: DIRECTORY_MODE }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const fault = faultOf(await lstat(path));
  if (fault !== undefined) throw new Error(`${path} ${fault}`);
}

/**
 * Opens a file in a trusted directory, or answers undefined when there is none or what stands there is not a plain file of ours
 * with one name. Throws other errors of open(2).
 */
export async function openTrusted(path: string, flags: number): Promise<FileHandle | undefined> {
  const handle = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, FILE_MODE).catch(
    (error: NodeJS.ErrnoException) => {
      if (['ENOENT', 'ELOOP', 'EISDIR', 'ENXIO', 'ENOTDIR'].includes(error.code ?? '')) return undefined;
      throw error;
    },
  );
  if (!handle) return undefined;
  const stats = await handle.stat();
  const me = geteuid?.();
  if (stats.isFile() && stats.nlink <= 1 && (me === undefined || stats.uid === me)) return handle;
  await handle.close();
  return undefined;
}
