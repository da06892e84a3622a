import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, open, rename, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { kill } from 'node:process';
import type { EntryPlace, OpenDirectory } from './open-directory.ts';
import { hasCode } from './os-error.ts';

/** O_TMPFILE of open(2), for a file without a name. Node does not have it; other systems answer an error. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** Readable by this user alone. */
const MODE = 0o600;

/**
 * Makes a new empty file without a name in a directory, for reading and writing: the kernel frees it however
 * the program ends. On file systems without such files it has a name for a moment.
 *
 * @throws the error of open(2)
 */
export async function namelessFile(directory: OpenDirectory): Promise<FileHandle> {
  // O_EXCL: no process can give it a name later.
  const nameless = open(directory.at('.'), constants.O_RDWR | constants.O_EXCL | O_TMPFILE, MODE);
  return await nameless.catch(() => unlinkedFile(directory));
}

async function unlinkedFile(directory: OpenDirectory): Promise<FileHandle> {
  const name = directory.at(randomName('.dlrootfs-'));
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const handle = await open(name, flags, MODE);
  try {
    await unlink(name);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Returns a unique name that cannot be guessed: `PREFIX` and 24 hexadecimal digits. */
export function randomName(prefix: string): string {
  return prefix + randomBytes(12).toString('hex');
}

/** The bytes of a name that are kept in a hidden one, to which up to 45 of 255 are added. */
const MAX_PREFIX_BYTES = 200;

/** Returns `.NAME` for NAME, cut to 200 bytes: the start of all names that a run makes beside it. */
export function hiddenName(name: string): string {
  const characters = Array.from(name);
  while (Buffer.byteLength(characters.join('')) > MAX_PREFIX_BYTES) characters.pop();
  return `.${characters.join('')}`;
}

/**
 * Returns the names beside an entry that are its hidden name followed by a match of `rest`, each with that
 * match; none if the directory cannot be read.
 */
export function hiddenBeside(
  { directory, name }: EntryPlace,
  rest: RegExp,
): (readonly [name: string, match: RegExpExecArray])[] {
  const start = hiddenName(name);
  return readableNames(directory).flatMap((beside) => {
    const match = beside.startsWith(start) ? rest.exec(beside.slice(start.length)) : null;
    return match ? [[beside, match] as const] : [];
  });
}

function readableNames(directory: OpenDirectory): string[] {
  try {
    return directory.names();
  } catch {
    return [];
  }
}

/** True if a process with this number runs. */
export function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return !hasCode(error, 'ESRCH');
  }
}

/**
 * Writes a file atomically: under another name, which is renamed when the file is complete. A symlink of that
 * name is replaced, not followed.
 *
 * @param options.mode less the umask; default: 0o666
 * @param options.replace replace a file of that name (default); else EEXIST is thrown
 * @param options.workDirectory for the incomplete file, on the same file system; default: the directory of
 * `place`
 * @throws the system's error; nothing is left then
 */
export async function writeFileAtomically(
  { directory, name }: EntryPlace,
  content: string | Uint8Array,
  {
    mode = 0o666,
    replace = true,
    workDirectory = directory,
  }: { readonly mode?: number; readonly replace?: boolean; readonly workDirectory?: OpenDirectory } = {},
): Promise<void> {
  const partial = workDirectory.at(randomName('.dlrootfs-'));
  try {
    await writeFile(partial, content, { flag: 'wx', mode });
    if (replace) return await rename(partial, directory.at(name));
    await link(partial, directory.at(name));
    await unlink(partial);
  } catch (error) {
    await unlink(partial).catch(() => undefined);
    throw error;
  }
}
