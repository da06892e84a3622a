import {
  constants,
  copyFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
} from 'node:fs';
import path from 'node:path';

/** What belongs to one work tree or to one process. */
const passing = /^index$|\.lock$|^tmp_|^dlrootfs-/;

/** Copies a repository. Objects never change, so that they may be shared by hard links; git replaces all other files it writes. */
export function copyRepository(from: string, to: string): void {
  copyDirectory(from, to, false);
}

function copyDirectory(from: string, to: string, objects: boolean): void {
  mkdirSync(to, { mode: 0o755 });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (passing.test(entry.name)) continue;
    const [source, copy] = [path.join(from, entry.name), path.join(to, entry.name)];
    if (entry.isDirectory()) copyDirectory(source, copy, objects || entry.name === 'objects');
    else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(source), copy);
    else if (entry.isFile() && !(objects && isLinked(source, copy)))
      copyFileSync(source, copy, constants.COPYFILE_EXCL);
  }
}

function isLinked(source: string, copy: string): boolean {
  try {
    linkSync(source, copy);
    return true;
  } catch {
    return false;
  }
}
