import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readSync,
  readlinkSync,
  type BigIntStats,
  type PathLike,
} from 'node:fs';
import path from 'node:path';
import type { BlobSource } from './pack-writer.ts';

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

/** What fits into one system call, a little less than PATH_MAX. */
const longestPath = 4000;

/** The files of a rootfs, by their paths from its root (one character a byte, no component a symlink). Errors are those of node:fs. */
export class TreeFiles {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Opens a file to read, not a symlink; for a moment it gets a mode that lets its owner do so. */
  open(name: string): number {
    return this.#at(name, (place) => {
      try {
        return openSync(place, O_RDONLY | O_NOFOLLOW);
      } catch (error) {
        if (!isDenied(error)) throw error;
        return openUnreadable(place);
      }
    });
  }

  /** What `lstat` says of it. */
  stat(name: string): BigIntStats {
    return this.#at(name, (place) => lstatSync(place, { bigint: true }));
  }

  /** Where a symlink points, one character a byte. */
  readLink(name: string): string {
    return this.#at(name, (place) => readlinkSync(place, { encoding: 'latin1' }));
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

function isDenied(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EACCES';
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
export function contentOf(file: number): BlobSource {
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
export function contentIn(bytes: Uint8Array): BlobSource {
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
