import { GitError, printable } from '../errors.ts';
import { markCheckout, recordCheckout, unmarkCheckout } from './dot-git.ts';
import { asGitError, damaged } from './git-error.ts';
import type { GitOptions } from './git-program.ts';
import { type History, readHistory, readRecords, stateAt } from './history.ts';
import { type FileInspection, inspectFiles } from './inspection.ts';
import { branchRef, resolveBranch } from './refs.ts';
import { type ObjectID, isHoldable } from './trees.ts';
import { Repository } from './repository.ts';
import type { RootfsState } from './rootfs-state.ts';
import { locate } from '../rootfs/location.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { clearPaths, type FileAtPath, restoreTree } from '../rootfs/work-tree.ts';
import type { Inode } from './inodes.ts';
import type { RootfsFiles } from './rootfs-files.ts';

export interface CheckoutOptions extends GitOptions {
  /** Discard changes that are in no commit. */
  readonly force: boolean;
}

export interface CheckedOut {
  readonly branch: string;
  /** What the system denied. */
  readonly notRestored: NotRestored;
}

/**
 * Makes the rootfs in `directory` exactly what it was at a branch, and checks that out. Nothing in the rootfs, its `.git` included, decides
 * what runs or where is written.
 *
 * Killed half-way it can be run again, and then finishes; until then no pull treats the directory as complete.
 *
 * @param wanted name of a branch, or enough of it: `layer3`, `3`
 * @throws GitError when the branch does not exist, the repository is damaged, or files of the user would be lost
 */
export async function checkout(
  directory: string,
  wanted: string,
  options: CheckoutOptions,
): Promise<CheckedOut> {
  try {
    using location = locate(directory);
    const path = location.directory.shown(location.name);
    await using repository = await Repository.open(path, options);
    if (!repository) throw notOurs(directory);
    const history = await readHistory(repository);
    if (history.size === 0) throw notOurs(directory);
    const branch = resolveBranch(repository.refs, wanted);
    const notRestored = await checkOut(repository, path, history, branch, options.force);
    return { branch, notRestored };
  } catch (error) {
    if (options.signal?.aborted === true) throw options.signal.reason;
    throw asGitError(error, `cannot check out ${printable(wanted)} in ${printable(directory)}`, undefined);
  }
}

async function checkOut(
  repository: Repository,
  directory: string,
  history: History,
  branch: string,
  force: boolean,
): Promise<NotRestored> {
  const { files, signal } = repository;
  await readRecords(repository, [...history.values()]);
  const stateOf = (commit: ObjectID): Promise<RootfsState> => stateAt(repository, commit, history);
  const target = await stateOf(repository.commitOf(branchRef(branch)));
  const current = await stateOf(repository.head());
  const interrupted = markCheckout(files);
  const gives = force || interrupted;
  let begun = interrupted;
  try {
    const found = await inspectFiles(repository, current, history, !gives);
    if (!gives) refuseLoss(found, target, branch);
    signal?.throwIfAborted();
    begun = true;
    const inTheWay = found.strangers.filter((stranger) => isInTheWay(stranger, target));
    // Also in directories that keep their owner out, which only `clearPaths` enters.
    const ours = [...current].map(([path, { type }]) => ({ path, type }));
    const gone = [...ours, ...found.ours].filter((one) => !isIn(target, one));
    await clearPaths(directory, [...gone, ...inTheWay]);
    const notRestored = await restoreState(repository, directory, target, found);
    await recordCheckout(files, target, branch, repository.yielder);
    unmarkCheckout(files);
    return notRestored;
  } finally {
    if (!begun) unmarkCheckout(files);
  }
}

function isIn(state: RootfsState, { path, type }: FileAtPath): boolean {
  return state.find(path)?.type === type;
}

/** @throws GitError naming the user's files that would be lost */
function refuseLoss(
  { changed, altered, strangers }: FileInspection,
  target: RootfsState,
  branch: string,
): void {
  const inTheWay = strangers.find((stranger) => isInTheWay(stranger, target))?.path;
  const [lost, what] =
    changed[0] !== undefined
      ? [changed[0], 'has changes that are in no commit']
      : inTheWay !== undefined
        ? [inTheWay, `is in no commit, and in the way of ${branch}`]
        : [altered[0], 'has an owner, a mode or an extended attribute that no layer gave it'];
  if (lost === undefined) return;
  throw new GitError(`${printable(lost === '' ? '/' : lost)} ${what}`, {
    code: 'GIT_DIRTY',
    hint:
      changed.length > 0 || inTheWay !== undefined
        ? 'commit or remove what you changed, or give it up with --force'
        : 'undo it, or give it up with --force',
  });
}

/** Whether an unknown file is at a path of the target, or below a path that is not a directory in the target. */
function isInTheWay({ path: name, type }: FileAtPath, target: RootfsState): boolean {
  const place = target.find(name);
  if (place) return !(place.children && type === 'directory');
  for (let end = name.lastIndexOf('/'); end > 0; end = name.lastIndexOf('/', end - 1)) {
    const above = target.find(name.slice(0, end));
    if (above) return !above.children;
  }
  return false;
}

function notOurs(directory: string): GitError {
  return new GitError(`${printable(directory)} holds no rootfs that was pulled with -g`, {
    code: 'GIT_NOT_OURS',
    hint: 'name its directory with -d',
  });
}

/**
 * Makes a rootfs equal to `state`. git outputs the contents that are not on disk yet, and dlrootfs writes them.
 *
 * @param found what is on disk already, in the repository's own rootfs; undefined: the rootfs is another one, and empty
 */
export async function restoreState(
  repository: Repository,
  directory: string,
  state: RootfsState,
  found: Pick<FileInspection, 'verified'> | undefined,
): Promise<NotRestored> {
  const missing = missingContents(repository.files, state, found?.verified);
  const objects = repository.objects([...missing.values()]);
  const contents = {
    has: (path: string) => missing.has(path),
    async *read(path: string): AsyncGenerator<Uint8Array, void, void> {
      const { value: object } = await objects.next();
      if (!object || object.type !== 'blob') throw withoutContent(path);
      yield* object.content;
    },
  };
  try {
    return await restoreTree(directory, state, contents, repository.yielder.pause);
  } finally {
    await objects.return();
  }
}

/** Paths of files whose content is not on disk → what gitrevisions(7) calls it; in the order of `state`, each inode once. */
function missingContents(
  files: RootfsFiles,
  state: RootfsState,
  verified: ReadonlyMap<string, ObjectID> | undefined,
): Map<string, string> {
  const missing = new Map<string, string>();
  const seen = new Set<number>();
  for (const [path, inode] of state) {
    // The target of a symlink in a user's commit is only in its blob.
    const hasContent = inode.type === 'file' || (inode.type === 'symlink' && inode.timeless);
    if (!hasContent || seen.has(inode.number)) continue;
    seen.add(inode.number);
    if (inode.id !== undefined && verified?.get(path) === inode.id) continue;
    if (verified && !isHoldable(path, 'file') && isOnDisk(files, path, inode)) continue;
    const name = inode.id ?? inode.contents;
    if (name === undefined) throw withoutContent(path);
    missing.set(path, name);
  }
  return missing;
}

/** Whether a file that git cannot hold exists on disk, under no other name, judged by its size and time. */
function isOnDisk(files: RootfsFiles, path: string, { size, mtimeSeconds }: Inode): boolean {
  const stat = files.stat(path);
  return (
    stat?.type === 'file' && stat.links === 1 && stat.size === size && stat.mtimeSeconds === mtimeSeconds
  );
}

function withoutContent(path: string): GitError {
  return damaged(`the repository has no content for ${printable(path)}`);
}
