import { GitError } from '../errors.ts';
import { fstatSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { PULL_AGAIN, type RootfsFiles } from './rootfs-files.ts';
import type { Yielder } from '../sys/yielder.ts';
import { parentPath } from '../rootfs/directories.ts';

/** What belongs to one work tree or to one process. */
const passing = /^index$|\.lock$|^tmp_|^dlrootfs-/;
/** Of a file that is no object, in bytes: beyond it a repository is an attack. */
const LARGEST_COPY = 256 * 1024 * 1024;
const COPY_SIZE = 1024 * 1024;

/**
 * Copies a repository, byte for byte, into a rootfs that has none: all its directories, regular files and symlinks, of which none is
 * followed. Objects never change, so that they may be shared by hard links; git replaces all other files it writes.
 *
 * @throws GitError, the reason of the signal
 */
export async function copyRepository(from: RootfsFiles, to: RootfsFiles, yielder: Yielder): Promise<void> {
  const waiting = ['.git'];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    to.makeDirectory(directory);
    for (const name of from.list(directory)) {
      if (passing.test(name)) continue;
      const path = `${directory}/${name}`;
      const type = from.stat(path)?.type;
      if (type === 'directory') waiting.push(path);
      else if (type === 'symlink') copySymlink(from, to, path, name);
      else if (type === 'file' && !(path.startsWith('.git/objects/') && isLinked(from, to, path, name)))
        await copyFile(from, to, path, name, yielder);
      if (yielder.isDue()) await yielder.pause();
    }
  }
}

function copySymlink(from: RootfsFiles, to: RootfsFiles, path: string, name: string): void {
  const [parent, copy] = [from.directory(parentPath(path)), to.directory(parentPath(path))];
  const target = parent && from.filesystem.readLink(parent, name);
  if (copy && typeof target === 'string') to.filesystem.makeSymlink(copy, name, target);
}

function isLinked(from: RootfsFiles, to: RootfsFiles, path: string, name: string): boolean {
  const [parent, copy] = [from.directory(parentPath(path)), to.directory(parentPath(path))];
  return parent !== undefined && copy !== undefined && to.filesystem.makeLink(parent, name, copy, name) === 0;
}

async function copyFile(
  from: RootfsFiles,
  to: RootfsFiles,
  path: string,
  name: string,
  yielder: Yielder,
): Promise<void> {
  const source = from.open(path);
  const parent = to.directory(parentPath(path));
  if (source === undefined || !parent) return;
  const { size } = fstatSync(source);
  if (!path.startsWith('.git/objects/') && size > LARGEST_COPY) {
    from.filesystem.closeFile(source);
    throw new GitError(`cannot copy ${from.place(path)}: it has ${size} bytes, more than ${LARGEST_COPY}`, {
      code: 'GIT_DAMAGED',
      hint: PULL_AGAIN,
    });
  }
  const copy = to.filesystem.createFile(parent, name, 0o644);
  const buffer = Buffer.allocUnsafe(COPY_SIZE);
  let result = copy;
  try {
    let position = 0;
    for (let count = -1; result >= 0 && count !== 0; position += count) {
      count = readSync(source, buffer, 0, COPY_SIZE, position);
      result = to.filesystem.write(copy, buffer.subarray(0, count), position);
      await yielder.pause();
    }
  } finally {
    from.filesystem.closeFile(source);
    if (copy >= 0) result = Math.min(result, to.filesystem.closeFile(copy));
  }
  if (result < 0 && result !== -constants.errno.EEXIST)
    throw new SyscallError(result, `write ${to.place(path)}`);
}
