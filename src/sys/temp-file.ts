import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

/** A file that never has a name: open(2). Node has no word for it; other systems answer an error. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** Readable by this user alone. */
const MODE = 0o600;

/**
 * A new empty file without a name in an existing directory, for reading and writing: the kernel frees it however the program ends.
 * File systems without such files give it a name for a moment.
 *
 * @throws what open(2) says
 */
export async function namelessFile(directory: string): Promise<FileHandle> {
  const nameless = open(directory, constants.O_RDWR | O_TMPFILE, MODE);
  return await nameless.catch(() => unlinkedFile(directory));
}

async function unlinkedFile(directory: string): Promise<FileHandle> {
  const name = path.join(directory, randomName('.dlrootfs-'));
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
