import { GitError, printable } from '../errors.ts';
import { resolveBranch } from './branches.ts';
import { openBreath } from './breath.ts';
import { stateAt } from './commit-state.ts';
import { readyContents } from './contents.ts';
import { asGitError } from './git-error.ts';
import type { GitOptions } from './git-program.ts';
import { readHistory, type History } from './history.ts';
import { inspect, type Found, type Inspection } from './inspection.ts';
import { mark, unmark } from './marker.ts';
import { branchRef } from './names.ts';
import { readRecords } from './record.ts';
import { Repository } from './repository.ts';
import type { RootfsState } from './rootfs-state.ts';
import { settle } from './settle.ts';
import { TreeFiles } from './tree-files.ts';
import type { OpenWorkTree } from './work-tree.ts';

export interface CheckoutOptions extends GitOptions {
  /** Give up what is in no commit. */
  readonly force: boolean;
  readonly openWorkTree: OpenWorkTree;
}

/**
 * Makes the rootfs in `directory` exactly what it was at a branch, and checks that out.
 *
 * Killed half-way it can be run again, and then finishes; until then no pull takes the directory for whole.
 *
 * @param wanted name of a branch, or enough of it: `layer3`, `3`
 * @returns the branch's name
 * @throws GitError when there is no such branch, or something of the user's would be lost
 */
export async function checkout(directory: string, wanted: string, options: CheckoutOptions): Promise<string> {
  const repository = await Repository.open(directory, options);
  if (!repository) throw notOurs(directory);
  try {
    const history = await readHistory(repository);
    if (history.size === 0) throw notOurs(directory);
    const branch = await resolveBranch(repository, wanted);
    await checkOut(repository, history, branch, options);
    return branch;
  } catch (error) {
    if (options.signal?.aborted === true) throw options.signal.reason;
    throw asGitError(error, `cannot check out ${printable(wanted)} in ${printable(directory)}`);
  }
}

async function checkOut(
  repository: Repository,
  history: History,
  branch: string,
  options: CheckoutOptions,
): Promise<void> {
  const { directory, gitDirectory, signal } = repository;
  const records = await readRecords(repository, [...history.values()]);
  const stateOf = async (name: string): Promise<RootfsState> =>
    stateAt(repository, await repository.commitOf(name), history, records);
  const target = await stateOf(branchRef(branch));
  const current = await stateOf('HEAD');

  const files = new TreeFiles(directory);
  const interrupted = mark(gitDirectory);
  let begun = interrupted;
  try {
    const found = await inspect(repository, files, current, records);
    if (!options.force && !interrupted) refuseLoss(found, target, branch);
    signal?.throwIfAborted();
    begun = true;
    const workTree = options.openWorkTree(directory);
    workTree.clear(found.ours.filter((one) => !isIn(target, one)));
    await repository.run(['checkout', '--force', '--no-recurse-submodules', branch, '--']);
    const contents = await readyContents(repository, target, files);
    workTree.restore(target, contents.files, found.attributes);
    contents.discard();
    await settle(gitDirectory, target, files, openBreath(signal));
    unmark(gitDirectory);
  } finally {
    if (!begun) unmark(gitDirectory);
  }
}

function isIn(state: RootfsState, { path, type }: Found): boolean {
  return state.find(path)?.inode.type === type;
}

/** @throws GitError naming a file of the user's that would not be there afterwards */
function refuseLoss({ changed, strangers }: Inspection, target: RootfsState, branch: string): void {
  const inTheWay = strangers.find((stranger) => isInTheWay(stranger, target));
  const lost = changed[0] ?? inTheWay?.path;
  if (lost === undefined) return;
  const what =
    changed.length > 0 ? 'has changes that are in no commit' : `is in no commit, and in the way of ${branch}`;
  throw new GitError(`${printable(lost)} ${what}`, {
    code: 'GIT_DIRTY',
    hint: 'commit or remove what you changed, or give it up with --force',
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
