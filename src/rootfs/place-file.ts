import type { BytePath, Entry, EntryReader } from '../tar/entry.ts';
import { writeFile } from './file.ts';
import type { ByteName, Directory } from './filesystem.ts';
import { dress } from './metadata.ts';
import { shown } from './refusal.ts';
import { SyscallError } from '../sys/os-error.ts';
import { makeWay } from './removal.ts';
import type { Run } from './run.ts';

/** Writes a file entry as `name` in `parent`; `path` is what messages and the record of changes call it. */
export function placeFile(
  run: Run,
  content: Pick<EntryReader, 'data'>,
  entry: Entry,
  parent: Directory,
  name: ByteName,
  path: BytePath,
): void {
  const { filesystem } = run;
  const openMode = entry.mode & 0o777;
  let file = filesystem.createFile(parent, name, openMode);
  for (let tries = 0; file < 0; tries++) {
    makeWay(run, file, tries, parent, path, name);
    file = filesystem.createFile(parent, name, openMode);
  }
  try {
    writeFile(filesystem, file, entry, content, run.contents);
    dress(run, { parent, name, file }, entry, openMode);
  } catch (error) {
    filesystem.closeFile(file);
    throw error;
  }
  const closed = filesystem.closeFile(file);
  if (closed < 0) throw new SyscallError(closed, `write ${shown(path)}`);
}
