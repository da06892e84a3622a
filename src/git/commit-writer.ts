import type { LayerRecord } from './history.ts';
import type { LayerDraft } from './layer-draft.ts';
import { branchRef, composeTitle, keptFiles, recordPath, recordRef } from './names.ts';
import type { ObjectStore } from './object-store.ts';
import { type Commit, type ObjectID, composeCommit } from './objects.ts';
import { contentIn } from './pack-writer.ts';
import type { RootfsState } from './rootfs-state.ts';
import { type SeeFile, TreeWriter } from './trees.ts';
import type { Yielder } from '../sys/yielder.ts';

/** Commits that the next layer's are put upon. */
type Tip = Pick<LayerRecord, 'commit' | 'id'>;

/** What there is to say of a layer in commits. All contents must be stored. */
export interface LayerCommits {
  readonly branch: string;
  /** Counted from 0. */
  readonly number: number;
  /** Seconds since 1970. */
  readonly time: number;
  readonly state: RootfsState;
  readonly draft: LayerDraft;
}

/**
 * Makes trees and commits, each layer's on those of the one before.
 *
 * `git fast-import` could do it, but it looks for each file of a directory from its beginning: a layer of 40,000 files took it 1.6 s.
 */
export class CommitWriter {
  readonly #objects: ObjectStore;
  readonly #trees: TreeWriter;
  #tip: Tip | undefined;
  readonly #refs = new Map<string, ObjectID>();

  /**
   * @param tip the layer to go on from, undefined: there is none
   * @param see told what is in each directory in which something changed
   */
  constructor(objects: ObjectStore, yielder: Yielder, tip: Tip | undefined, see: SeeFile) {
    this.#objects = objects;
    this.#trees = new TreeWriter(objects, yielder, see);
    this.#tip = tip;
  }

  /** Refs of the commits, by their full names, once git sees them. */
  get refs(): ReadonlyMap<string, ObjectID> {
    return this.#refs;
  }

  /** Adds the layer's commit, and the one of its record. */
  async add({ branch, number, time, state, draft }: LayerCommits): Promise<void> {
    const before = this.#tip;
    const commit = await this.#addCommit({
      tree: await this.#trees.write(state),
      parents: before ? [before.commit] : [],
      time,
      message: `adding layer ${number}`,
    });
    const id = await this.#addCommit({
      tree: await this.#addRecord(branch, draft),
      parents: before ? [before.id, commit] : [commit],
      time,
      message: `what git cannot hold of ${branch}`,
    });
    this.#tip = { commit, id };
    this.#refs.set(branchRef(branch), commit).set(recordRef(branch), id);
  }

  /** The tree with the record of the layer and the contents that no commit can hold. */
  async #addRecord(branch: string, draft: LayerDraft): Promise<ObjectID> {
    const record = [Buffer.from(composeTitle(branch), 'latin1'), ...draft.record()];
    const size = record.reduce((sum, { length }) => sum + length, 0);
    const id = await this.#objects.add(size, contentIn(record));
    const contents = [...draft.keptFiles()];
    const below =
      contents.length === 0
        ? []
        : [{ name: keptFiles, mode: '40000', id: await this.#trees.add(contents) } as const];
    return this.#trees.add([{ name: recordPath, mode: '100644', id }, ...below]);
  }

  async #addCommit(commit: Commit): Promise<ObjectID> {
    const text = composeCommit(commit);
    return this.#objects.add(text.length, contentIn(text), 'commit');
  }
}
