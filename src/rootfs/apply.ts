import { IntegrityError } from '../errors.ts';
import { type BytePath, type Entry, type EntryReader, MalformedTarError, displayPath } from '../tar/entry.ts';
import { classify, isPseudoLink, pseudoLinks } from '../tar/layer-path.ts';
import type { ChangeLog } from './changes.ts';
import { type Pathfinder, placeIn } from './directories.ts';
import { makeMissing, unlock } from './metadata.ts';
import type { FileJobs } from './file-jobs.ts';
import { type Filesystem, explain, explained } from './filesystem.ts';
import { type Content, placeEntry } from './place.ts';
import { SyscallError } from '../sys/os-error.ts';
import { clearForDirectory, hide, hideContent } from './removal.ts';
import { Run, type RunOptions } from './run.ts';

/**
 * Begins a run on the root of `filesystem`; `options.mode` describes that root.
 *
 * @param changes gets all that layers do to the tree
 * @param jobs gets the writing of some files
 */
export function startRun(
  filesystem: Filesystem,
  options: RunOptions,
  changes?: ChangeLog,
  jobs?: FileJobs,
): Run {
  const run = new Run(filesystem, options, pathfinder, { changes, jobs });
  jobs?.begin(run.creator);
  return run;
}

function pathfinder(run: Run): Pathfinder {
  return {
    make: (parent, name) => makeMissing(run, parent, name),
    clear: (parent, name) => clearForDirectory(run, parent, name),
    unlock: (directory) => unlock(run, directory),
  };
}

/**
 * Applies one layer to the existing tree, by OCI's rules (image-spec, layer.md). When it throws, the tree is between the old and the new
 * state.
 *
 * @param label what messages call the layer
 * @param goOn asked before each entry; ends the layer by throwing
 * @returns the number of entries
 * @throws IntegrityError for an entry that no file system can hold, DestinationError where the system refuses, what `reader` throws
 */
export function applyLayer(run: Run, reader: EntryReader, label: string, goOn?: () => void): number {
  const layer = new LayerApplication(run, label);
  try {
    for (let entry = reader.next(); entry; entry = reader.next()) {
      goOn?.();
      layer.apply(entry, reader);
    }
    return layer.finish();
  } catch (error) {
    const first = layer.firstFailure(error);
    layer.abandon();
    throw first;
  }
}

/** A layer that is being applied, for those who get its entries one by one: `apply` them all, then `finish`, or `abandon` it. */
export class LayerApplication {
  readonly #run: Run;
  readonly #label: string;
  #entries = 0;
  /** The layer has files at `pseudoLinks`. */
  #hasPseudoLinks = false;

  /** @param label what messages call the layer */
  constructor(run: Run, label: string) {
    this.#run = run;
    this.#label = label;
  }

  /**
   * The next entry.
   *
   * @param content more of its data with each call
   * @throws as `applyLayer`
   */
  apply(entry: Entry, content: Content): void {
    const run = this.#run;
    run.directories.trim();
    try {
      this.#place(content, entry);
    } catch (error) {
      throw this.firstFailure(located(error, this.#label, entry, run.options.name));
    }
    this.#entries += 1;
  }

  /** Does what can be done only when all entries are known. Returns how many they are. */
  finish(): number {
    const run = this.#run;
    const failure = this.firstFailure(undefined);
    if (failure !== undefined) throw failure;
    const lost = run.jobs?.takeLost();
    run.counts.owners += lost?.owners ?? 0;
    run.counts.setuid += lost?.setuid ?? 0;
    explained(this.#label, run.options.name, () => this.#end());
    run.written.nextLayer();
    return this.#entries;
  }

  /** The error to throw when an entry failed with `error`: an earlier file's failure in another thread comes first. */
  firstFailure(error: unknown): unknown {
    const { jobs, options } = this.#run;
    // All of them come before this entry.
    jobs?.drain();
    const failed = jobs?.failed;
    if (!failed) return error;
    return explain(failed.failure, `${this.#label}: ${displayPath(failed.path)}`, options.name);
  }

  /** Removes what exists only while a layer is applied. */
  abandon(): void {
    try {
      this.#end();
    } catch {
      // Why the layer failed counts, not what could not be removed after that.
    }
  }

  #place(content: Content, entry: Entry): void {
    const run = this.#run;
    const meaning = classify(entry.path);
    switch (meaning.kind) {
      case 'entry':
        placeEntry(run, content, entry, meaning.path);
        if (run.creator.fixedModes && hasMode(entry)) run.counts.modes += 1;
        return undefined;
      case 'whiteout':
        return applyWhiteout(run, meaning.path);
      case 'opaque':
        return applyOpaque(run, meaning.path);
      case 'aufs':
        if (entry.type !== 'file' || !isPseudoLink(meaning.path)) return undefined;
        this.#hasPseudoLinks = true;
        placeEntry(run, content, entry, meaning.path);
    }
  }

  /** Forgets what the layer wrote, and removes its pseudo-links: files that hard links name stay under these names. @throws SyscallError */
  #end(): void {
    const run = this.#run;
    run.written.forgetLayer();
    if (this.#hasPseudoLinks) hide(run, placeIn(run.filesystem.root, pseudoLinks));
    run.written.forgetLayer();
    this.#hasPseudoLinks = false;
  }
}

/** The error with the layer and the entry it is about. */
function located(error: unknown, label: string, entry: Entry, destination: string): unknown {
  const path = displayPath(entry.path);
  if (error instanceof SyscallError) return explain(error, `${label}: ${path}`, destination);
  // The reader of the tar has added both already.
  if (!(error instanceof IntegrityError) || error instanceof MalformedTarError) return error;
  const { code, hint, message } = error;
  return new IntegrityError(`${label}: ${path}: ${message}`, { code, hint, cause: error });
}

/** A hard link has the mode of what it is linked to, and a symlink has none. */
function hasMode({ type }: Entry): boolean {
  return type !== 'hardlink' && type !== 'symlink';
}

function applyWhiteout(run: Run, hidden: BytePath): void {
  if (run.written.isFirstLayer) return;
  const place = run.directories.place(hidden, 'find');
  if (place) hide(run, place);
}

function applyOpaque(run: Run, path: BytePath): void {
  if (run.written.isFirstLayer) return;
  const directory = run.directories.find(path, false);
  if (directory) hideContent(run, directory);
}
