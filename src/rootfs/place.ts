import { constants } from 'node:os';
import { type BytePath, type Entry, type EntryReader, displayPath } from '../tar/entry.ts';
import { normalize } from '../tar/layer-path.ts';
import {
  applyDirectoryMetadata,
  fillingMode,
  mergeDirectoryMetadata,
  noteDirectory,
} from './directory-metadata.ts';
import { join, nameOf, parentPath } from './directories.ts';
import { type ByteName, type Directory, type FileStat, type Filesystem, impossible } from './filesystem.ts';
import { applyMetadata, namesInLists, restoreXattrs } from './metadata.ts';
import { makeInPlace, placeFile } from './place-file.ts';
import { findPseudoLink } from './pseudo-links.ts';
import { SyscallError } from '../sys/os-error.ts';
import { clear } from './removal.ts';
import { markWritten, refuseReserved, type Run } from './run.ts';

const { EISDIR, ENOENT, EPERM } = constants.errno;

/** Puts the entry at `normalPath`, in place of what is there. */
export function placeEntry(
  run: Run,
  content: Pick<EntryReader, 'data'>,
  entry: Entry,
  normalPath: BytePath,
): void {
  if (normalPath === '') return placeRoot(run, entry);
  run.mtimeSeconds = entry.mtimeSeconds;
  run.mtimeNanoseconds = entry.mtimeNanoseconds;
  const parent = run.directories.find(parentPath(normalPath), true)!;
  const name = nameOf(normalPath);
  const path = join(parent.path, name);
  refuseReserved(run, path);
  // A hard link to itself changes nothing.
  if (entry.type !== 'hardlink') run.namedLists.delete(path);
  let isNew = true;
  let target = '';
  switch (entry.type) {
    case 'file':
      placeFile(run, content, entry, parent, name, path);
      break;
    case 'directory':
      isNew = placeDirectory(run, entry, parent, name, path);
      break;
    case 'symlink':
      placeSymlink(run, entry, parent, name, path);
      break;
    case 'hardlink':
      target = placeHardLink(run, entry, parent, name, path);
      break;
    case 'character':
    case 'block':
    case 'fifo':
      placeSpecial(run, entry, entry.type, parent, name, path);
      break;
  }
  if (target !== path) run.changes?.written(path, entry, target);
  markWritten(run, parent, path, isNew);
}

/** The root takes metadata only, at the end; what would make it something else is left out and counted, as containerd leaves it out. */
function placeRoot(run: Run, entry: Entry): void {
  if (entry.type === 'directory') {
    run.rootEntry = entry;
    if (namesInLists(entry)) run.namedLists.set('' as BytePath, entry);
    else run.namedLists.delete('' as BytePath);
    run.changes?.written('', entry, '');
  } else run.counts.ignored += 1;
}

/** Makes the directory, or merges with the one that is there; returns whether it is new. */
function placeDirectory(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): boolean {
  const { filesystem } = run;
  const mode = fillingMode(run, entry.mode);
  let existing: FileStat | undefined;
  const made = makeInPlace(run, parent, path, name, () => {
    const answer = filesystem.makeDirectory(parent, name, mode);
    if (answer === 0) return 0;
    const stat = filesystem.stat(parent, name);
    if (typeof stat === 'number' || stat.type !== 'directory') return answer;
    existing = stat;
    return 0;
  });
  if (made < 0) throw new SyscallError(made, `create ${displayPath(path)}`);
  const ownMode = existing
    ? mergeDirectoryMetadata(run, parent, name, entry, existing)
    : applyDirectoryMetadata(run, parent, name, entry);
  noteDirectory(run, path, ownMode, entry.mtimeSeconds, entry.mtimeNanoseconds);
  return existing === undefined;
}

function placeSymlink(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): void {
  const make = (): number => run.filesystem.makeSymlink(parent, name, entry.linkPath);
  const made = makeInPlace(run, parent, path, name, make);
  if (made < 0) throw new SyscallError(made, `create ${displayPath(path)}`);
  applyMetadata(run, { parent, name, file: -1 }, entry, undefined);
  run.contents?.write(Buffer.from(entry.linkPath, 'latin1'));
}

/**
 * A second name. Owner, mode and times are the file's, not this entry's (as umoci and GNU tar); attributes are set again. Answers
 * the path of the first name.
 */
function placeHardLink(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): BytePath {
  const { filesystem } = run;
  const wanted = normalize(entry.linkPath);
  const action = `link to ${displayPath(entry.linkPath)}`;
  const { parent: targetParent, name: targetName, path: target } = linkTarget(run, wanted, action);
  if (run.lostDevices.has(target)) {
    loseDevice(run, parent, name, path);
    return target;
  }
  if (target === path) {
    if (typeof filesystem.stat(parent, name) === 'number') throw impossible(ENOENT, action);
    return target;
  }
  // The directory that the link replaces would be gone first, and its target with it.
  if (target.startsWith(`${path}/`)) throw impossible(ENOENT, action);
  const make = (): number => filesystem.makeLink(targetParent, targetName, parent, name);
  const made = makeInPlace(run, parent, path, name, make);
  if (made === -ENOENT) throw impossible(ENOENT, action);
  if (made === -EPERM) throw linkDenied(filesystem, targetParent, targetName, action);
  if (made < 0) throw new SyscallError(made, `create ${displayPath(path)}`);
  // The file may lose the name under which its access list waits.
  const waiting = run.namedLists.get(target);
  if (waiting) run.namedLists.set(path, waiting);
  else run.namedLists.delete(path);
  if (entry.xattrs) {
    // A change of owner that is yet to come would remove capabilities.
    run.jobs?.settle();
    restoreXattrs(run, { parent, name, file: -1 }, entry);
  }
  return target;
}

/** Where the first name of a hard link is. */
function linkTarget(
  run: Run,
  wanted: BytePath,
  action: string,
): { parent: Directory; name: ByteName; path: BytePath } {
  const kept = findPseudoLink(run, wanted);
  if (kept) return kept;
  const parent = run.directories.find(parentPath(wanted), false);
  if (!parent || wanted === '') throw impossible(ENOENT, action);
  const name = nameOf(wanted);
  const path = join(parent.path, name);
  refuseReserved(run, path);
  return { parent, name, path };
}

function linkDenied(filesystem: Filesystem, parent: Directory, name: ByteName, action: string): Error {
  const stat = filesystem.stat(parent, name);
  if (typeof stat !== 'number' && stat.type === 'directory') return impossible(EISDIR, action);
  return new SyscallError(EPERM, action);
}

function placeSpecial(
  run: Run,
  entry: Entry,
  type: 'character' | 'block' | 'fifo',
  parent: Directory,
  name: ByteName,
  path: BytePath,
): void {
  const { deviceMajor, deviceMinor } = entry;
  const mode = entry.mode & 0o777;
  const make = (): number => run.filesystem.makeSpecial(parent, name, type, mode, deviceMajor, deviceMinor);
  const made = makeInPlace(run, parent, path, name, make);
  if (made === -EPERM) return loseDevice(run, parent, name, path);
  if (made < 0) throw new SyscallError(made, `create ${displayPath(path)}`);
  applyMetadata(run, { parent, name, file: -1 }, entry, mode);
}

/** The device cannot be made, and what it should replace must not stay in its place. */
function loseDevice(run: Run, parent: Directory, name: ByteName, path: BytePath): void {
  run.counts.devices += 1;
  run.lostDevices.add(path);
  clear(run, parent, name, path);
}
