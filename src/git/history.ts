import { GitError, printable } from '../errors.ts';
import { branchName, branchOfRecord, recordPath, recordRefs } from './refs.ts';
import {
  type ObjectID,
  type TreeFile,
  type TreeMode,
  isSoundPath,
  treeFile,
  treeMode,
  unquotePath,
} from './trees.ts';
import type { Repository } from './repository.ts';
import { plain } from './inodes.ts';
import { RootfsState } from './rootfs-state.ts';
import { type TreeChange, parseLine } from '../tar/mtree.ts';
import { damaged, PULL_AGAIN } from './git-error.ts';

/** A layer's record, as a repository has it. */
export interface LayerRecord {
  readonly branch: string;
  /** The record's commit. */
  readonly id: ObjectID;
  /** The record's commit of the layer below; undefined for the base layer. */
  readonly below: ObjectID | undefined;
  /** The layer's own commit: where its branch was put. */
  readonly commit: ObjectID;
  /** Its lines, once `readRecords` has read them. */
  text: string;
}

/** The layers of a repository, by the names of their branches. */
export type History = ReadonlyMap<string, LayerRecord>;

/** The records of a repository; none in one that dlrootfs did not make. */
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
    history.set(branch, { branch, id: id as ObjectID, below, commit: commit as ObjectID, text: '' });
  }
  return history;
}

/**
 * How many layers of an image, from its base on, exist on top of one another.
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

/** Of a record, in bytes: one of a million files has about 130 MB. */
const LARGEST_RECORD = 500 * 1024 * 1024;

/**
 * Reads the texts of records, all by one call.
 *
 * @throws GitError when one is missing or invalid
 */
export async function readRecords(repository: Repository, layers: readonly LayerRecord[]): Promise<void> {
  const waiting = [...layers];
  for await (const { type, size, content } of repository.objects(
    layers.map(({ id }) => `${id}:${recordPath}`),
  )) {
    const layer = waiting.shift()!;
    if (type !== 'blob' || size > LARGEST_RECORD) throw badRecord(layer.branch, 'it is no record');
    const parts: Buffer[] = [];
    for await (const part of content) parts.push(part);
    layer.text = Buffer.concat(parts).toString('latin1');
  }
}

/**
 * The changes of a record. `contents` names a blob of the repository, in the way of gitrevisions(7).
 *
 * @throws GitError for a line that no layer can have made
 */
export function* changesOf({ id, branch, text }: LayerRecord): Generator<TreeChange, void, void> {
  let start = 0;
  for (let end = text.indexOf('\n'); end !== -1; start = end + 1, end = text.indexOf('\n', start)) {
    if (text[start] === '#') continue;
    const change = parseLine(text, start, end);
    if (!isSound(change)) throw badRecord(branch, `a line of it is damaged: ${text.slice(start, end)}`);
    const inRecord = change.type !== 'removed' && change.contents !== undefined;
    yield inRecord ? { ...change, contents: `${id}:${change.contents}` } : change;
  }
}

/** Whether a change is possible: a container may have written anything into a record. */
function isSound(change: TreeChange): boolean {
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
 * The rootfs after the last of these layers, with the blobs of files that git holds.
 *
 * @param chain base layer first
 */
export async function loadState(repository: Repository, chain: readonly LayerRecord[]): Promise<RootfsState> {
  const state = new RootfsState();
  for (const layer of chain) playRecord(state, layer);
  const top = chain.at(-1);
  if (!top) return state;
  for (const { path, id } of await listTree(repository, top.commit)) {
    const inode = state.find(path);
    if (inode) inode.id = id;
  }
  return state;
}

/** Applies the changes of a layer. */
export function playRecord(state: RootfsState, layer: LayerRecord): void {
  for (const change of changesOf(layer)) {
    try {
      state.apply(change);
    } catch (error) {
      throw error instanceof RangeError ? badRecord(layer.branch, `${change.path}: ${error.message}`) : error;
    }
  }
}

const lineOfTree = /^(100644|100755|120000) blob ([0-9a-f]{40})\t(.+)$/;

/** All files of a commit, in the order of their paths' bytes, as git-ls-tree(1) shows them. */
async function listTree(repository: Repository, commit: string): Promise<TreeFile[]> {
  const listing = await repository.run(['ls-tree', '-r', '--full-tree', commit]);
  const files: TreeFile[] = [];
  for (const line of listing.split('\n')) {
    // Any other type is a submodule: git sees a directory, which has no files of the rootfs in git.
    const [, mode, id, name] = lineOfTree.exec(line) ?? [];
    if (name === undefined) continue;
    const path = unquotePath(name);
    if (!isSoundPath(path, false))
      throw damaged(`a commit has a file that no rootfs can have: ${printable(path)}`);
    files.push({ path, mode: mode as TreeMode, id: id as ObjectID });
  }
  return files;
}

/**
 * What the rootfs is at a commit: a layer's, or a user's on top of one. Files that the user changed keep owner and mode as far
 * as git stores them; root owns new files.
 */
export async function stateAt(
  repository: Repository,
  commit: string,
  history: History,
): Promise<RootfsState> {
  const layer = await nearestLayer(repository, commit, history);
  const state = await loadState(repository, layer ? chainOf(history, layer) : []);
  if (layer?.commit !== commit) replaceFiles(state, await listTree(repository, commit));
  return state;
}

/** The layer of a commit, or of its nearest ancestor that has one. */
async function nearestLayer(
  repository: Repository,
  commit: string,
  history: History,
): Promise<LayerRecord | undefined> {
  const layers = new Map([...history.values()].map((layer) => [layer.commit as string, layer]));
  const known = layers.get(commit);
  if (known) return known;
  const ancestors = await repository.run(['rev-list', commit, '--']);
  return ancestors
    .split('\n')
    .map((ancestor) => layers.get(ancestor))
    .find((layer) => layer !== undefined);
}

/** Makes `tree` all that git holds of `state`. */
function replaceFiles(state: RootfsState, tree: readonly TreeFile[]): void {
  const wanted = new Set(tree.map(({ path }) => path));
  for (const [path, inode] of state) {
    if (treeMode(path, inode) && !wanted.has(path)) state.apply({ type: 'removed', path });
  }
  for (const file of tree) {
    const before = state.find(file.path);
    const known = before && treeFile(file.path, before);
    if (known && known.id === file.id && known.mode === file.mode) continue;
    makeAbove(state, file.path);
    const type = file.mode === '120000' ? 'symlink' : 'file';
    const { uid, gid, mode } = before?.type === type ? before : { ...plain, mode: 0o644 };
    const ownMode = file.mode === '100755' ? mode | 0o111 : mode & ~0o111;
    state.apply({ ...plain, uid, gid, mode: ownMode, type, path: file.path });
    const inode = state.find(file.path)!;
    inode.id = file.id;
    inode.markTimeless();
  }
}

/** Makes the directories above a path that are missing. */
function makeAbove(state: RootfsState, path: string): void {
  for (let end = path.indexOf('/'); end !== -1; end = path.indexOf('/', end + 1)) {
    const above = path.slice(0, end);
    if (state.find(above)?.children) continue;
    state.apply({ ...plain, type: 'directory', path: above });
    state.find(above)!.markTimeless();
  }
}
