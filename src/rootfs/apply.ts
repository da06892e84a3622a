import { IntegrityError } from '../errors.ts';
import { type BytePath, type Entry, type EntryReader, MalformedTarError, displayPath } from '../tar/entry.ts';
import { classify, isPseudoLink, pseudoLinks } from '../tar/layer-path.ts';
import type { ChangeLog } from './changes.ts';
import { type Pathfinder, placeIn } from './directories.ts';
import { makeMissing, unlock } from './directory-metadata.ts';
import type { FileJobs } from './file-jobs.ts';
import { type Filesystem, explain, explained } from './filesystem.ts';
import { type Content, placeEntry } from './place.ts';
import { SyscallError } from '../sys/os-error.ts';
import { clearForDirectory, hide, hideContent } from './removal.ts';
import { Run, type RunOptions } from './run.ts';

/**
 * Begins a run on the root of `filesystem`; `options.mode` describes that root.
 *
 * @param changes records every change of the tree
 * @param jobs takes over the writing of some files
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
 * Applies one layer to the existing tree, by OCI's rules (image-spec, layer.md). If it throws, only a part of
 * the layer has been applied.
 *
 * @param label the layer's name in messages
 * @param goOn called before each entry; ends the layer by throwing
 * @returns the number of entries
 * @throws IntegrityError for an entry that no file system can hold
 * @throws DestinationError where the system refuses
 * @throws the errors of `reader`
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

/** A layer whose entries come one by one: `apply` each, then call `finish`, or `abandon` after a failure. */
export class LayerApplication {
  readonly #run: Run;
  readonly #label: string;
  #entries = 0;
  /** The layer has files at `pseudoLinks`. */
  #hasPseudoLinks = false;

  /** @param label the layer's name in messages */
  constructor(run: Run, label: string) {
    this.#run = run;
    this.#label = label;
  }

  /**
   * Applies the next entry.
   *
   * @param content the entry's data
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

  /** Completes the layer after its last entry, and returns the number of entries. @throws as `applyLayer` */
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

  /** Returns the error to throw after `error`: an earlier file's failure in the other thread comes first. */
  firstFailure(error: unknown): unknown {
    const { jobs, options } = this.#run;
    // Waits for the jobs of earlier entries: their failures come before this one.
    jobs?.drain();
    const failed = jobs?.failed;
    if (!failed) return error;
    return explain(failed.failure, `${this.#label}: ${displayPath(failed.path)}`, options.name);
  }

  /** Removes the layer's pseudo-links after a failure. Errors are ignored. */
  abandon(): void {
    try {
      this.#end();
    } catch {
      // The failure of the layer matters more than this one.
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

  /**
   * Forgets which paths the layer wrote, and removes its pseudo-links. Hard links to these files keep them.
   *
   * @throws SyscallError
   */
  #end(): void {
    const run = this.#run;
    run.written.forgetLayer();
    if (this.#hasPseudoLinks) hide(run, placeIn(run.filesystem.root, pseudoLinks));
    run.written.forgetLayer();
    this.#hasPseudoLinks = false;
  }
}

/** Returns `error` with the layer and the entry in its message. */
function located(error: unknown, label: string, entry: Entry, destination: string): unknown {
  const path = displayPath(entry.path);
  if (error instanceof SyscallError) return explain(error, `${label}: ${path}`, destination);
  // The tar reader's message already has both.
  if (!(error instanceof IntegrityError) || error instanceof MalformedTarError) return error;
  const { code, hint, message } = error;
  return new IntegrityError(`${label}: ${path}: ${message}`, { code, hint, cause: error });
}

/** Returns false for types without a mode of their own: hard links and symlinks. */
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
