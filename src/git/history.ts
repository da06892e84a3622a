import { GitError } from '../errors.ts';
import { branchName, branchOfRecord, recordRefs } from './names.ts';
import type { ObjectID } from './object-id.ts';
import type { Repository } from './repository.ts';

/** A layer's record, as a repository has it. */
export interface LayerRecord {
  readonly branch: string;
  /** The record's commit. */
  readonly id: ObjectID;
  /** The record's commit of the layer below; undefined for the base layer. */
  readonly below: ObjectID | undefined;
  /** The layer's own commit: where its branch was put. */
  readonly commit: ObjectID;
}

/** The layers of a repository, by the names of their branches. */
export type History = ReadonlyMap<string, LayerRecord>;

/** The records of a repository; none in one that is not ours. */
export async function readHistory(repository: Repository): Promise<History> {
  const lines = await repository.run([
    'for-each-ref',
    '--format=%(refname) %(objectname) %(parent)',
    recordRefs,
  ]);
  const history = new Map<string, LayerRecord>();
  for (const line of lines.split('\n')) {
    const [ref, id, ...parents] = line.split(' ');
    const commit = parents.at(-1);
    if (ref === undefined || id === undefined || commit === undefined || commit === '') continue;
    const branch = branchOfRecord(ref);
    const below = parents.length === 2 ? (parents[0] as ObjectID) : undefined;
    history.set(branch, { branch, id: id as ObjectID, below, commit: commit as ObjectID });
  }
  return history;
}

/**
 * How many layers of an image, from its base on, are there and on top of one another.
 *
 * @param ids of the layers, base first
 */
export function countCommon(history: History, ids: readonly string[]): number {
  let below: ObjectID | undefined;
  for (const [number, id] of ids.entries()) {
    const record = history.get(branchName(number, id));
    if (!record || record.below !== below) return number;
    below = record.id;
  }
  return ids.length;
}

/** The records from the base layer up to one. */
export function chainOf(history: History, record: LayerRecord): LayerRecord[] {
  const byId = new Map([...history.values()].map((other) => [other.id, other]));
  const chain: LayerRecord[] = [];
  for (let next: LayerRecord | undefined = record; next; next = next.below && byId.get(next.below)) {
    chain.unshift(next);
    if (next.below !== undefined && !byId.has(next.below)) {
      throw new GitError(`the record of a layer below ${record.branch} is missing`, {
        code: 'GIT_RECORD',
        hint: 'pull the image again into another directory',
      });
    }
  }
  return chain;
}
