import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { hasCode } from '../sys/os-error.ts';

import { osPath } from '../sys/os-path.ts';

/** A directory is only gone through, never read: this needs no permission on it (open(2), not among Node's constants). */
const O_PATH = 0o10000000;
const throughDirectory = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** As many as the kernel follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

interface Level {
  readonly descriptor: number;
  /** How to name something in it: the descriptor's path under /proc, which no rename can turn elsewhere. */
  readonly path: string;
}

/**
 * The files of a rootfs as a process would see them after chroot into it: absolute and climbing symlinks stay inside. Every
 * component is opened on its own without following links, so that nothing that changes meanwhile leads out. Linux only.
 */
export class ConfinedRoot implements Disposable {
  readonly #root: Level;

  /** Throws what open(2) says of the directory, and of /proc. */
  constructor(directory: string) {
    this.#root = level(openSync(osPath(directory), O_PATH | constants.O_DIRECTORY));
  }

  [Symbol.dispose](): void {
    closeSync(this.#root.descriptor);
  }

  /** What is at a path, symlinks followed; undefined when nothing is. */
  stat(path: string): Stats | undefined {
    return this.#at(path, ({ path: parent }, name) => lstatSync(`${parent}/${name}`));
  }

  /** The text of a regular file (UTF-8, its first `maxBytes`); undefined when there is none or it may not be read. */
  readText(path: string, maxBytes = 1 << 20): string | undefined {
    return this.#at(path, ({ path: parent }, name) => {
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      const file = openSync(`${parent}/${name}`, flags);
      try {
        if (!fstatSync(file).isFile()) return undefined;
        const bytes = Buffer.allocUnsafe(Math.min(maxBytes, fstatSync(file).size));
        let length = 0;
        for (let count = -1; count !== 0 && length < bytes.length; length += count) {
          count = readSync(file, bytes, length, bytes.length - length, length);
        }
        return bytes.toString('utf8', 0, length);
      } finally {
        closeSync(file);
      }
    });
  }

  /** Makes a directory with exactly this mode. False where its parent is missing; throws EEXIST where it is there. */
  makeDirectory(path: string, mode: number): boolean {
    const made = this.#at(path, ({ path: parent }, name) => {
      mkdirSync(`${parent}/${name}`);
      chmodSync(`${parent}/${name}`, mode);
      return true;
    });
    return made === true;
  }

  /** Fills a file that is not there or is a regular one of no bytes. False where its parent is missing or it has content. */
  fillFile(path: string, content: string): boolean {
    const filled = this.#at(path, ({ path: parent }, name) => {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      const file = openSync(`${parent}/${name}`, flags, 0o644);
      try {
        const stat = fstatSync(file);
        if (!stat.isFile() || stat.size > 0) return false;
        writeFileSync(file, content);
        fchmodSync(file, 0o644);
        return true;
      } finally {
        closeSync(file);
      }
    });
    return filled === true;
  }

  /**
   * Calls `use` with the directory that a path leads to, as a name under /proc, and the last component, which is no symlink
   * unless it stands at nothing. Undefined where a parent is missing, is no directory, or `use` says ENOENT or EACCES.
   */
  #at<T>(path: string, use: (parent: Level, name: string) => T): T | undefined {
    const opened: Level[] = [];
    try {
      return this.#walk(path, opened, use);
    } catch (error) {
      if (isAbsence(error)) return undefined;
      throw error;
    } finally {
      for (const { descriptor } of opened) closeSync(descriptor);
    }
  }

  #walk<T>(path: string, opened: Level[], use: (parent: Level, name: string) => T): T | undefined {
    const names = components(path);
    let links = 0;
    for (;;) {
      const parent = opened.at(-1) ?? this.#root;
      const name = names.shift();
      if (name === undefined) return use(parent, '.');
      if (name === '..') {
        const left = opened.pop();
        if (left) closeSync(left.descriptor);
        continue;
      }
      const target = linkTarget(`${parent.path}/${name}`);
      if (target !== undefined) {
        links += 1;
        if (links > MAX_LINKS) return undefined;
        if (target.startsWith('/')) {
          for (const { descriptor } of opened.splice(0)) closeSync(descriptor);
        }
        names.unshift(...components(target));
      } else if (names.length === 0) {
        return use(parent, name);
      } else {
        opened.push(level(openSync(`${parent.path}/${name}`, throughDirectory)));
      }
    }
  }
}

function level(descriptor: number): Level {
  return { descriptor, path: `/proc/self/fd/${descriptor}` };
}

function components(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (hasCode(error, 'EINVAL', 'ENOENT')) return undefined;
    throw error;
  }
}

function isAbsence(error: unknown): boolean {
  return hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP', 'ENXIO', 'ENAMETOOLONG');
}
