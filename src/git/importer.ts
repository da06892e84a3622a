import { composeCommit, type TreeFile } from './fast-import.ts';
import type { LayerDraft } from './layer-draft.ts';
import { branchRef, recordRef } from './names.ts';
import type { Repository } from './repository.ts';

/** Commits that the next layer's are put upon, as `git fast-import` calls them. */
interface Tip {
  readonly commit: string;
  readonly record: string;
}

/** What there is to say of a layer in commits. */
export interface LayerCommits {
  readonly branch: string;
  /** Counted from 0. */
  readonly number: number;
  /** Seconds since 1970. */
  readonly time: number;
  readonly draft: LayerDraft;
  /** The record's file. */
  readonly record: TreeFile;
}

/** Makes commits and branches by `git fast-import`: of many layers at once, and while others are still to come. */
export class Importer {
  readonly #repository: Repository;
  #commands: Buffer[] = [];
  #tip: Tip | undefined;
  #marks = 0;
  #imports: Promise<void> = Promise.resolve();

  /** @param tip the layer to go on from, undefined: there is none */
  constructor(repository: Repository, tip: Tip | undefined) {
    this.#repository = repository;
    this.#tip = tip;
  }

  add({ branch, number, time, draft, record }: LayerCommits): void {
    const next: Tip = { commit: `:${++this.#marks}`, record: `:${++this.#marks}` };
    const before = this.#tip;
    const commit = composeCommit({
      ref: branchRef(branch),
      mark: next.commit,
      message: `adding layer ${number}`,
      time,
      parents: before ? [before.commit] : [],
      deletions: draft.deletions,
      files: draft.files(),
    });
    const side = composeCommit({
      ref: recordRef(branch),
      mark: next.record,
      message: `what git cannot hold of ${branch}`,
      time,
      parents: before ? [before.record, next.commit] : [next.commit],
      fresh: true,
      deletions: [],
      files: [record, ...draft.keptFiles()],
    });
    this.#tip = next;
    this.#commands.push(Buffer.from([...commit, ...side].join(''), 'latin1'));
  }

  /**
   * Begins to make the commits added so far, after `blobs` and all imports before.
   *
   * @param branch the last one added: what comes later stands on it
   */
  import(branch: string, blobs: Promise<void>): void {
    const commands = this.#commands;
    this.#commands = [];
    // Marks end with the process that gave them.
    this.#tip = { commit: `${branchRef(branch)}^0`, record: `${recordRef(branch)}^0` };
    this.#imports = this.#import(commands, this.#imports, blobs);
    // Who awaits `finish` gets the error; when the pull fails first, nobody does.
    this.#imports.catch(() => undefined);
  }

  /** Waits for all imports. Throws what one of them threw. */
  finish(): Promise<void> {
    return this.#imports;
  }

  async #import(commands: readonly Buffer[], before: Promise<void>, blobs: Promise<void>): Promise<void> {
    await before;
    await blobs;
    if (commands.length === 0) return;
    const stream = Buffer.concat([...commands, Buffer.from('progress imported\ndone\n')]);
    await this.#repository.run(['fast-import', '--quiet', '--done', '--date-format=raw'], stream);
  }
}
