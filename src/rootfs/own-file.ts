import { constants } from 'node:os';
import { unlock } from './directory-metadata.ts';
import { type FileStat, granted } from './filesystem.ts';
import type { Run } from './run.ts';

const { EACCES, ENOENT } = constants.errno;

/**
 * Writes a file of ours into the root: new, or in place of the one written before; in overlay mode also in place of the user's file.
 * False, and nothing written, where anything else has the name: an entry of the image, a symlink.
 */
export function writeOwnFile(run: Run, name: string, bytes: Uint8Array): boolean {
  const { filesystem } = run;
  const { root } = filesystem;
  const there = filesystem.stat(root, name);
  if (typeof there === 'number' ? there !== -ENOENT : !isReplaceable(run, name, there.type)) return false;
  if (typeof there !== 'number') granted(filesystem.remove(root, name), `replace ${name}`);
  let file = filesystem.createFile(root, name, 0o644);
  if (file === -EACCES && unlock(run, root)) file = filesystem.createFile(root, name, 0o644);
  granted(file, `create ${name}`);
  try {
    granted(filesystem.write(file, bytes, 0), `write ${name}`);
    granted(filesystem.setMode({ parent: root, name, file }, 0o644), `set the mode of ${name}`);
  } finally {
    filesystem.closeFile(file);
  }
  run.ownFiles.add(name);
  return true;
}

function isReplaceable(run: Run, name: string, type: FileStat['type']): boolean {
  if (type !== 'file') return false;
  return run.ownFiles.has(name) || (run.options.mode === 'overlay' && run.made?.has(name) !== true);
}
