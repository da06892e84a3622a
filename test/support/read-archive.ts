import type { ByteSource, Entry } from '../../src/tar/entry.ts';
import { TarReader } from '../../src/tar/reader.ts';

/** Returns bytes in chunks of at most `size`. The next request overwrites the last chunk, as in a ring. */
export function chunked(bytes: Uint8Array, size = 1 << 20): ByteSource {
  let position = 0;
  let last: Uint8Array | undefined;
  return {
    read(max) {
      last?.fill(0xaa);
      if (position >= bytes.length) return undefined;
      const end = Math.min(position + Math.min(max, size), bytes.length);
      last = Uint8Array.from(bytes.subarray(position, end));
      position = end;
      return last;
    },
  };
}

/** An entry with its stored data. */
export interface ReadEntry extends Entry {
  readonly data: Buffer;
}

/** Returns all entries of an archive with their stored data (without holes, if sparse). */
export function readArchive(bytes: Uint8Array, chunkSize?: number): ReadEntry[] {
  const reader = new TarReader(chunked(bytes, chunkSize), 'layer test');
  const entries: ReadEntry[] = [];
  for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
    const pieces: Buffer[] = [];
    for (let piece = reader.data(); piece !== undefined; piece = reader.data())
      pieces.push(Buffer.from(piece));
    entries.push({ ...entry, data: Buffer.concat(pieces) });
  }
  return entries;
}

/** Returns the content of the file: stored data, with the holes as zeros. */
export function contentOf({ data, size, sparse }: ReadEntry): Buffer {
  if (sparse === undefined) return data;
  const content = Buffer.alloc(size);
  let from = 0;
  for (const { offset, length } of sparse) {
    data.copy(content, offset, from, from + length);
    from += length;
  }
  return content;
}

/** Prints an entry in one line: `-rw-r--r-- 0:0 2 etc/motd`. */
export function summary(entry: ReadEntry): string {
  const kind = {
    file: '-',
    directory: 'd',
    symlink: 'l',
    hardlink: 'h',
    character: 'c',
    block: 'b',
    fifo: 'p',
  }[entry.type];
  const bits = entry.mode.toString(8).padStart(4, '0');
  const size = entry.type === 'file' ? ` ${entry.size}` : '';
  const device = kind === 'c' || kind === 'b' ? ` ${entry.deviceMajor},${entry.deviceMinor}` : '';
  const link = entry.linkPath === '' ? '' : ` -> ${entry.linkPath}`;
  return `${kind}${bits} ${entry.uid}:${entry.gid}${size}${device} ${entry.path}${link}`;
}
