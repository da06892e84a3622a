import { GitError, printable } from '../errors.ts';
import { parseLine, type Change } from '../tar/mtree.ts';
import type { TreeFile, TreeMode } from './tree-file.ts';
import type { LayerRecord } from './history.ts';
import { recordPath } from './names.ts';
import type { ObjectID } from './object-id.ts';
import { RootfsState } from './rootfs-state.ts';
import { PULL_AGAIN } from './rootfs-files.ts';
import { isSoundPath, unquotePath } from './tree-path.ts';
import type { Repository } from './repository.ts';

/** Texts of records, by the names of their commits. */
export type Records = ReadonlyMap<ObjectID, string>;

/** Of a record, in bytes: one of a million files has about 130 MB. */
const LARGEST_RECORD = 500 * 1024 * 1024;

/**
 * Reads records, all by one call.
 *
 * @throws GitError when one is missing, or is no record
 */
export async function readRecords(repository: Repository, layers: readonly LayerRecord[]): Promise<Records> {
  const records = new Map<ObjectID, string>();
  const waiting = [...layers];
  for await (const { type, size, content } of repository.objects(
    layers.map(({ id }) => `${id}:${recordPath}`),
  )) {
    const { id, branch } = waiting.shift()!;
    if (type !== 'blob' || size > LARGEST_RECORD) throw badRecord(branch, 'it is no record');
    const parts: Buffer[] = [];
    for await (const part of content) parts.push(part);
    records.set(id, Buffer.concat(parts).toString('latin1'));
  }
  return records;
}

/**
 * The changes of a record. `contents` names a blob of the repository, in the way of gitrevisions(7).
 *
 * @throws GitError for a line that no layer can have made
 */
export function* changesOf(record: string, { id, branch }: LayerRecord): Generator<Change, void, void> {
  let start = 0;
  for (let end = record.indexOf('\n'); end !== -1; start = end + 1, end = record.indexOf('\n', start)) {
    if (record[start] === '#') continue;
    const change = parseLine(record.slice(start, end));
    if (!isSound(change)) throw badRecord(branch, `a line of it is damaged: ${record.slice(start, end)}`);
    const inRecord = change.type !== 'removed' && change.contents !== undefined;
    yield inRecord ? { ...change, contents: `${id}:${change.contents}` } : change;
  }
}

/** Whether a change says something that can be: what a container wrote into a record may be anything. */
function isSound(change: Change): boolean {
  const { type, path } = change;
  if (!isSoundPath(path, type === 'directory')) return false;
  if (type === 'removed') return true;
  if (type === 'hardlink' ? !isSoundPath(change.linkPath, false) : change.linkPath.includes('\0'))
    return false;
  const { mode, uid, gid, size, mtimeSeconds, mtimeNanoseconds, deviceMajor, deviceMinor } = change;
  return (
    isWhole(mode, 0, 0o7777) &&
    [uid, gid, deviceMajor, deviceMinor].every((number) => isWhole(number, 0, 0xffff_ffff)) &&
    isWhole(size, 0, Number.MAX_SAFE_INTEGER) &&
    isWhole(mtimeSeconds, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) &&
    isWhole(mtimeNanoseconds, 0, 999_999_999) &&
    /^[\w/]*$/.test(change.contents ?? '')
  );
}

function isWhole(number: number, least: number, most: number): boolean {
  return Number.isSafeInteger(number) && number >= least && number <= most;
}

/** The error for a record that this program did not write. */
function badRecord(branch: string, reason: string): GitError {
  return new GitError(`cannot read the record of ${branch}: ${printable(reason)}`, {
    code: 'GIT_RECORD',
    hint: PULL_AGAIN,
  });
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
  for (const layer of chain) playRecord(state, records, layer);
  const top = chain.at(-1);
  if (top) await loadTrees(repository, state, top.commit);
  return state;
}

/** Plays what a layer did. */
export function playRecord(state: RootfsState, records: Records, layer: LayerRecord): void {
  for (const change of changesOf(records.get(layer.id)!, layer)) {
    try {
      state.apply(change);
    } catch (error) {
      throw error instanceof RangeError ? badRecord(layer.branch, `${change.path}: ${error.message}`) : error;
    }
  }
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

const lineOfTree = /^(100644|100755|120000|040000) (blob|tree) ([0-9a-f]{40})\t(.+)$/;

async function listTree(repository: Repository, wanted: readonly string[]): Promise<Listed[]> {
  const listing = await repository.run(['ls-tree', '-r', '--full-tree', ...wanted]);
  const entries: Listed[] = [];
  for (const line of listing.split('\n')) {
    // What is no file or directory is a submodule: for git a directory, in which nothing of ours is.
    const [, mode, type, id, name] = lineOfTree.exec(line) ?? [];
    if (name === undefined) continue;
    const path = unquotePath(name);
    if (!isSoundPath(path, false)) throw badTree(path);
    entries.push({ path, mode: mode as TreeMode, type: type as Listed['type'], id: id as ObjectID });
  }
  return entries;
}

function badTree(path: string): GitError {
  return new GitError(`a commit has a file that no rootfs can have: ${printable(path)}`, {
    code: 'GIT_DAMAGED',
    hint: PULL_AGAIN,
  });
}
