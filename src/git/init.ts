import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { asGitError } from './git-error.ts';
import { runGitOutside, type GitOptions, type GitProgram } from './git-program.ts';

/** What is left in `.git/config`: nothing that runs a program, and what a rootfs needs to be kept as it is by any git. */
const configuration = `# A root file system, one branch a layer, by dlrootfs. Nothing may change a byte of it, and names that git
# refuses for the sake of other systems are allowed.
[core]
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

/** The attributes that count before all `.gitattributes` of a tree: no filter, no conversion, nothing left out of an archive. */
const attributes =
  '* -text !eol -crlf -filter -ident -working-tree-encoding -export-ignore -export-subst !diff !merge\n';

/**
 * Makes an empty repository in `directory`, `.git`, with no template and no hook.
 *
 * @throws GitError
 */
export async function initRepository(
  program: GitProgram,
  options: GitOptions,
  directory: string,
): Promise<void> {
  await runGitOutside(program, options, directory, ['init', '--template=', '.']).catch((error: unknown) => {
    throw asGitError(error, 'git could not make its repository');
  });
  const gitDirectory = path.join(directory, '.git');
  appendFileSync(path.join(gitDirectory, 'config'), configuration);
  mkdirSync(path.join(gitDirectory, 'info'), { recursive: true });
  writeFileSync(path.join(gitDirectory, 'info/attributes'), attributes);
  mkdirSync(path.join(gitDirectory, 'objects/pack'), { recursive: true });
}
