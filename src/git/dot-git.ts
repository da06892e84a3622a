import { geteuid, umask } from 'node:process';
import { GitError } from '../errors.ts';
import { nameOf, parentPath } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';
import type { FileNode, FileTree } from './file-tree.ts';
import { IndexFile } from './index-file.ts';
import type { RepositoryFiles } from './repository-files.ts';
import { isHoldable } from './trees.ts';

/** The content of `.git/config`: it runs no program, and any git keeps the rootfs unchanged by it. */
const configuration = `\
# A root file system, one branch per layer, by dlrootfs. Nothing may change a byte of it, and names that git
# refuses for the sake of other systems are allowed.
[core]
	repositoryformatversion = 0
	filemode = true
	bare = false
	logallrefupdates = true
	autocrlf = false
	ignoreCase = false
	precomposeUnicode = false
	protectHFS = false
	protectNTFS = false
	fsmonitor = false
	hooksPath = /dev/null
[user]
	name = dlrootfs
	email = mail@mail.com
# What an image has in .gitmodules, .gitattributes and the like is its own affair: here they are files as any other.
[fsck]
	hasDotgit = ignore
	gitmodulesBlob = ignore
	gitmodulesLarge = ignore
	gitmodulesName = ignore
	gitmodulesParse = ignore
	gitmodulesPath = ignore
	gitmodulesUpdate = ignore
	gitmodulesUrl = ignore
	gitattributesBlob = ignore
	gitattributesLarge = ignore
	gitattributesLineLength = ignore
	gitattributesSymlink = ignore
	gitignoreSymlink = ignore
	mailmapSymlink = ignore
`;

/**
 * The content of `.git/info/attributes`, which overrides all `.gitattributes` of a tree: no filter, no
 * conversion, nothing omitted from an archive.
 */
const attributes =
  '* -text !eol -crlf -filter -ident -working-tree-encoding -export-ignore -export-subst !diff !merge\n';

/**
 * Makes an empty repository `.git` in a rootfs, as git-init(1) does without a template. Nothing in it runs a
 * program.
 */
export function initRepository(files: RepositoryFiles): void {
  refuseUmask();
  for (const name of ['objects/info', 'objects/pack', 'refs/heads', 'refs/tags', 'info']) {
    files.makeDirectory(`.git/${name}`);
  }
  files.replace('.git/HEAD', Buffer.from('ref: refs/heads/master\n'));
  files.replace('.git/config', Buffer.from(configuration));
  files.replace('.git/info/attributes', Buffer.from(attributes));
}

/**
 * Refuses a umask by which this process could not enter the directories that it makes. Root may enter any.
 *
 * @throws GitError
 */
function refuseUmask(): void {
  const mask = umask();
  if ((mask & 0o700) === 0 || geteuid?.() === 0) return;
  throw new GitError(`cannot make a git repository with the umask ${mask.toString(8).padStart(4, '0')}`, {
    code: 'UMASK',
    hint: 'use a umask that keeps the rights of the owner: umask 022',
  });
}

/** Returns the full name of a branch. */
export function branchRef(name: string): string {
  return `refs/heads/${name}`;
}

/**
 * Writes the index, `info/exclude` and `HEAD`: they say that the files on disk are `tree`, and that `branch`
 * is checked out. So `git status` is clean and quick.
 *
 * @throws GitError, the system's errors
 */
export async function recordCheckout(
  files: RepositoryFiles,
  tree: FileTree,
  branch: string,
  yielder: Yielder,
): Promise<void> {
  files.forget();
  using file = files.replacing('.git/index');
  const { records, root } = tree;
  const index = new IndexFile(file, root.tree?.files ?? 0);
  const excluded: string[] = [];
  for (const [path, node] of tree) {
    if (typeof node === 'number' && tree.mode(path, node) !== undefined) {
      // A name that was added or removed changed the status.
      if (records.needsStat(node)) records.setStat(node, files.statIn(parentPath(path), nameOf(path)));
      index.add(path, node, records);
    } else if (isNoFileOfGit(path, tree, node)) excluded.push(...exclude(tree, path));
    if (yielder.isDue()) await yielder.pause();
  }
  index.finish();
  file.close();
  files.replace('.git/info/exclude', Buffer.from(excluded.join(''), 'latin1'));
  files.replace('.git/HEAD', Buffer.from(`ref: ${branchRef(branch)}\n`));
}

/** True if git cannot hold a path, although it can hold other files in that directory. */
function isNoFileOfGit(path: string, tree: FileTree, node: FileNode): boolean {
  return !isHoldable(path, tree.typeFor(node)) && isHoldable(parentPath(path), 'file');
}

/**
 * Returns lines of `.git/info/exclude` for a path that git cannot hold, so that `git status` does not show it
 * as untracked. git would show the whole directory of another repository if no file in it is tracked.
 */
function exclude(tree: FileTree, path: string): string[] {
  if (nameOf(path) !== '.git') return [pattern(path)];
  const above = parentPath(path);
  return (tree.directory(above)?.tree?.files ?? 0) > 0 ? [pattern(path)] : [pattern(path), pattern(above)];
}

/**
 * Returns a line that matches this path only; none for a path with a newline, which a pattern cannot have.
 */
function pattern(path: string): string {
  return path.includes('\n') ? '' : `/${path.replaceAll(/[\\*?[\] ]/g, String.raw`\$&`)}\n`;
}
