import { constants } from 'node:os';
import type { Entry, EntryReader, SparseExtent } from '../tar/entry.ts';
import { storedSize } from '../tar/sparse.ts';
import type { ContentWriter } from './contents.ts';
import type { Filesystem } from './filesystem.ts';
import { granted } from './refusal.ts';
import { SyscallError } from '../sys/os-error.ts';

const { ENOSPC } = constants.errno;

/** From this size on it is asked whether a file fits: what cannot is refused before any of it is written. */
const largeFrom = 1024 * 1024;

/** Writes the content of a file entry, holes as holes, into the new and empty `file`; also to `contents`. */
export function writeFile(
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
        index++;
        done = 0;
      }
    }
  }
  granted(filesystem.truncate(file, entry.size), 'set the size');
  contents?.addHole(entry.size - position);
}

function refuseTooLarge(filesystem: Filesystem, file: number, size: number): void {
  if (size >= largeFrom && size > filesystem.freeSpace(file))
    throw new SyscallError(ENOSPC, `write ${size} bytes`);
}
