import { renameSync } from 'node:fs';
import { link, open, rename, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { randomName } from './temp-file.ts';
import { hasCode } from './os-error.ts';
import { osPath, pathBytes } from './os-path.ts';
import { AT_FDCWD, RENAME_EXCHANGE, systemCalls } from './system-calls.ts';

/**
 * A file that appears whole or not at all: it is written under another name in the same directory, and gets its own when it is complete. A
 * symlink at its path is replaced, not followed.
 */
class AtomicFile {
  readonly handle: FileHandle;
  readonly #path: string;
  readonly #partial: string;

  private constructor(handle: FileHandle, name: string, partial: string) {
    this.handle = handle;
    this.#path = name;
    this.#partial = partial;
  }

  /**
   * @param mode less the umask
   * @throws what open(2) says
   */
  static async create(name: string, mode = 0o666, workDirectory = path.dirname(name)): Promise<AtomicFile> {
    const partial = path.join(workDirectory, randomName('.dlrootfs-'));
    return new AtomicFile(await open(osPath(partial), 'wx', mode), name, partial);
  }

  /**
   * Closes the file and gives it its name.
   *
   * @param replace whether what has the name goes; if not, it stays and EEXIST is thrown
   * @throws what close(2), rename(2) or link(2) say; then `discard` is still to be called
   */
  async commit(replace: boolean): Promise<void> {
    await this.handle.close();
    if (replace) return await rename(osPath(this.#partial), osPath(this.#path));
    await link(osPath(this.#partial), osPath(this.#path));
    await unlink(osPath(this.#partial));
  }

  /**
   * Removes what was written.
   *
   * @throws nothing
   */
  async discard(): Promise<void> {
    await this.handle.close().catch(() => undefined);
    await unlink(osPath(this.#partial)).catch(() => undefined);
  }
}

/**
 * Puts a whole file at a path, at once.
 *
 * @param options.mode less the umask; 0o666 where it is left out
 * @param options.replace whether what has the name goes (default); if not, EEXIST is thrown
 * @param options.workDirectory where the incomplete file is, on the same file system; that of the path where it is left out
 * @throws what the system says; nothing is left then
 */
export async function writeFileAtomically(
  name: string,
  content: string | Uint8Array,
  {
    mode,
    replace = true,
    workDirectory,
  }: { readonly mode?: number; readonly replace?: boolean; readonly workDirectory?: string } = {},
): Promise<void> {
  const file = await AtomicFile.create(name, mode, workDirectory);
  try {
    await file.handle.writeFile(content);
    await file.commit(replace);
  } catch (error) {
    await file.discard();
    throw error;
  }
}

/** Tries where others put directories of their own at the same name. */
const TRIES = 10;

/**
 * Replaces a directory by another one beside it: in one step where the system can (renameat2(2)). Else the old one is moved aside first,
 * and back where the new one cannot be put there; a process that is killed between these two steps leaves the old one aside.
 *
 * @param aside a name beside them for the old one; a number is put behind it where it is taken
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
