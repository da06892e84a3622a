import { GitError, printable } from '../errors.ts';
import { mark, settle, unmark } from './dot-git.ts';
import { asGitError } from './git-error.ts';
import type { GitOptions } from './git-program.ts';
import { type History, readHistory, readRecords, stateAt } from './history.ts';
import { type Found, type Inspection, inspect } from './inspection.ts';
import { branchRef } from './names.ts';
import type { ObjectID } from './objects.ts';
import { resolveBranch } from './refs.ts';
import { Repository } from './repository.ts';
import { restoreState } from './restore.ts';
import type { RootfsState } from './rootfs-state.ts';
import { locate } from '../rootfs/location.ts';
import type { NotRestored } from '../rootfs/not-restored.ts';
import { WorkTree } from '../rootfs/work-tree.ts';

export interface CheckoutOptions extends GitOptions {
  /** Give up what is in no commit. */
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
 * Killed half-way it can be run again, and then finishes; until then no pull takes the directory for whole.
 *
 * @param wanted name of a branch, or enough of it: `layer3`, `3`
 * @throws GitError when the branch does not exist, the repository is damaged, or something of the user's would be lost
 */
export async function checkout(
  directory: string,
  wanted: string,
  options: CheckoutOptions,
): Promise<CheckedOut> {
  try {
    const { path } = await locate(directory);
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
  const records = await readRecords(repository, [...history.values()]);
  const stateOf = (commit: ObjectID): Promise<RootfsState> => stateAt(repository, commit, history, records);
  const target = await stateOf(repository.commitOf(branchRef(branch)));
  const current = await stateOf(repository.head());
  const interrupted = mark(files);
  const gives = force || interrupted;
  let begun = interrupted;
  try {
    const found = await inspect(repository, current, history, records, !gives);
    if (!gives) refuseLoss(found, target, branch);
    signal?.throwIfAborted();
    begun = true;
    const workTree = new WorkTree(directory);
    const inTheWay = found.strangers.filter((stranger) => isInTheWay(stranger, target));
    // Also in directories that keep their owner out, which only `clear` opens.
    const ours = [...current].map(([path, { type }]) => ({ path, type }));
    await workTree.clear([...[...ours, ...found.ours].filter((one) => !isIn(target, one)), ...inTheWay]);
    await restoreState(repository, workTree, target, { ...found, files });
    await settle(files, target, branch, repository.yielder);
    unmark(files);
    return workTree.notRestored;
  } finally {
    if (!begun) unmark(files);
  }
}

function isIn(state: RootfsState, { path, type }: Found): boolean {
  return state.find(path)?.type === type;
}

/** @throws GitError naming what is the user's and would not be there afterwards */
function refuseLoss({ changed, altered, strangers }: Inspection, target: RootfsState, branch: string): void {
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

/** Whether a stranger is where something else has to be, or in what is to be no directory. */
function isInTheWay({ path: name, type }: Found, target: RootfsState): boolean {
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
