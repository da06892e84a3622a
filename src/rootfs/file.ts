import { constants } from 'node:os';
import type { Entry, EntryReader, SparseExtent } from '../tar/entry.ts';
import type { Filesystem } from './filesystem.ts';
import { Refusal, granted } from './refusal.ts';

const { EDQUOT, EFBIG, EIO, ENOSPC } = constants.errno;

/** From this size on a file's room is set aside first: what cannot fit is refused before it is written. */
const reserveFrom = 1024 * 1024;

/** Errors of fallocate(2) that mean it; others only that it is not known here. */
const noRoom = new Set([-ENOSPC, -EDQUOT, -EFBIG, -EIO]);

/** Writes the content of a file entry, holes as holes, into the new and empty `file`. */
export function writeFile(filesystem: Filesystem, file: number, entry: Entry, reader: EntryReader): void {
  if (entry.sparse) return writeSparse(filesystem, file, entry, entry.sparse, reader);
  if (entry.size >= reserveFrom) reserve(filesystem, file, entry.size);
  let position = 0;
  for (let bytes = reader.data(); bytes; bytes = reader.data()) {
    granted(filesystem.write(file, bytes, position), 'write');
    position += bytes.length;
  }
}

function writeSparse(
  filesystem: Filesystem,
  file: number,
  entry: Entry,
  extents: readonly SparseExtent[],
  reader: EntryReader,
): void {
  const stored = extents.reduce((sum, extent) => sum + extent.length, 0);
  if (stored >= reserveFrom) refuseTooLarge(filesystem, file, stored);
  let index = 0;
  let done = 0;
  for (let bytes = reader.data(); bytes; bytes = reader.data()) {
    for (let rest = bytes; rest.length > 0;) {
      const extent = extents[index]!;
      const part = rest.subarray(0, extent.length - done);
      if (part.length > 0) granted(filesystem.write(file, part, extent.offset + done), 'write');
      rest = rest.subarray(part.length);
      done += part.length;
      if (done === extent.length) {
        index++;
        done = 0;
      }
    }
  }
  granted(filesystem.truncate(file, entry.size), 'set the size');
}

function reserve(filesystem: Filesystem, file: number, size: number): void {
  const result = filesystem.reserve(file, size);
  if (result === 0) return;
  if (noRoom.has(result)) throw new Refusal(result, `set ${size} bytes aside`);
  refuseTooLarge(filesystem, file, size);
}

function refuseTooLarge(filesystem: Filesystem, file: number, size: number): void {
  if (size > filesystem.freeSpace(file)) throw new Refusal(ENOSPC, `write ${size} bytes`);
}
