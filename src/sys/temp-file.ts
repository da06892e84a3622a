import { randomBytes } from 'node:crypto';
import { constants, renameSync } from 'node:fs';
import { link, open, readdir, rename, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { kill } from 'node:process';
import type { EntryPlace, OpenDirectory } from './open-directory.ts';
import { hasCode } from './os-error.ts';
import { osPath, pathBytes, pathText } from './os-path.ts';
import { AT_FDCWD, RENAME_EXCHANGE, systemCalls } from './system-calls.ts';

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
  const nameless = open(directory.at('.'), constants.O_RDWR | O_TMPFILE, MODE);
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

/** `.NAME` for a path that ends in NAME, cut to 200 bytes: so begin the names of files and directories that a run has beside it. */
export function hiddenName(target: string): string {
  const characters = Array.from(path.basename(target));
  while (Buffer.byteLength(characters.join('')) > LONGEST_PREFIX) characters.pop();
  return `.${characters.join('')}`;
}

/** Paths beside `target` whose names are its hidden name and what `rest` matches, each with that match. */
export async function hiddenBeside(
  target: string,
  rest: RegExp,
): Promise<(readonly [path: string, match: RegExpExecArray])[]> {
  const directory = path.dirname(target);
  const start = hiddenName(target);
  const names = await readdir(osPath(directory), { encoding: 'buffer' }).catch(() => []);
  return names.flatMap((bytes) => {
    const name = pathText(bytes);
    const match = name.startsWith(start) ? rest.exec(name.slice(start.length)) : null;
    return match ? [[path.join(directory, name), match] as const] : [];
  });
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

/** Tries where others put directories of their own at the same name. */
const TRIES = 10;

/**
 * Replaces a directory by another one beside it: in one step where the system can (renameat2(2)). Else the old one is moved aside first,
 * and back where the new one cannot be put there; a process that is killed between these two steps leaves the old one aside.
 *
 * @param aside a name beside them for the old one; if the name exists, a number is appended
 * @returns the path of the old one, and of what other processes put in its place during the exchange
 * @throws what rename(2) says; then both have the names they had
 */
export function replaceDirectory(stage: string, directory: string, aside: string): string[] {
  if (isExchanged(stage, directory)) return [stage];
  const moved: string[] = [];
  for (let tries = 1; ; tries += 1) {
    const place = tries === 1 ? aside : `${aside}${tries}`;
    try {
      renameSync(osPath(directory), osPath(place));
      moved.push(place);
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
    try {
      renameSync(osPath(stage), osPath(directory));
      return moved;
    } catch (error) {
      if (tries < TRIES && hasCode(error, 'ENOTEMPTY', 'EEXIST')) continue;
      const last = moved.at(-1);
      if (last !== undefined) renameSync(osPath(last), osPath(directory));
      throw error;
    }
  }
}

function isExchanged(one: string, other: string): boolean {
  const calls = systemCalls();
  if (!calls) return false;
  const first = pathBytes(one);
  const names = Buffer.concat([first, Buffer.of(0), pathBytes(other), Buffer.of(0)]);
  const address = calls.address(names);
  const second = address + first.length + 1;
  const answer = calls.renameat2(AT_FDCWD, address, AT_FDCWD, second, RENAME_EXCHANGE);
  // `names` is used until here: nothing may free it before.
  return answer === 0 && names.length > 0;
}
