import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { type BytePath, type Entry, type EntryReader, type SparseExtent, displayPath } from '../tar/entry.ts';
import { normalize } from '../tar/layer-path.ts';
import { ExtentCursor, storedSize } from '../tar/sparse.ts';
import { applyDirectoryMetadata, fillingMode, noteRoot, retryUnlocked } from './directory-metadata.ts';
import { applyMetadata, needsOnlyOpenFile, restoreXattrs } from './metadata.ts';
import { nameOf, parentPath, placeIn } from './directories.ts';
import {
  type FileStat,
  type Filesystem,
  type Place,
  type Special,
  granted,
  impossible,
  statusOf,
} from './filesystem.ts';
import { clear, clearObstacle } from './removal.ts';
import { refuseReserved, type Run } from './run.ts';

const { EISDIR, ENOENT, ENOSPC, EPERM } = constants.errno;

/** A file of this many bytes or more is refused before it is written, if the disk has no room for it. */
const LARGE_BYTES = 1024 * 1024;
/** Most obstacles that are removed at one name. If there are more, another process makes them again. */
const MAX_OBSTACLES = 3;
const NONE: readonly number[] = [];

/** The data of an entry; each call returns more of it. */
export type Content = Pick<EntryReader, 'data'>;

/**
 * Puts the entry at `normalPath`, in place of the existing file.
 *
 * @throws IntegrityError for an entry that no file system can hold
 * @throws SyscallError if the system refuses
 */
export function placeEntry(run: Run, content: Content, entry: Entry, normalPath: BytePath): void {
  if (normalPath === '') return placeRoot(run, entry);
  run.mtime = entry;
  const place = placeIn(run.directories.find(parentPath(normalPath), true)!, nameOf(normalPath));
  const { path } = place;
  refuseReserved(run, path);
  let isNew = true;
  let target = '';
  switch (entry.type) {
    case 'file':
      placeFile(run, content, entry, place);
      break;
    case 'directory':
      isNew = placeDirectory(run, entry, place);
      break;
    case 'symlink':
      placeSymlink(run, entry, place);
      break;
    case 'hardlink':
      target = placeHardLink(run, entry, place);
      break;
    default:
      placeSpecial(run, { ...entry, type: entry.type }, place);
  }
  if (target !== path) run.changes?.written(path, entry, target);
  run.written.add(place, isNew);
}

/**
 * Records the root's metadata for the end. An entry of any other type for the root is ignored, as by
 * containerd, and counted.
 */
function placeRoot(run: Run, entry: Entry): void {
  if (entry.type === 'directory') {
    noteRoot(run, entry);
  } else run.counts.ignored += 1;
}

/**
 * Calls `make` until it has made `place`. After each failure it removes the obstacle there.
 *
 * @param expected errors that are returned
 * @returns the result of the last call
 * @throws SyscallError for any other error
 */
function create(run: Run, place: Place, make: () => number, expected = NONE): number {
  let made = make();
  for (let tries = 0; made < 0 && tries < MAX_OBSTACLES; tries += 1) {
    if (!clearObstacle(run, made, place)) break;
    made = make();
  }
  if (made < 0 && !expected.includes(made)) throw new SyscallError(made, `create ${displayPath(place.path)}`);
  return made;
}

/** Makes the directory, or merges with the existing one; returns true if it is new. */
function placeDirectory(run: Run, entry: Entry, place: Place): boolean {
  const { filesystem } = run;
  const { parent, name } = place;
  const mode = fillingMode(entry.mode);
  let existing: FileStat | undefined;
  create(run, place, () => {
    const made = filesystem.makeDirectory(parent, name, mode);
    if (made === 0) return 0;
    const stat = statusOf(filesystem, place);
    if (stat?.type !== 'directory') return made;
    existing = stat;
    return 0;
  });
  applyDirectoryMetadata(run, place, entry, existing);
  return existing === undefined;
}

function placeSymlink(run: Run, entry: Entry, place: Place): void {
  create(run, place, () => run.filesystem.makeSymlink(place.parent, place.name, entry.linkPath));
  applyMetadata(run, place, entry, undefined);
  run.changes?.contents.write(Buffer.from(entry.linkPath, 'latin1'));
}

/**
 * Makes a hard link. Owner, mode and times stay the file's, as with umoci and GNU tar. The attributes of this
 * entry are set.
 *
 * @returns the path of the first name
 */
function placeHardLink(run: Run, entry: Entry, place: Place): BytePath {
  const { filesystem } = run;
  const { parent, name, path } = place;
  const action = `link to ${displayPath(entry.linkPath)}`;
  const target = firstNameOf(run, normalize(entry.linkPath), action);
  if (run.lostDevices.has(target.path)) {
    loseDevice(run, place);
    return target.path;
  }
  if (target.path === path) {
    if (!statusOf(filesystem, place)) throw impossible(ENOENT, action);
    return path;
  }
  // The link would replace the directory that contains its target.
  if (target.path.startsWith(`${path}/`)) throw impossible(ENOENT, action);
  const make = (): number => filesystem.makeLink(target.parent, target.name, parent, name);
  const made = create(run, place, make, [-ENOENT, -EPERM]);
  if (made === -ENOENT) throw impossible(ENOENT, action);
  if (made === -EPERM) throw linkDenied(filesystem, target, action);
  if (entry.xattrs) {
    // A job of an earlier entry may still change the owner, which would remove capabilities.
    run.jobs?.drain();
    restoreXattrs(run, place, entry);
  }
  return target.path;
}

/** Returns the place of a hard link's first name. @throws IntegrityError if it does not exist */
function firstNameOf(run: Run, wanted: BytePath, action: string): Place {
  const place = run.directories.place(wanted, 'find');
  if (!place || wanted === '') throw impossible(ENOENT, action);
  refuseReserved(run, place.path);
  return place;
}

function linkDenied(filesystem: Filesystem, target: Place, action: string): Error {
  if (statusOf(filesystem, target)?.type === 'directory') return impossible(EISDIR, action);
  return new SyscallError(EPERM, action);
}

function placeSpecial(run: Run, entry: Entry & Special, place: Place): void {
  const { parent, name } = place;
  const mode = entry.mode & 0o777;
  const make = (): number => run.filesystem.makeSpecial(parent, name, entry, mode);
  if (create(run, place, make, [-EPERM]) === -EPERM) return loseDevice(run, place);
  applyMetadata(run, place, entry, mode);
}

/** Counts a device that cannot be made, and removes the file that it should replace. */
function loseDevice(run: Run, place: Place): void {
  run.counts.devices += 1;
  run.lostDevices.add(place.path);
  clear(run, place);
}

/** Writes a file entry. @throws as `placeEntry` */
function placeFile(run: Run, content: Content, entry: Entry, place: Place): void {
  const { filesystem, jobs } = run;
  const { parent, name, path } = place;
  const failed = jobs?.failed;
  if (failed) throw failed.failure;
  const openMode = entry.mode & 0o777;
  const file = create(run, place, () => filesystem.createFile(parent, name, openMode));
  try {
    if (entry.sparse) writeSparse(run, file, entry, content, entry.sparse);
    else if (writeContent(run, file, entry, content, path)) return;
    applyMetadata(run, { parent, name, file }, entry, openMode);
  } catch (error) {
    // Waits for the jobs that use this descriptor.
    jobs?.drain();
    filesystem.closeFile(file);
    throw error;
  }
  const closed = filesystem.closeFile(file);
  if (closed < 0) throw new SyscallError(closed, `write ${displayPath(path)}`);
}

/**
 * Writes the content of a file without holes. If no later step needs the file's name, the other thread gets
 * pieces whenever it has time. Once it has one, it also completes the file.
 *
 * @returns whether the other thread completes the file
 */
function writeContent(run: Run, file: number, entry: Entry, content: Content, path: BytePath): boolean {
  const { filesystem, changes } = run;
  const { size } = entry;
  const contents = changes?.contents;
  const jobs = needsOnlyOpenFile(run, entry) ? run.jobs : undefined;
  let shared = false;
  contents?.begin(size);
  refuseTooLarge(filesystem, file, size);
  let position = 0;
  for (let bytes = content.data(); bytes; bytes = content.data()) {
    contents?.add(bytes);
    if (jobs?.open !== true) granted(filesystem.write(file, bytes, position), 'write');
    else if (position + bytes.length === size) {
      jobs.complete(file, bytes, position, entry, path);
      return true;
    } else {
      jobs.write(file, bytes, position, entry, path);
      shared = true;
    }
    position += bytes.length;
  }
  if (!shared && (size > 0 || jobs?.open !== true)) return false;
  jobs!.complete(file, undefined, 0, entry, path);
  return true;
}

/**
 * Writes the content of a sparse file to the new and empty `file`, keeping its holes. `run.changes` gets the
 * holes as zeros.
 */
function writeSparse(
  { filesystem, changes }: Run,
  file: number,
  entry: Entry,
  content: Content,
  extents: readonly SparseExtent[],
): void {
  const { size } = entry;
  const contents = changes?.contents;
  contents?.begin(size);
  // git has no holes: it stores as many bytes as the file has.
  refuseTooLarge(filesystem, file, storedSize(entry) + (contents ? size : 0));
  const cursor = new ExtentCursor(extents);
  /** Position up to which `contents` has the file. */
  let end = 0;
  for (let bytes = content.data(); bytes; bytes = content.data()) {
    for (const { position, part } of cursor.split(bytes)) {
      granted(filesystem.write(file, part, position), 'write');
      contents?.addHole(position - end);
      contents?.add(part);
      end = position + part.length;
    }
  }
  granted(filesystem.truncate(file, size), 'set the size');
  contents?.addHole(size - end);
}

function refuseTooLarge(filesystem: Filesystem, file: number, size: number): void {
  if (size >= LARGE_BYTES && size > filesystem.freeSpace(file))
    throw new SyscallError(ENOSPC, `write ${size} bytes`);
}

/**
 * Writes a file of dlrootfs itself into the root: new, or in place of its earlier version. If the mode is
 * `overlay`, it also replaces the user's file.
 *
 * @returns false, with nothing written, if an entry of the image or a symlink has the name
 * @throws SyscallError
 */
export function writeOwnFile(run: Run, name: string, bytes: Uint8Array): boolean {
  const { filesystem } = run;
  const { root } = filesystem;
  const there = filesystem.stat(root, name);
  if (typeof there === 'number' ? there !== -ENOENT : !mayReplace(run, name, there.type)) return false;
  if (typeof there !== 'number') granted(filesystem.remove(root, name), `replace ${name}`);
  const file = retryUnlocked(run, root, () => filesystem.createFile(root, name, 0o644));
  granted(file, `create ${name}`);
  try {
    granted(filesystem.write(file, bytes, 0), `write ${name}`);
    granted(filesystem.setMode({ parent: root, name, file }, 0o644), `set the mode of ${name}`);
  } finally {
    filesystem.closeFile(file);
  }
  run.written.addOwn(name);
  run.changes?.contents.write(bytes);
  run.changes?.written(name, { type: 'file', mode: 0o644 }, '');
  return true;
}

function mayReplace(run: Run, name: string, type: FileStat['type']): boolean {
  if (type !== 'file') return false;
  return run.written.isOwn(name) || (run.options.mode === 'overlay' && run.written.isMade(name) !== true);
}
