import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, open, rename, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { kill } from 'node:process';
import type { EntryPlace, OpenDirectory } from './open-directory.ts';
import { hasCode } from './os-error.ts';

/** A file that never has a name: open(2). Node has no word for it; other systems answer an error. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** Readable by this user alone. */
const MODE = 0o600;

/**
 * A new empty file without a name in a directory, for reading and writing: the kernel frees it however the program ends.
 * File systems without such files give it a name for a moment.
 *
 * @throws what open(2) says
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

/** A name that is unique and cannot be guessed: `PREFIX` and 24 hexadecimal digits. */
export function randomName(prefix: string): string {
  return prefix + randomBytes(12).toString('hex');
}

/** Bytes of a name that fit into a hidden one: up to 45 of 255 are added. */
const LONGEST_PREFIX = 200;

/** `.NAME` for a NAME, cut to 200 bytes: so begin the names of files and directories that a run has beside it. */
export function hiddenName(name: string): string {
  const characters = Array.from(name);
  while (Buffer.byteLength(characters.join('')) > LONGEST_PREFIX) characters.pop();
  return `.${characters.join('')}`;
}

/** Names beside an entry that are its hidden name and what `rest` matches, each with that match. None where the directory cannot be read. */
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

/** Whether the process runs that has left its number in a file or a name. */
export function isAlive(process: number): boolean {
  try {
    kill(process, 0);
    return true;
  } catch (error) {
    return !hasCode(error, 'ESRCH');
  }
}

/**
 * Gives a directory a whole file at once: it is written under another name, and gets its own when it is complete. A symlink of that name
 * is replaced, not followed.
 *
 * @param options.mode less the umask; 0o666 by default
 * @param options.replace whether it replaces a file of that name (default); if not, EEXIST is thrown
 * @param options.workDirectory where the incomplete file is, on the same file system; by default the directory of its place
 * @throws what the system says; nothing is left then
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
