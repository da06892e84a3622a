import { createHash } from 'node:crypto';
import { constants } from 'node:os';
import type { BytePath, Entry, EntryReader } from '../tar/entry.ts';
import { isPseudoLink } from '../tar/layer-path.ts';
import { nameOf, parentPath } from './directories.ts';
import { unlock } from './directory-metadata.ts';
import { type ByteName, type Directory, granted } from './filesystem.ts';
import { placeFile } from './place-file.ts';
import { empty } from './removal.ts';
import type { Run } from './run.ts';
import { randomName } from '../sys/temp-file.ts';

const { EACCES } = constants.errno;

/** Where a layer's pseudo-links are while it is applied, and what the record of changes calls that place: no layer can write there. */
const recorded = '.wh..wh.plnk' as BytePath;

/**
 * Keeps a file of `.wh..wh.plnk/` aside until the layer ends: aufs had files with several names there, and hard links name it, but it is
 * no part of the rootfs (docker does the same).
 */
export function keepPseudoLink(
  run: Run,
  content: Pick<EntryReader, 'data'>,
  entry: Entry,
  path: BytePath,
): void {
  const parent = (run.pseudoLinks ??= makePlace(run));
  const name = nameFor(path);
  run.filesystem.remove(parent, name);
  placeFile(run, content, entry, parent, name, path);
  run.changes?.written(pathIn(name), entry, '');
}

/** The file that is kept under a link's target; undefined where the target is no pseudo-link, or none of this layer. */
export function findPseudoLink(
  run: Run,
  target: BytePath,
): { readonly parent: Directory; readonly name: ByteName; readonly path: BytePath } | undefined {
  const parent = run.pseudoLinks;
  if (!parent || !isPseudoLink(target)) return undefined;
  const name = nameFor(target);
  return typeof run.filesystem.stat(parent, name) === 'number'
    ? undefined
    : { parent, name, path: pathIn(name) };
}

/** What the record of changes calls a path. */
export function recordedPath(run: Run, path: BytePath): BytePath {
  return run.pseudoLinks && parentPath(path) === run.pseudoLinks.path ? pathIn(nameOf(path)) : path;
}

/** Removes all that was kept aside: what has other names by now stays under those. */
export function dropPseudoLinks(run: Run): void {
  const place = run.pseudoLinks;
  if (!place) return;
  run.pseudoLinks = undefined;
  empty(run, place, place, 0);
  run.filesystem.closeDirectory(place);
  granted(run.filesystem.removeDirectory(run.filesystem.root, place.path), 'remove a temporary directory');
  run.changes?.removed(recorded);
}

/** A directory at the root under a name that no layer can guess. */
function makePlace(run: Run): Directory {
  const { filesystem } = run;
  const { root } = filesystem;
  const name = randomName('.dlrootfs-links-');
  let made = filesystem.makeDirectory(root, name, 0o700);
  if (made === -EACCES && unlock(run, root)) made = filesystem.makeDirectory(root, name, 0o700);
  granted(made, 'make a temporary directory');
  granted(filesystem.setMode({ parent: root, name, file: -1 }, 0o700), 'set the mode');
  const handle = granted(filesystem.openDirectory(root, name), 'open a temporary directory');
  run.changes?.made(recorded, 0o700, 0, 0);
  return { path: name as BytePath, handle };
}

/** However long the path, and however many there are. */
function nameFor(path: BytePath): ByteName {
  return createHash('sha256').update(path, 'latin1').digest('hex');
}

function pathIn(name: ByteName): BytePath {
  return `${recorded}/${name}` as BytePath;
}
