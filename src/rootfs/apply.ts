import { constants } from 'node:os';
import { IntegrityError } from '../errors.ts';
import type { BytePath, Entry, EntryReader } from '../tar/entry.ts';
import { classify, normalize } from '../tar/layer-path.ts';
import { ChangeLog } from './changes.ts';
import { dressExisting, dressNew, fillingMode, makeMissing, noteDirectory, unlock } from './directory.ts';
import { Directories, join, parentPath } from './directories.ts';
import { DirectoryLog } from './directory-log.ts';
import { writeFile } from './file.ts';
import type { ByteName, Directory, Filesystem, Node } from './filesystem.ts';
import {
  isModeDoubtful,
  newOwner,
  permittedMode,
  removeInherited,
  restoreOwner,
  restoreTimes,
  restoreXattrs,
} from './metadata.ts';
import { nothingLost } from './not-restored.ts';
import { PathSet } from './path-set.ts';
import { carefulCreator, probe } from './probe.ts';
import { Refusal, shown } from './refusal.ts';
import { clear, hide, hideContent, makeWay } from './removal.ts';
import { isReserved, markWritten } from './run.ts';
import type { Run, RunOptions } from './run.ts';

const { EINVAL, EISDIR, ENOENT, EPERM } = constants.errno;

/** Begins a run on the root of `filesystem`: empty, unless `options.overlay` says that it holds files of the user's. */
export function startRun(filesystem: Filesystem, options: RunOptions): Run {
  const creator = options.overlay ? carefulCreator : probe(filesystem);
  const run: Run = {
    filesystem,
    directories: new Directories(filesystem, {
      make: (parent, name) => makeMissing(run, parent, name),
      unlock: (directory) => unlock(run, directory),
    }),
    options,
    creator: { ...creator },
    counts: nothingLost(),
    log: new DirectoryLog(),
    lateModes: new PathSet(),
    layer: new PathSet(),
    made: options.overlay || creator.caseInsensitive ? new PathSet() : undefined,
    lostDevices: new PathSet(),
    directoryXattrs: new Set(),
    changes: options.recordChanges ? new ChangeLog() : undefined,
    ownFiles: new Set(),
    firstLayer: true,
    rootEntry: undefined,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    marked: undefined,
  };
  return run;
}

/**
 * Applies one layer on what is there, by OCI's rules (image-spec, layer.md). When it throws, the tree is neither the one before nor the
 * one after.
 *
 * @param onEntry told of each entry before it is applied: what an error is about
 * @returns the number of entries
 */
export function applyLayer(
  run: Run,
  reader: EntryReader,
  onEntry: (entry: Entry | undefined) => void,
): number {
  let entries = 0;
  for (let entry = reader.next(); entry; entry = reader.next()) {
    onEntry(entry);
    run.directories.trim();
    applyEntry(run, reader, entry);
    onEntry(undefined);
    entries++;
  }
  run.layer.clear();
  run.marked = undefined;
  run.firstLayer = false;
  return entries;
}

function applyEntry(run: Run, reader: EntryReader, entry: Entry): void {
  const meaning = classify(entry.path);
  switch (meaning.kind) {
    case 'entry':
      return placeEntry(run, reader, entry, meaning.path);
    case 'whiteout':
      return applyWhiteout(run, meaning.path);
    case 'opaque':
      return applyOpaque(run, meaning.path);
    case 'aufs':
      return undefined;
  }
}

function applyWhiteout(run: Run, hidden: BytePath): void {
  if (run.firstLayer) return;
  const above = parentPath(hidden);
  const parent = run.directories.find(above, false);
  if (parent) hide(run, parent, nameOf(hidden), join(parent.path, nameOf(hidden)));
}

function applyOpaque(run: Run, path: BytePath): void {
  if (run.firstLayer) return;
  const directory = run.directories.find(path, false);
  if (directory) hideContent(run, directory);
}

function placeEntry(run: Run, reader: EntryReader, entry: Entry, normalPath: BytePath): void {
  if (normalPath === '') return placeRoot(run, entry);
  run.mtimeSeconds = entry.mtimeSeconds;
  run.mtimeNanoseconds = entry.mtimeNanoseconds;
  const parent = run.directories.find(parentPath(normalPath), true)!;
  const name = nameOf(normalPath);
  const path = join(parent.path, name);
  refuseReserved(run, path);
  switch (entry.type) {
    case 'file':
      placeFile(run, reader, entry, parent, name, path);
      break;
    case 'directory':
      placeDirectory(run, entry, parent, name, path);
      break;
    case 'symlink':
      placeSymlink(run, entry, parent, name, path);
      break;
    case 'hardlink':
      placeHardLink(run, entry, parent, name, path);
      break;
    case 'character':
    case 'block':
    case 'fifo':
      placeSpecial(run, entry, entry.type, parent, name, path);
      break;
  }
  markWritten(run, parent, path);
}

/** The root takes metadata only, at the end; what would make it something else is left out and counted, as containerd leaves it out. */
function placeRoot(run: Run, entry: Entry): void {
  if (entry.type === 'directory') run.rootEntry = entry;
  else run.counts.ignored++;
}

function placeFile(
  run: Run,
  reader: EntryReader,
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
  run.changes?.written(path);
  try {
    writeFile(filesystem, file, entry, reader);
    dress(run, { parent, name, file }, entry, openMode);
  } catch (error) {
    filesystem.closeFile(file);
    throw error;
  }
  const closed = filesystem.closeFile(file);
  if (closed < 0) throw new Refusal(closed, `write ${shown(path)}`);
}

/** Owner, attributes, mode and times of something new that is no directory, in the order in which none undoes the other. */
function dress(run: Run, node: Node, entry: Entry, modeNow: number | undefined): void {
  const ownerIsRight = restoreOwner(run, node, entry, newOwner(run));
  if (run.creator.careful) removeInherited(run, node, false);
  restoreXattrs(run, node, entry);
  if (modeNow !== undefined) {
    const mode = permittedMode(run, entry, ownerIsRight);
    // An access list changes the mode, and chmod(2) the list's mask: they agree where the archive is sound.
    if (mode !== modeNow || entry.xattrs || isModeDoubtful(run, mode)) {
      const result = run.filesystem.setMode(node, mode);
      if (result < 0) throw new Refusal(result, 'set the mode');
    }
  }
  restoreTimes(run, node, entry.mtimeSeconds, entry.mtimeNanoseconds);
}

function placeDirectory(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): void {
  const { filesystem } = run;
  const mode = fillingMode(entry.mode);
  for (let tries = 0; ; tries++) {
    const made = filesystem.makeDirectory(parent, name, mode);
    if (made === 0) {
      dressNew(run, parent, name, entry);
      break;
    }
    const stat = filesystem.stat(parent, name);
    if (typeof stat !== 'number' && stat.type === 'directory') {
      dressExisting(run, parent, name, entry, stat);
      break;
    }
    makeWay(run, made, tries, parent, path, name);
  }
  noteDirectory(run, path, entry.mode, entry.mtimeSeconds, entry.mtimeNanoseconds);
}

function placeSymlink(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): void {
  if (entry.linkPath === '') throw new Refusal(EINVAL, 'make a symlink to nothing');
  const { filesystem } = run;
  let made = filesystem.makeSymlink(parent, name, entry.linkPath);
  for (let tries = 0; made < 0; tries++) {
    makeWay(run, made, tries, parent, path, name);
    made = filesystem.makeSymlink(parent, name, entry.linkPath);
  }
  run.changes?.written(path);
  dress(run, { parent, name, file: -1 }, entry, undefined);
}

/** A second name. Owner, mode and times are the file's, whatever this entry says (as umoci and GNU tar); attributes are set again. */
function placeHardLink(run: Run, entry: Entry, parent: Directory, name: ByteName, path: BytePath): void {
  const { filesystem } = run;
  const wanted = normalize(entry.linkPath);
  const targetParent = run.directories.find(parentPath(wanted), false);
  const targetName = nameOf(wanted);
  const target = targetParent && join(targetParent.path, targetName);
  const action = `link to ${shown(entry.linkPath)}`;
  if (!target || wanted === '') throw new Refusal(ENOENT, action);
  refuseReserved(run, target);
  if (run.lostDevices.has(target)) return loseDevice(run, parent, name, path);
  if (target === path) {
    if (typeof filesystem.stat(parent, name) === 'number') throw new Refusal(ENOENT, action);
    return;
  }
  let made = filesystem.makeLink(targetParent, targetName, parent, name);
  for (let tries = 0; made < 0; tries++) {
    if (made === -ENOENT) throw new Refusal(ENOENT, action);
    if (made === -EPERM) throw linkDenied(filesystem, targetParent, targetName, action);
    makeWay(run, made, tries, parent, path, name);
    made = filesystem.makeLink(targetParent, targetName, parent, name);
  }
  run.changes?.written(path);
  restoreXattrs(run, { parent, name, file: -1 }, entry);
}

function linkDenied(filesystem: Filesystem, parent: Directory, name: ByteName, action: string): Refusal {
  const stat = filesystem.stat(parent, name);
  return new Refusal(typeof stat !== 'number' && stat.type === 'directory' ? EISDIR : EPERM, action);
}

function placeSpecial(
  run: Run,
  entry: Entry,
  type: 'character' | 'block' | 'fifo',
  parent: Directory,
  name: ByteName,
  path: BytePath,
): void {
  const { filesystem } = run;
  const { deviceMajor, deviceMinor } = entry;
  const mode = entry.mode & 0o777;
  let made = filesystem.makeSpecial(parent, name, type, mode, deviceMajor, deviceMinor);
  for (let tries = 0; made < 0; tries++) {
    if (made === -EPERM) return loseDevice(run, parent, name, path);
    makeWay(run, made, tries, parent, path, name);
    made = filesystem.makeSpecial(parent, name, type, mode, deviceMajor, deviceMinor);
  }
  dress(run, { parent, name, file: -1 }, entry, mode);
}

/** The device cannot be made, and what it should replace must not stay in its place. */
function loseDevice(run: Run, parent: Directory, name: ByteName, path: BytePath): void {
  run.counts.devices++;
  run.lostDevices.add(path);
  clear(run, parent, name, path);
}

function refuseReserved(run: Run, path: string): void {
  if (!isReserved(run, path)) return;
  throw new IntegrityError(`${shown(path)}: an image may not have this name at its root together with -g`, {
    code: 'RESERVED_NAME',
    hint: 'pull it without -g',
  });
}

function nameOf(path: string): ByteName {
  return path.slice(path.lastIndexOf('/') + 1);
}
