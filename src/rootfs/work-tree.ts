import { constants } from 'node:os';
import { geteuid } from 'node:process';
import { type BytePath, displayPath } from '../tar/entry.ts';
import { pathBytes } from '../sys/os-path.ts';
import { startRun } from './apply.ts';
import { unlock } from './directory-metadata.ts';
import { join, nameOf, parentPath } from './directories.ts';
import { openFilesystem } from './confined-root.ts';
import { type ByteName, type Directory, type DiskFilesystem, type FileStat, explain } from './filesystem.ts';
import type { Backend } from './messages.ts';
import { nothingLost, type NotRestored } from './not-restored.ts';
import { SyscallError } from '../sys/os-error.ts';
import { clear } from './removal.ts';
import { Restoration, type Contents, type Inode } from './restoration.ts';
import type { Run } from './run.ts';

const { EEXIST, ENOENT, ENOTDIR, ENOTEMPTY } = constants.errno;

/** A whole tree: all paths from the root, each directory before what is in it. */
export interface Tree extends Iterable<readonly [path: string, place: { readonly inode: Inode }]> {
  /** For the root, with the empty path; undefined: it stays as it is. */
  find(path: string): { readonly inode: Inode } | undefined;
}

/** What may be on disk at a path. */
export interface Found {
  readonly path: string;
  readonly type: FileStat['type'];
}

/** A rootfs that is there and becomes another one, in place: what others wrote into it is given all that they could not. */
export class WorkTree {
  readonly #directory: string;
  readonly #backend: Backend | undefined;
  /** What the system denied at the last `restore`. */
  notRestored: NotRestored = nothingLost();

  constructor(directory: string, backend?: Backend) {
    this.#directory = directory;
    this.#backend = backend;
  }

  /**
   * Removes the files at these paths, if they are still of that type; directories only when they are empty. From then on until `restore`
   * no directory keeps its owner out.
   *
   * @throws DestinationError
   */
  clear(found: readonly Found[]): Promise<void> {
    const deepestFirst = found.toSorted((one, other) => other.path.length - one.path.length);
    return this.#work((run) => {
      if (geteuid!() !== 0) unlockAll(run);
      for (const { path, type } of deepestFirst) {
        run.directories.trim();
        const parent = run.directories.find(parentPath(path), false);
        if (!parent || parent.path !== parentPath(path)) continue;
        if (type === 'directory') removeEmpty(run, parent, nameOf(path), path);
        else {
          const stat = run.filesystem.stat(parent, nameOf(path));
          if (typeof stat !== 'number' && stat.type === type)
            clear(run, parent, nameOf(path), path as BytePath);
        }
      }
    });
  }

  /**
   * Makes everything in `tree` as it says.
   *
   * @param contents of files that are not on disk yet, or are others'
   * @param attributes names of extended attributes that stay only where `tree` has them
   * @param pause called between two paths: lets the event loop run, and throws when the run is to end
   * @throws DestinationError
   */
  async restore(
    tree: Tree,
    contents: Contents,
    attributes: ReadonlySet<string>,
    pause: () => Promise<void>,
  ): Promise<void> {
    await this.#work(async (run, disk) => {
      const restoration = new Restoration(run, disk, contents, attributes);
      for (const [path, { inode }] of tree) {
        await restoration.place(path as BytePath, inode);
        await pause();
      }
      restoration.finish(tree.find('')?.inode);
      this.notRestored = run.counts;
    });
  }

  async #work(use: (run: Run, disk: DiskFilesystem) => void | Promise<void>): Promise<void> {
    const name = this.#directory;
    const filesystem = openFilesystem(pathBytes(name), this.#backend);
    try {
      if (typeof filesystem === 'number') throw new SyscallError(filesystem, 'open it');
      const run = startRun(filesystem, { name, mode: 'overlay', reservedNames: [], recordChanges: false });
      try {
        await use(run, filesystem);
      } finally {
        run.directories.close();
        filesystem.close();
      }
    } catch (error) {
      throw error instanceof SyscallError ? explain(error, name, name) : error;
    }
  }
}

/** Lets this process into all directories that it owns, for git to do its work. */
function unlockAll(run: Run): void {
  const waiting: string[] = [''];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    run.directories.trim();
    const directory = run.directories.find(path, false);
    if (directory?.path !== path) continue;
    unlock(run, directory);
    const names = run.filesystem.list(directory);
    if (typeof names === 'number') continue;
    for (const name of names) {
      const below = join(directory.path, name);
      const stat = run.filesystem.stat(directory, name);
      if (typeof stat !== 'number' && stat.type === 'directory' && below !== '.git') waiting.push(below);
    }
  }
}

/** Removes a directory that is empty by now. */
function removeEmpty(run: Run, parent: Directory, name: ByteName, path: string): void {
  run.directories.drop(path);
  const removed = run.filesystem.removeDirectory(parent, name);
  if (removed < 0 && ![-ENOENT, -ENOTDIR, -ENOTEMPTY, -EEXIST].includes(removed)) {
    throw new SyscallError(removed, `remove the directory ${displayPath(path)}`);
  }
}
