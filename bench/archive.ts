import { Header } from 'tar';

/** An entry of a generated layer. */
export interface ArchiveEntry {
  readonly path: string;
  readonly type: 'Directory' | 'File' | 'SymbolicLink' | 'Link';
  readonly mode: number;
  readonly target?: string;
  /** Size of a file in bytes. Its `content` yields as many. */
  readonly size?: number;
  readonly content?: Iterable<Uint8Array>;
}

const mtime = new Date('2024-02-29T12:00:00Z');

/** Yields the bytes of an uncompressed tar in pieces of about 1 MiB. */
export function* archive(entries: Iterable<ArchiveEntry>): Generator<Uint8Array> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  for (const bytes of blocks(entries)) {
    pieces.push(bytes);
    length += bytes.length;
    if (length < 1 << 20) continue;
    yield Buffer.concat(pieces, length);
    pieces = [];
    length = 0;
  }
  yield Buffer.concat(pieces, length);
}

function* blocks(entries: Iterable<ArchiveEntry>): Generator<Uint8Array> {
  for (const entry of entries) {
    const header = Buffer.alloc(512);
    const { path, type, mode, size = 0, target } = entry;
    const fields = { path, type, mode, size, mtime, uid: 0, gid: 0 };
    new Header(target === undefined ? fields : { ...fields, linkpath: target }).encode(header, 0);
    yield header;
    yield* entry.content ?? [];
    if (size % 512 !== 0) yield Buffer.alloc(512 - (size % 512));
  }
  yield Buffer.alloc(1024);
}
