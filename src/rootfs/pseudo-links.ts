import { createHash } from 'node:crypto';
import type { BytePath } from '../tar/entry.ts';
import { isPseudoLink } from '../tar/layer-path.ts';
import { randomName } from '../sys/temp-file.ts';
import { nameOf, parentPath, placeIn } from './directories.ts';
import { retryUnlocked } from './directory-metadata.ts';
import { type ByteName, type Directory, type Place, granted } from './filesystem.ts';
import { empty } from './removal.ts';
import type { Run } from './run.ts';

/** Where a layer's pseudo-links are while it is applied, and what the record of changes calls that place: no layer can write there. */
const recorded = '.wh..wh.plnk' as BytePath;

/**
 * Where a file of `.wh..wh.plnk/` is kept until the layer ends: aufs had files with several names there, and hard links name it, but it is
 * no part of the rootfs (docker does the same).
 */
export function pseudoLinkPlace(run: Run, path: BytePath): Place {
  const parent = (run.pseudoLinks ??= makeDirectory(run));
  const name = nameFor(path);
  run.filesystem.remove(parent, name);
  return { parent, name, file: -1, path };
}

/** The file that is kept under a link's target; undefined where the target is no pseudo-link, or none of this layer. */
export function findPseudoLink(run: Run, target: BytePath): Place | undefined {
  const parent = run.pseudoLinks;
  if (!parent || !isPseudoLink(target)) return undefined;
  const name = nameFor(target);
  if (typeof run.filesystem.stat(parent, name) === 'number') return undefined;
  return { parent, name, file: -1, path: pathIn(name) };
}

/** What the record of changes calls a path. */
export function recordedPath({ pseudoLinks }: Run, path: BytePath): BytePath {
  return parentPath(path) === pseudoLinks?.path ? pathIn(nameOf(path)) : path;
}

/** Removes the files that were kept; those with other names by now stay under these. @throws SyscallError */
export function dropPseudoLinks(run: Run): void {
  const place = run.pseudoLinks;
  if (!place) return;
  run.pseudoLinks = undefined;
  empty(run, place);
  run.filesystem.closeDirectory(place);
  granted(run.filesystem.removeDirectory(run.filesystem.root, place.path), 'remove a temporary directory');
  run.changes?.removed(recorded);
}

/** A directory at the root under a name that no layer can guess. */
function makeDirectory(run: Run): Directory {
  const { filesystem } = run;
  const { root } = filesystem;
  const name = randomName('.dlrootfs-links-');
  const made = retryUnlocked(run, root, () => filesystem.makeDirectory(root, name, 0o700));
  granted(made, 'make a temporary directory');
  granted(filesystem.setMode(placeIn(root, name), 0o700), 'set the mode');
  const handle = granted(filesystem.openDirectory(root, name), 'open a temporary directory');
  run.changes?.made(recorded, 0o700, { mtimeSeconds: 0, mtimeNanoseconds: 0 });
  return { path: name as BytePath, handle };
}

/** However long the path, and however many there are. */
function nameFor(path: BytePath): ByteName {
  return createHash('sha256').update(path, 'latin1').digest('hex');
}

/** What the record of changes calls a file that is kept. */
function pathIn(name: ByteName): BytePath {
  return `${recorded}/${name}` as BytePath;
}
