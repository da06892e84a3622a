import type { RootfsFiles } from './rootfs-files.ts';

/** What is left in `.git/config`: nothing that runs a program, and what a rootfs needs to be kept as it is by any git. */
const configuration = `# A root file system, one branch a layer, by dlrootfs. Nothing may change a byte of it, and names that git
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

/** The attributes that count before all `.gitattributes` of a tree: no filter, no conversion, nothing left out of an archive. */
const attributes =
  '* -text !eol -crlf -filter -ident -working-tree-encoding -export-ignore -export-subst !diff !merge\n';

/** Makes an empty repository in a rootfs, `.git`, as git-init(1) does with no template: nothing in it runs a program. */
export function initRepository(files: RootfsFiles): void {
  for (const name of ['objects/info', 'objects/pack', 'refs/heads', 'refs/tags', 'info']) {
    files.makeDirectory(`.git/${name}`);
  }
  files.create('.git/HEAD', Buffer.from('ref: refs/heads/master\n'));
  files.create('.git/config', Buffer.from(configuration));
  files.create('.git/info/attributes', Buffer.from(attributes));
}
