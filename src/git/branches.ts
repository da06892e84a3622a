import { GitError, printable } from '../errors.ts';
import { branchRef, parseBranchName } from './names.ts';
import type { Repository } from './repository.ts';

/** How many branches an error names. */
const longestList = 10;

/**
 * The branch that is meant: by its name, a layer's number (`3`, `layer3`), or the beginning of a name that only one has.
 *
 * @throws GitError when there is none, or more than one
 */
export async function resolveBranch(repository: Repository, wanted: string): Promise<string> {
  const listing = await repository.run(['for-each-ref', '--format=%(refname)', branchRef('')]);
  const names = listing
    .split('\n')
    .filter((ref) => ref !== '')
    .map((ref) => ref.slice(branchRef('').length));
  if (names.includes(wanted)) return wanted;
  const number = /^(?:layer)?(\d+)$/.exec(wanted)?.[1];
  const matches = names.filter((name) =>
    number === undefined ? name.startsWith(wanted) : parseBranchName(name)?.number === Number(number),
  );
  if (matches.length === 1 && wanted !== '') return matches[0]!;
  const shown = (matches.length === 0 ? names : matches).slice(0, longestList).map((name) => printable(name));
  throw new GitError(
    matches.length === 0 || wanted === ''
      ? `there is no branch ${printable(wanted)}`
      : `${printable(wanted)} could be ${matches.length} branches`,
    {
      code: 'GIT_NO_BRANCH',
      hint: `there are ${shown.join(', ')}${names.length > longestList ? ', …' : ''}`,
    },
  );
}
