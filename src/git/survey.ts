import { lstatSync, readdirSync } from 'node:fs';
import { GitError, printable } from '../errors.ts';
import { shortID } from '../oci/digest.ts';
import { isInterrupted } from './dot-git.ts';
import { asGitError, ELSEWHERE } from './git-error.ts';
import type { GitOptions } from './git-program.ts';
import { type History, type LayerRecord, countCommon, readHistory, readRecords, stateAt } from './history.ts';
import { inspectFiles } from './inspection.ts';
import { type LayerIdentity, branchName, branchRef, readHead, readRefs, recordRefs } from './refs.ts';
import { Repository } from './repository.ts';
import { RootfsFiles } from './rootfs-files.ts';

/** What -g finds in a directory. */
export type Survey =
  /** Nothing: all layers are to come. */
  | { readonly kind: 'new' }
  /** All layers of the image. `checkedOut`: the last one is what DIR is now, perhaps with commits of the user's on top. */
  | { readonly kind: 'complete'; readonly branch: string; readonly checkedOut: boolean }
  /** The first `common` layers of the image, of another tag; the others are to be put on top of `base`. */
  | { readonly kind: 'partial'; readonly common: number; readonly base: LayerRecord };

/** The error for a directory that is not for this image. */
function refusal(
  code: string,
  what: string,
  hint = 'choose an empty directory with -d, or pull without -g',
): GitError {
  return new GitError(what, { code, hint });
}

/**
 * Looks at DIR before a pull with -g into it, and before anything is fetched.
 *
 * @param layers of the image, base first
 * @throws GitError when git is missing or too old, and when DIR is not for this image: it holds something else, another image, or
 * what is in no commit
 */
export async function surveyDirectory(
  directory: string,
  layers: readonly LayerIdentity[],
  options: GitOptions,
): Promise<Survey> {
  try {
    await using repository = await Repository.open(directory, options);
    return await survey(repository, directory, layers);
  } catch (error) {
    if (options.signal?.aborted === true) throw options.signal.reason;
    throw asGitError(error, `cannot continue from the rootfs in ${printable(directory)}`, ELSEWHERE);
  }
}

/**
 * The names of DIR's branches, those of the user among them, if it is from a pull with -g. Else, as for an image that holds a repository, and
 * where the refs cannot be read, none.
 */
export function branchesOf(directory: string): string[] {
  try {
    using files = RootfsFiles.open(directory);
    const refs = files === undefined ? [] : [...readRefs(files).keys()];
    if (!refs.some((ref) => ref.startsWith(recordRefs))) return [];
    const prefix = branchRef('');
    return refs.filter((ref) => ref.startsWith(prefix)).map((ref) => ref.slice(prefix.length));
  } catch {
    return [];
  }
}

async function survey(
  repository: Repository | undefined,
  directory: string,
  layers: readonly LayerIdentity[],
): Promise<Survey> {
  const stat = lstatSync(`${directory}/.`, { throwIfNoEntry: false });
  if (!stat || readdirSync(directory).length === 0) return { kind: 'new' };
  const shown = printable(directory);
  if (!repository) {
    throw refusal('GIT_OCCUPIED', `${shown} is not empty, and its files are in no layer of the image`);
  }
  const history = await readHistory(repository);
  if (isInterrupted(repository.files)) {
    const [what, hint] =
      history.size === 0
        ? ['was left by a pull that did not end', 'remove it and pull again']
        : [
            'is between two layers: a checkout was interrupted',
            `finish it with dlrootfs checkout BRANCH -d ${shown}`,
          ];
    throw refusal('GIT_INTERRUPTED', `${shown} ${what}`, hint);
  }
  if (history.size === 0) {
    throw refusal('GIT_NOT_OURS', `${shown} holds a git repository that is not from a pull with -g`);
  }
  const ids = layers.map(({ id }) => id);
  const common = countCommon(history, ids);
  const base = common === 0 ? undefined : history.get(branchName(common - 1, ids[common - 1]!));
  if (!base) {
    throw refusal('GIT_OTHER_IMAGE', `${shown} holds the layers of another image`);
  }
  if (common === layers.length) {
    const head = readHead(repository.files);
    const checkedOut = 'ref' in head && head.ref === branchRef(base.branch);
    return { kind: 'complete', branch: base.branch, checkedOut };
  }
  refuseTaken(history, ids, common, shown);
  await refuseDirty(repository, history, shown);
  return { kind: 'partial', common, base };
}

/** A branch has one name and one parent: refuses an existing layer that is on top of other layers. */
function refuseTaken(history: History, ids: readonly string[], common: number, shown: string): void {
  const taken = ids.findIndex((id, number) => number >= common && history.has(branchName(number, id)));
  if (taken === -1) return;
  throw refusal(
    'GIT_OTHER_IMAGE',
    `${shown} has layer ${taken} of the image, ${shortID(ids[taken]!)}, already on top of other layers`,
  );
}

async function refuseDirty(repository: Repository, history: History, shown: string): Promise<void> {
  await readRecords(repository, [...history.values()]);
  const current = await stateAt(repository, repository.head(), history);
  const { changed, altered, strangers } = await inspectFiles(repository, current, history, true);
  const first = changed[0] ?? strangers[0]?.path ?? altered[0];
  if (first === undefined) return;
  const isAltered = changed.length === 0 && strangers.length === 0;
  const what = isAltered ? 'owners, modes or attributes that no layer gave' : 'files that are in no commit';
  throw refusal(
    'GIT_DIRTY',
    `${shown} has ${what}, ${printable(first)} for one`,
    isAltered
      ? 'dlrootfs checkout BRANCH --force gives them up; or choose another directory with -d'
      : 'commit them, or take them away, or choose another directory with -d',
  );
}
