import { GitError } from '../errors.ts';
import { parseLine, type Change } from '../tar/mtree.ts';
import type { TreeFile, TreeMode } from './tree-file.ts';
import type { LayerRecord } from './history.ts';
import { recordPath } from './names.ts';
import type { ObjectID } from './object-id.ts';
import { RootfsState } from './rootfs-state.ts';
import { unquotePath } from './tree-path.ts';
import type { Repository } from './repository.ts';

/** Texts of records, by the names of their commits. */
export type Records = ReadonlyMap<ObjectID, string>;

/**
 * Reads records, all by one call.
 *
 * @throws GitError when one is missing
 */
export async function readRecords(repository: Repository, layers: readonly LayerRecord[]): Promise<Records> {
  const wanted = Buffer.from(layers.map(({ id }) => `${id}:${recordPath}\n`).join(''));
  const answer = await repository.run(['cat-file', '--batch'], wanted);
  const records = new Map<ObjectID, string>();
  let at = 0;
  for (const { id, branch } of layers) {
    const end = answer.indexOf('\n', at);
    const size = /^[0-9a-f]+ blob (\d+)$/.exec(answer.slice(at, end))?.[1];
    if (size === undefined) {
      throw new GitError(`the record of ${branch} is missing`, {
        code: 'GIT_RECORD',
        hint: 'pull the image again into another directory',
      });
    }
    const start = end + 1;
    at = start + Number(size) + 1;
    records.set(id, answer.slice(start, at - 1));
  }
  return records;
}

/** The changes of a record. `contents` names a blob of the repository, in the way of gitrevisions(7). */
export function* changesOf(record: string, id: ObjectID): Generator<Change, void, void> {
  let start = 0;
  for (let end = record.indexOf('\n'); end !== -1; start = end + 1, end = record.indexOf('\n', start)) {
    if (record[start] === '#') continue;
    const change = parseLine(record.slice(start, end));
    const inRecord = change.type !== 'removed' && change.contents !== undefined;
    yield inRecord ? { ...change, contents: `${id}:${change.contents}` } : change;
  }
}

/**
 * What the rootfs was after the last of these layers, with the blobs of what git holds.
 *
 * @param chain base layer first
 */
export async function loadState(
  repository: Repository,
  records: Records,
  chain: readonly LayerRecord[],
): Promise<RootfsState> {
  const state = new RootfsState();
  for (const { id } of chain) {
    for (const change of changesOf(records.get(id)!, id)) state.apply(change);
  }
  const top = chain.at(-1);
  if (top) await loadTrees(repository, state, top.commit);
  return state;
}

/** Takes from a commit what git calls the contents and directories of its rootfs. */
async function loadTrees(repository: Repository, state: RootfsState, commit: string): Promise<void> {
  const root = await repository.run(['rev-parse', '--verify', `${commit}^{tree}`]);
  const entries = await listTree(repository, ['-t', commit]);
  for (const { path, id, type } of entries) {
    const place = state.find(path);
    if (!place) continue;
    if (type === 'blob') place.inode.id = id;
    else if (place.children) state.setTree(place.children, id);
  }
  state.setTree(state.root(), root.trim() as ObjectID);
}

/** All files of a commit, in the order of their paths' bytes. */
export async function readTree(repository: Repository, commit: string): Promise<TreeFile[]> {
  return listTree(repository, [commit]);
}

interface Listed extends TreeFile {
  readonly type: 'blob' | 'tree';
}

async function listTree(repository: Repository, wanted: readonly string[]): Promise<Listed[]> {
  const listing = await repository.run(['ls-tree', '-r', '--full-tree', ...wanted]);
  return listing
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const tab = line.indexOf('\t');
      const [mode, type, id] = line.slice(0, tab).split(' ');
      const path = unquotePath(line.slice(tab + 1));
      return { path, mode: mode as TreeMode, type: type as Listed['type'], id: id as ObjectID };
    });
}
