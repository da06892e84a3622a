import { IntegrityError } from '../errors.ts';
import { displayPath } from '../tar/entry.ts';
import type { ChangeLog } from './changes.ts';
import { carefulCreator, type Creator, probe } from './creator.ts';
import { Directories, type Pathfinder } from './directories.ts';
import { DirectoryNotes } from './directory-notes.ts';
import { type ByteName, type Filesystem, type Mtime } from './filesystem.ts';
import { nothingLost } from './not-restored.ts';
import type { FileJobs } from './file-jobs.ts';
import { PathSet } from './path-set.ts';
import { WrittenPaths } from './written-paths.ts';

export interface RunOptions {
  /** Name of the root in messages. */
  readonly name: string;
  /**
   * `stage`: the root is new, made by this run, and locked against other runs. `empty`: it existed, with
   * nothing but `lost+found`. `overlay`: it holds files of the user, which are kept. Only files that this run
   * wrote are removed.
   */
  readonly mode: 'stage' | 'empty' | 'overlay';
  /** A run that writes nothing does not probe the file system. */
  readonly leftover?: boolean;
}

/**
 * The state of one pull's tree, from the first layer to the last. `startRun` begins it.
 *
 * Each variable part has one owner: directory-metadata.ts changes `creator.careful` and `atEnd`. The file
 * place.ts changes `mtime` and `lostDevices`. All add to `counts`.
 */
export class Run {
  readonly filesystem: Filesystem;
  readonly options: RunOptions;
  readonly creator: Creator;
  readonly directories: Directories;
  readonly counts = nothingLost();
  /** Names at the root of an `empty` directory that stay: `lost+found`. */
  readonly kept: ReadonlySet<ByteName>;
  /**
   * Changes for -g. With it the name `.git` at the root is reserved, in any case: an entry with it is an
   * error.
   */
  readonly changes: ChangeLog | undefined;
  /** Passes the writing of open files to another thread, when that thread has time. */
  readonly jobs: FileJobs | undefined;
  readonly written: WrittenPaths;
  readonly atEnd = new DirectoryNotes();
  /** Devices that could not be made: hard links to them are skipped too. */
  readonly lostDevices = new PathSet();
  /** Time of the current entry, for directories above it that have no entry. */
  mtime: Mtime = { mtimeSeconds: 0, mtimeNanoseconds: 0 };

  constructor(
    filesystem: Filesystem,
    options: RunOptions,
    pathfinder: (run: Run) => Pathfinder,
    others: Pick<Run, 'changes' | 'jobs'>,
  ) {
    const { mode, leftover } = options;
    const isUnknown = mode === 'overlay' || leftover;
    this.filesystem = filesystem;
    this.options = options;
    this.changes = others.changes;
    this.jobs = others.jobs;
    this.creator = { ...(isUnknown ? carefulCreator : probe(filesystem, mode)) };
    const names = mode === 'empty' && leftover !== true ? filesystem.list(filesystem.root) : [];
    this.kept = new Set(typeof names === 'number' ? [] : names);
    this.written = new WrittenPaths(mode === 'overlay' || this.creator.caseInsensitive);
    this.directories = new Directories(filesystem, pathfinder(this));
  }
}

/** Returns true if `path` is reserved or below a reserved path. */
export function isReserved({ changes }: Run, path: string): boolean {
  return changes !== undefined && /^\.git(?:\/|$)/i.test(path);
}

/** @throws IntegrityError for a path that is reserved */
export function refuseReserved(run: Run, path: string): void {
  if (!isReserved(run, path)) return;
  throw new IntegrityError(`an image may not have ${displayPath(path)} together with -g`, {
    code: 'RESERVED_NAME',
    hint: 'pull it without -g',
  });
}
