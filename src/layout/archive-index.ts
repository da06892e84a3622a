import { readSync } from 'node:fs';
import { IntegrityError, printable } from '../errors.ts';
import { type BytePath, type ByteSource, displayPath, type Entry } from '../tar/entry.ts';
import { blockSize } from '../tar/header.ts';
import { normalize } from '../tar/layer-path.ts';
import { TarReader } from '../tar/reader.ts';

/** Where a member's bytes stand in the archive. */
export interface Stretch {
  readonly offset: number;
  readonly size: number;
}

/** By normalised path: a file, or the path of the member that a link leads to. */
export type ArchiveIndex = ReadonlyMap<string, Stretch | BytePath>;

/** Archives of images have a few files a layer. */
const MAX_MEMBERS = 500_000;

/** The header blocks of an archive that is a file, wherever it is told to look. */
class HeaderSource implements ByteSource {
  position = 0;
  readonly #descriptor: number;
  readonly #block = Buffer.alloc(blockSize);

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(): Uint8Array | undefined {
    const length = readSync(this.#descriptor, this.#block, 0, blockSize, this.position);
    this.position += length;
    return length === 0 ? undefined : this.#block.subarray(0, length);
  }
}

/**
 * Finds the members of a plain tar of `size` bytes by reading only its headers. Of members with the same path the last one counts, as when
 * the archive is unpacked. Throws IntegrityError when the archive is damaged, cut off or has sparse members.
 */
export function indexArchive(descriptor: number, size: number, name: string): ArchiveIndex {
  const members = new Map<string, Stretch | BytePath>();
  const source = new HeaderSource(descriptor);
  for (;;) {
    // A reader for each header: the next one starts after data that nobody reads.
    const entry = new TarReader(source, name).next();
    if (entry === undefined) return members;
    const member = memberOf(entry, source.position);
    if (member === undefined) continue;
    members.set(normalize(entry.path), member);
    if (members.size > MAX_MEMBERS) throw new IntegrityError(`${name} has more than ${MAX_MEMBERS} members`);
    if (typeof member === 'string') continue;
    if (entry.sparse !== undefined) throw sparseMember(entry, name);
    source.position += Math.ceil(member.size / blockSize) * blockSize;
    if (member.offset + member.size > size) {
      throw new IntegrityError(`${name} is cut off: it ends within ${displayPath(entry.path)}`, {
        code: 'TRUNCATED_ARCHIVE',
        hint: 'save or copy the image again',
      });
    }
  }
}

function memberOf(entry: Entry, offset: number): Stretch | BytePath | undefined {
  switch (entry.type) {
    case 'file':
      return { offset, size: entry.size };
    case 'symlink':
      return symlinkTarget(entry);
    case 'hardlink':
      return normalize(entry.linkPath);
    default:
      return undefined;
  }
}

/** Relative to the link's directory, and never out of the archive: what climbs higher, or is absolute, starts at its root. */
function symlinkTarget({ path, linkPath }: Entry): BytePath {
  if (linkPath.startsWith('/')) return normalize(linkPath);
  const directory = path.slice(0, path.lastIndexOf('/') + 1);
  return normalize(`${directory}${linkPath}` as BytePath);
}

function sparseMember(entry: Entry, name: string): IntegrityError {
  return new IntegrityError(
    `${name} has the sparse member ${displayPath(entry.path)}, which images have not`,
    {
      hint: `make the archive again without --sparse (${printable(entry.path, 80)})`,
    },
  );
}
