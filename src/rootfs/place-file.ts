import { constants } from 'node:os';
import { SyscallError } from '../sys/os-error.ts';
import { type BytePath, type Entry, type EntryReader, type SparseExtent, displayPath } from '../tar/entry.ts';
import { storedSize } from '../tar/sparse.ts';
import type { ContentWriter } from './contents.ts';
import { type ByteName, type Directory, type Filesystem, granted } from './filesystem.ts';
import type { FileJobs } from './file-jobs.ts';
import { applyMetadata, applyToOpenFile, needsOnlyOpenFile } from './metadata.ts';
import { clearObstacle } from './removal.ts';
import type { Run } from './run.ts';

const { ENOSPC } = constants.errno;

/** In bytes. A file of this size or more is refused before any of it is written, where the disk has no room for it. */
const LARGE_BYTES = 1024 * 1024;
/** How many obstacles are removed at one name; more mean that another process makes them again. */
const MOST_OBSTACLES = 3;

/** Writes a file entry as `name` in `parent`; `path` is what messages and the record of changes call it. */
export function placeFile(
  run: Run,
  content: Pick<EntryReader, 'data'>,
  entry: Entry,
  parent: Directory,
  name: ByteName,
  path: BytePath,
): void {
  const { filesystem, jobs } = run;
  const failed = jobs?.failed;
  if (failed) throw failed.failure;
  const openMode = entry.mode & 0o777;
  const file = makeInPlace(run, parent, path, name, () => filesystem.createFile(parent, name, openMode));
  if (file < 0) throw new SyscallError(file, `create ${displayPath(path)}`);
  if (jobs && needsOnlyOpenFile(run, entry))
    return writeByJobs(run, jobs, file, entry, content, parent, name, path);
  try {
    writeContent(filesystem, file, entry, content, run.contents);
    applyMetadata(run, { parent, name, file }, entry, openMode);
  } catch (error) {
    filesystem.closeFile(file);
    throw error;
  }
  closeWritten(filesystem, file, path);
}

/** Hands pieces of the content to the other thread whenever that has time for them; once it has one, the end of the file too. */
function writeByJobs(
  run: Run,
  jobs: FileJobs,
  file: number,
  entry: Entry,
  content: Pick<EntryReader, 'data'>,
  parent: Directory,
  name: ByteName,
  path: BytePath,
): void {
  const { filesystem, contents } = run;
  let shared = false;
  try {
    contents?.begin(entry.size);
    refuseTooLarge(filesystem, file, entry.size);
    let position = 0;
    for (let bytes = content.data(); bytes; bytes = content.data()) {
      contents?.add(bytes);
      const isLast = position + bytes.length === entry.size;
      if (jobs.open) {
        if (isLast) return jobs.complete(file, bytes, position, entry, path);
        jobs.write(file, bytes, position, entry, path);
        shared = true;
      } else granted(filesystem.write(file, bytes, position), 'write');
      position += bytes.length;
    }
    if (shared || (entry.size === 0 && jobs.open)) return jobs.complete(file, undefined, 0, entry, path);
    applyToOpenFile(run, { parent, name, file }, entry);
  } catch (error) {
    // Jobs that need it come before.
    if (shared) jobs.settle();
    filesystem.closeFile(file);
    throw error;
  }
  closeWritten(filesystem, file, path);
  return undefined;
}

function closeWritten(filesystem: Filesystem, file: number, path: BytePath): void {
  const closed = filesystem.closeFile(file);
  if (closed < 0) throw new SyscallError(closed, `write ${displayPath(path)}`);
}

/**
 * Calls `make` until it has made `path`, after each failure with what was in its way gone. Returns what the last call did: an error that
 * has another reason.
 */
export function makeInPlace(
  run: Run,
  parent: Directory,
  path: BytePath,
  name: ByteName,
  make: () => number,
): number {
  let made = make();
  for (let tries = 0; made < 0 && tries < MOST_OBSTACLES; tries += 1) {
    if (!clearObstacle(run, made, parent, path, name)) break;
    made = make();
  }
  return made;
}

/** Writes the content of a file entry, holes as holes, into the new and empty `file`; also to `contents`. */
function writeContent(
  filesystem: Filesystem,
  file: number,
  entry: Entry,
  content: Pick<EntryReader, 'data'>,
  contents?: ContentWriter,
): void {
  contents?.begin(entry.size);
  if (entry.sparse) return writeSparse(filesystem, file, entry, entry.sparse, content, contents);
  refuseTooLarge(filesystem, file, entry.size);
  let position = 0;
  for (let bytes = content.data(); bytes; bytes = content.data()) {
    granted(filesystem.write(file, bytes, position), 'write');
    contents?.add(bytes);
    position += bytes.length;
  }
}

function writeSparse(
  filesystem: Filesystem,
  file: number,
  entry: Entry,
  extents: readonly SparseExtent[],
  content: Pick<EntryReader, 'data'>,
  contents: ContentWriter | undefined,
): void {
  const stored = storedSize(entry);
  // git has no holes: it stores as many bytes as the file has.
  refuseTooLarge(filesystem, file, contents === undefined ? stored : stored + entry.size);
  let index = 0;
  let done = 0;
  /** Where `contents` is. */
  let position = 0;
  for (let bytes = content.data(); bytes; bytes = content.data()) {
    for (let rest = bytes; rest.length > 0;) {
      const extent = extents[index]!;
      const part = rest.subarray(0, extent.length - done);
      if (part.length > 0) {
        const start = extent.offset + done;
        granted(filesystem.write(file, part, start), 'write');
        contents?.addHole(start - position);
        contents?.add(part);
        position = start + part.length;
      }
      rest = rest.subarray(part.length);
      done += part.length;
      if (done === extent.length) {
        index += 1;
        done = 0;
      }
    }
  }
  granted(filesystem.truncate(file, entry.size), 'set the size');
  contents?.addHole(entry.size - position);
}

function refuseTooLarge(filesystem: Filesystem, file: number, size: number): void {
  if (size >= LARGE_BYTES && size > filesystem.freeSpace(file))
    throw new SyscallError(ENOSPC, `write ${size} bytes`);
}
