import {
  type Dirent,
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readSync,
  readdirSync,
  readlinkSync,
  type BigIntStats,
  type PathLike,
} from 'node:fs';
import path from 'node:path';
import type { ObjectSource } from './pack-writer.ts';
import type { Inode } from './rootfs-state.ts';

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

/** What fits into one system call, a little less than PATH_MAX. */
const longestPath = 4000;

export type FileType = Inode['type'] | 'other';

/** The files of a rootfs, by their paths from its root (one character a byte, no component a symlink). Errors are those of node:fs. */
export class TreeFiles {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Opens a file to read, not a symlink; for a moment it gets a mode that lets its owner do so. */
  open(name: string): number {
    return this.#at(
      name,
      (place) => unless(() => openSync(place, O_RDONLY | O_NOFOLLOW), 'EACCES') ?? openUnreadable(place),
    );
  }

  /** What `lstat` says of it. */
  stat(name: string): BigIntStats {
    return this.#at(name, (place) => lstatSync(place, { bigint: true }));
  }

  /** The same, or undefined where nothing is. */
  find(name: string): BigIntStats | undefined {
    return unless(() => this.stat(name), 'ENOENT', 'ENOTDIR');
  }

  /** The same, or undefined where this process may not look. */
  statIfAllowed(name: string): BigIntStats | undefined {
    return unless(() => this.stat(name), 'EACCES');
  }

  /** Where a symlink points, one character a byte. */
  readLink(name: string): string {
    return this.#at(name, (place) => readlinkSync(place, { encoding: 'latin1' }));
  }

  /** Everything but `.git` at the root, each directory before what is in it; what may not be read is left out. */
  *walk(): Generator<[name: string, type: FileType], void, void> {
    const waiting = [''];
    for (let above = waiting.pop(); above !== undefined; above = waiting.pop()) {
      for (const entry of this.#list(above)) {
        const name = above === '' ? entry.name : `${above}/${entry.name}`;
        if (name === '.git') continue;
        yield [name, entry.type];
        if (entry.type === 'directory') waiting.push(name);
      }
    }
  }

  #list(name: string): { name: string; type: FileType }[] {
    const entries = unless(
      () => this.#at(name, (place) => readdirSync(place, { withFileTypes: true, encoding: 'buffer' })),
      'EACCES',
    );
    return (entries ?? []).map((entry) => ({ name: entry.name.toString('latin1'), type: typeOf(entry) }));
  }

  /** Calls `use` with a name for the file that the system takes. */
  #at<T>(name: string, use: (place: PathLike) => T): T {
    if (name.length <= longestPath) return use(encodePath(path.join(this.#root, '/'), name));
    let directory = openSync(this.#root, O_RDONLY | O_DIRECTORY);
    try {
      let rest = name;
      while (rest.length > longestPath) {
        const cut = rest.lastIndexOf('/', longestPath);
        const place = encodePath(`/proc/self/fd/${directory}/`, rest.slice(0, cut));
        const next = openSync(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        closeSync(directory);
        directory = next;
        rest = rest.slice(cut + 1);
      }
      return use(encodePath(`/proc/self/fd/${directory}/`, rest));
    } finally {
      closeSync(directory);
    }
  }
}

function typeOf(entry: Dirent<Buffer>): FileType {
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'directory';
  if (entry.isSymbolicLink()) return 'symlink';
  if (entry.isCharacterDevice()) return 'character';
  if (entry.isBlockDevice()) return 'block';
  return entry.isFIFO() ? 'fifo' : 'other';
}

/** What `call` answers, or undefined when it fails with one of these codes. */
function unless<T>(call: () => T, ...codes: readonly string[]): T | undefined {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error && 'code' in error && codes.includes(String(error.code))) return undefined;
    throw error;
  }
}

function openUnreadable(place: PathLike): number {
  const { mode } = lstatSync(place);
  if ((mode & 0o170000) !== 0o100000) throw new Error('not a file');
  chmodSync(place, (mode & 0o7777) | 0o400);
  try {
    return openSync(place, O_RDONLY | O_NOFOLLOW);
  } finally {
    chmodSync(place, mode & 0o7777);
  }
}

/** A file had more or fewer bytes than it should. */
export class SizeMismatch extends Error {}

/**
 * The content of an open file, from its position on, as a blob's.
 *
 * @throws SizeMismatch from the source
 */
export function contentOf(file: number): ObjectSource {
  return (buffer, at, length, last) => {
    const wanted = length + (last ? 1 : 0);
    let done = 0;
    while (done < wanted) {
      const count = readSync(file, buffer, at + done, wanted - done, null);
      if (count === 0) break;
      done += count;
    }
    if (done !== length) throw new SizeMismatch();
  };
}

/** Bytes in memory as a blob's content. */
export function contentIn(bytes: Uint8Array): ObjectSource {
  let start = 0;
  return (buffer, at, length) => {
    buffer.set(bytes.subarray(start, start + length), at);
    start += length;
  };
}

/** `name` is one character a byte, which node:fs would take for UTF-8. */
function encodePath(directory: string, name: string): PathLike {
  // eslint-disable-next-line no-control-regex
  return /^[\0-\x7f]*$/.test(name)
    ? directory + name
    : Buffer.concat([Buffer.from(directory), Buffer.from(name, 'latin1')]);
}
