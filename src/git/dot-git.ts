import { pid } from 'node:process';
import { GitError } from '../errors.ts';
import { IndexFile } from './index-file.ts';
import type { Inode } from './inodes.ts';
import { branchRef } from './refs.ts';
import { NewFile, type RootfsFiles } from './rootfs-files.ts';
import type { RootfsState } from './rootfs-state.ts';
import { isHoldable, treeMode } from './trees.ts';
import { join, nameOf, parentPath } from '../rootfs/directories.ts';
import type { Yielder } from '../sys/yielder.ts';
import { damaged } from './git-error.ts';
import { isAlive } from '../sys/temp-file.ts';

/** What is left in `.git/config`: nothing that runs a program, and what a rootfs needs to be kept as it is by any git. */
const configuration = `# A root file system, one branch per layer, by dlrootfs. Nothing may change a byte of it, and names that git
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

/** A file in the repository while its rootfs is being changed. It names the process. */
const MARKER = '.git/dlrootfs-checkout';
/** In bytes. */
const LARGEST_MARKER = 4096;

/** Whether a checkout began and did not end. */
export function isInterrupted(files: RootfsFiles): boolean {
  return files.stat(MARKER) !== undefined;
}

/**
 * Marks the rootfs as being changed, until `unmarkCheckout`.
 *
 * @returns whether an earlier checkout had left it so
 * @throws GitError when another process is using it
 */
export function markCheckout(files: RootfsFiles): boolean {
  const earlier = files.read(MARKER, LARGEST_MARKER);
  if (earlier) {
    const other = Number.parseInt(earlier.toString('latin1'), 10);
    if (other > 0 && other !== pid && isAlive(other)) {
      throw new GitError(`process ${other} is checking out another layer`, {
        code: 'GIT_BUSY',
        hint: `wait until it is done; if it is no dlrootfs, remove ${files.place(MARKER)}`,
      });
    }
    // What the killed run would have removed.
    for (const lock of ['index', 'HEAD', 'info/exclude']) files.remove(`.git/${lock}.lock`);
    files.remove(MARKER);
  }
  files.create(MARKER, Buffer.from(`${pid}\n`));
  return earlier !== undefined;
}

export function unmarkCheckout(files: RootfsFiles): void {
  files.remove(MARKER);
}

/**
 * Tells git that the rootfs on disk is `state`, and that `branch` is checked out, so that `git status` is clean and quick: writes the
 * index, `info/exclude` and `HEAD`.
 *
 * @throws GitError
 */
export async function recordCheckout(
  files: RootfsFiles,
  state: RootfsState,
  branch: string,
  yielder: Yielder,
): Promise<void> {
  files.forget();
  using file = files.replacing('.git/index');
  const index = new IndexFile(files, file);
  const excluded: string[] = [];
  for (const [path, inode] of state) {
    const mode = treeMode(path, inode);
    if (mode !== undefined) {
      // A further name that came or went has changed it.
      if (inode.linked || !inode.hasStat) inode.setStat(files.statIn(parentPath(path), nameOf(path)));
      index.add(path, mode, inode);
    } else if (isNoFileOfGit(path, inode)) excluded.push(...exclude(state, path));
    if (yielder.isDue()) await yielder.pause();
  }
  index.finish();
  file.close();
  files.makeDirectory('.git/info');
  files.replace('.git/info/exclude', Buffer.from(excluded.join(''), 'latin1'));
  files.replace('.git/HEAD', Buffer.from(`ref: ${branchRef(branch)}\n`));
}

/** Whether git cannot hold a path, although it can hold other files in that directory. */
function isNoFileOfGit(path: string, { type }: Inode): boolean {
  return !isHoldable(path, type === 'symlink' ? 'symlink' : 'file') && isHoldable(parentPath(path), 'file');
}

/**
 * Lines of `.git/info/exclude` for a path that git cannot hold: `git status` should not show it as untracked either. git would show a
 * directory that has its own repository, and no file of the rootfs in git, as a whole.
 */
function exclude(state: RootfsState, path: string): string[] {
  if (nameOf(path) !== '.git') return [pattern(path)];
  const above = parentPath(path);
  return holdsFiles(state, above) ? [pattern(path)] : [pattern(path), pattern(above)];
}

/** Whether git holds a file below a directory. */
function holdsFiles(state: RootfsState, directory: string): boolean {
  const waiting = [{ path: directory, children: state.find(directory)?.children }];
  for (let place = waiting.pop(); place; place = waiting.pop()) {
    for (const [name, number] of place.children ?? []) {
      const path = join(place.path, name);
      const inode = state.get(number);
      if (treeMode(path, inode) !== undefined) return true;
      if (inode.children && isHoldable(path, 'file')) waiting.push({ path, children: inode.children });
    }
  }
  return false;
}

/** A line that means this path alone; a pattern has no way to name a newline. */
function pattern(path: string): string {
  return path.includes('\n') ? '' : `/${path.replaceAll(/[\\*?[\] ]/g, String.raw`\$&`)}\n`;
}

/** What belongs to one work tree or to one process. */
const passing = /^index$|\.lock$|^tmp_|^dlrootfs-/;
/** Limit in bytes on a file other than an object: a larger one is an attack. */
const LARGEST_COPY = 256 * 1024 * 1024;
const COPY_SIZE = 1024 * 1024;

/**
 * Copies a repository, byte for byte, into a rootfs that has none: all its directories, regular files and symlinks, of which none is
 * followed. Objects never change, so that they may be shared by hard links; git replaces all other files it writes.
 *
 * @throws GitError, the reason of the signal
 */
export async function copyRepository(from: RootfsFiles, to: RootfsFiles, yielder: Yielder): Promise<void> {
  const waiting = ['.git'];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    to.makeDirectory(directory);
    for (const name of from.list(directory)) {
      if (passing.test(name)) continue;
      const path = `${directory}/${name}`;
      const stat = from.stat(path);
      if (stat?.type === 'directory') waiting.push(path);
      else if (stat?.type === 'symlink') copySymlink(from, to, path);
      else if (stat?.type === 'file') await copyFile(from, to, path, stat.size, yielder);
      if (yielder.isDue()) await yielder.pause();
    }
  }
}

function copySymlink(from: RootfsFiles, to: RootfsFiles, path: string): void {
  const target = from.filesystem.readLink(from.parent(path), nameOf(path));
  if (typeof target === 'string') to.filesystem.makeSymlink(to.parent(path), nameOf(path), target);
}

async function copyFile(
  from: RootfsFiles,
  to: RootfsFiles,
  path: string,
  size: number,
  yielder: Yielder,
): Promise<void> {
  const name = nameOf(path);
  if (path.startsWith('.git/objects/')) {
    if (to.filesystem.makeLink(from.parent(path), name, to.parent(path), name) === 0) return;
  } else if (size > LARGEST_COPY)
    throw damaged(`cannot copy ${from.place(path)}: it has ${size} bytes, more than ${LARGEST_COPY}`);
  using copy = new NewFile(to, path);
  let position = 0;
  for (const piece of from.pieces(path, Buffer.allocUnsafe(COPY_SIZE))) {
    copy.write(piece, position);
    position += piece.length;
    await yielder.pause();
  }
  copy.close();
}
