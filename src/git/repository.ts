import {
  existsSync,
  fstatSync,
  mkdirSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { geteuid, pid } from 'node:process';
import { GitError, printable } from '../errors.ts';
import { asGitError } from './git-error.ts';
import {
  type GitObject,
  type GitOptions,
  type GitProgram,
  findGit,
  readObjects,
  runGit,
} from './git-program.ts';
import type { ObjectID } from './trees.ts';
import { readHead, readRefs } from './refs.ts';
import { RootfsFiles } from './rootfs-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { type Yielder, openYielder } from '../sys/yielder.ts';
import { makeStage, removeStaleStages } from '../rootfs/stage.ts';
import { OpenDirectory } from '../sys/open-directory.ts';
import { LinuxFilesystem } from '../rootfs/linux.ts';
import { systemCalls } from '../sys/system-calls.ts';
import type { Environment } from '../sys/os-path.ts';
import { isInUserNamespace } from '../sys/privileges.ts';

/** A rootfs with a repository in it, `.git`, as a container may have left it: git sees what was checked, by a `PrivateGitDir`. */
export class Repository implements AsyncDisposable {
  readonly files: RootfsFiles;
  /** Ids of all refs, by their full names. */
  readonly refs: ReadonlyMap<string, ObjectID>;
  readonly yielder: Yielder;
  readonly program: GitProgram;
  readonly #options: GitOptions;
  #private: Promise<PrivateGitDir> | undefined;
  #ownsFiles = false;

  /** @param files stay open when this object is disposed of */
  constructor(files: RootfsFiles, program: GitProgram, options: GitOptions) {
    this.files = files;
    this.refs = readRefs(files);
    this.yielder = openYielder(options.signal);
    this.program = program;
    this.#options = options;
  }

  /**
   * The repository in a directory, undefined where `.git` is not a directory.
   *
   * @throws GitError when git is missing or too old, or refs are damaged; SyscallError where the directory may not be read
   */
  static async open(directory: string, options: GitOptions): Promise<Repository | undefined> {
    const program = await findGit(options.environment);
    const files = RootfsFiles.open(directory);
    if (!files) return undefined;
    try {
      const found = files.stat('.git');
      // Throws where this process may not look.
      if (!found) files.list('');
      if (found?.type === 'directory') {
        const repository = new Repository(files, program, options);
        repository.#ownsFiles = true;
        return repository;
      }
    } catch (error) {
      files[Symbol.dispose]();
      throw error;
    }
    files[Symbol.dispose]();
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const made = await this.#private?.catch(() => undefined);
    made?.close();
    if (this.#ownsFiles) this.files[Symbol.dispose]();
  }

  get signal(): AbortSignal | undefined {
    return this.#options.signal;
  }

  /**
   * Runs a git command.
   *
   * @param input what it reads from stdin
   * @returns what it wrote to stdout
   * @throws GitError, or the reason of the signal
   */
  async run(command: readonly string[], input?: Buffer): Promise<string> {
    const prepared = await this.#prepare();
    try {
      return await runGit(this.program, this.#options, prepared.path, command, input);
    } catch (error) {
      this.signal?.throwIfAborted();
      throw asGitError(error, `git ${command[0]} failed`, OTHER_TEMPORARY);
    }
  }

  /**
   * Contents of objects, in the order of their names (gitrevisions(7)).
   *
   * @throws GitError, or the reason of the signal
   */
  async *objects(names: readonly string[]): AsyncGenerator<GitObject, void, void> {
    const prepared = await this.#prepare();
    try {
      yield* readObjects(this.program, this.#options, prepared.path, names);
    } catch (error) {
      this.signal?.throwIfAborted();
      throw asGitError(error, 'git cat-file failed', OTHER_TEMPORARY);
    }
  }

  /** The commit that is checked out. */
  head(): ObjectID {
    const head = readHead(this.files);
    return 'id' in head ? head.id : this.commitOf(head.ref);
  }

  /** The commit that a ref names. */
  commitOf(ref: string): ObjectID {
    const id = this.refs.get(ref);
    if (id !== undefined) return id;
    throw new GitError(`${this.files.place('')} has no commit on ${ref}`, {
      code: 'GIT_DAMAGED',
      hint: 'check out another branch: dlrootfs checkout BRANCH --force',
    });
  }

  #prepare(): Promise<PrivateGitDir> {
    this.#private ??= this.#makePrivate();
    return this.#private;
  }

  async #makePrivate(): Promise<PrivateGitDir> {
    const made = await PrivateGitDir.make(this.#options.environment);
    try {
      await made.fill(this.refs, this.files, this.yielder);
      return made;
    } catch (error) {
      made.close();
      // The repository cannot be read.
      if (error instanceof SyscallError) throw error;
      throw asGitError(error, 'git cannot be given the repository', OTHER_TEMPORARY);
    }
  }
}

/**
 * The whole configuration of git. No file of a rootfs, an image or a user can run a program or change content. git's own rules for names
 * are for the file systems of other systems. `isHoldable` knows the names that this one cannot hold.
 */
const configuration = `[core]
	repositoryFormatVersion = 0
	bare = true
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	fsmonitor = false
	protectHFS = false
	protectNTFS = false
	ignoreCase = false
	quotePath = true
	multiPackIndex = false
	commitGraph = false
	logAllRefUpdates = false
	fsync = none
	bigFileThreshold = 16m
[gc]
	auto = 0
[maintenance]
	auto = false
[protocol]
	allow = never
`;

/** Objects up to here are copied; larger ones, and packs, are read where they are. In bytes. */
const LARGEST_COPY = 1024 * 1024;
const packName = /^pack-(?:[0-9a-f]{40}|[0-9a-f]{64})\.(?:pack|idx)$/;

/**
 * A private GIT_DIR outside the rootfs, with dlrootfs's own configuration. git never sees the rootfs's `.git`, which a container may have
 * written. The GIT_DIR gets refs as text. It gets objects that were opened without following links: small ones as copies, others as
 * symbolic links to this process's descriptors.
 */
class PrivateGitDir {
  readonly path: string;
  readonly #lock: LinuxFilesystem | undefined;
  /** Files that git reads through this process's descriptors, with the RootfsFiles that opened them. */
  readonly #open: (readonly [files: RootfsFiles, file: number])[] = [];

  private constructor(directory: string, lock: LinuxFilesystem | undefined) {
    this.path = directory;
    this.#lock = lock;
  }

  /**
   * An empty directory.
   *
   * @throws GitError, the system's errors
   */
  static async make(environment: Environment): Promise<PrivateGitDir> {
    const above = temporaryDirectory(environment);
    using directory = OpenDirectory.open(above);
    const target = { directory, name: 'git' };
    await removeStaleStages(target);
    const stage = makeStage(target);
    if ('denied' in stage) {
      throw new GitError(`cannot write ${printable(above)}: ${stage.denied}`, {
        code: stage.denied,
        hint: OTHER_TEMPORARY,
      });
    }
    const calls = systemCalls();
    const made = stage.root.path;
    const opened = calls && LinuxFilesystem.open(calls, Buffer.from(stage.root.self));
    stage.root.close();
    const lock = typeof opened === 'number' ? undefined : opened;
    // A run in another PID namespace sees by the lock that this one lives.
    lock?.lock();
    return new PrivateGitDir(made, lock);
  }

  /**
   * Gives git a repository with these refs (names and ids) and the objects of another one.
   *
   * @throws GitError where an object is not a regular file
   */
  async fill(refs: ReadonlyMap<string, string>, files: RootfsFiles, yielder: Yielder): Promise<void> {
    for (const name of ['objects', 'objects/pack', 'refs']) mkdirSync(path.join(this.path, name));
    const lines = [...refs].toSorted(([one], [other]) => (one < other ? -1 : 1));
    const packed = `# pack-refs with: sorted \n${lines.map(([name, id]) => `${id} ${name}\n`).join('')}`;
    for (const [name, text] of [
      ['config', configuration],
      ['HEAD', 'ref: refs/heads/none\n'],
      ['packed-refs', packed],
    ] as const)
      writeFileSync(path.join(this.path, name), text);
    for (const name of files.list('.git/objects')) {
      if (!/^[0-9a-f]{2}$/.test(name)) continue;
      mkdirSync(path.join(this.path, 'objects', name));
      for (const rest of files.list(`.git/objects/${name}`)) {
        if (/^(?:[0-9a-f]{38}|[0-9a-f]{62})$/.test(rest)) this.#add(files, `objects/${name}/${rest}`);
        if (yielder.isDue()) await yielder.pause();
      }
    }
    for (const name of files.list('.git/objects/pack')) {
      if (packName.test(name)) this.#add(files, `objects/pack/${name}`);
      if (yielder.isDue()) await yielder.pause();
    }
  }

  close(): void {
    for (const [{ filesystem }, file] of this.#open) filesystem.closeFile(file);
    rmSync(this.path, { recursive: true, force: true });
    this.#lock?.close();
  }

  #add(files: RootfsFiles, name: string): void {
    const file = files.open(`.git/${name}`);
    if (file === undefined) return;
    const { size } = fstatSync(file);
    const place = path.join(this.path, name);
    const link = `/proc/${pid}/fd/${file}`;
    if ((size > LARGEST_COPY || name.startsWith('objects/pack/')) && existsSync(link)) {
      this.#open.push([files, file]);
      symlinkSync(link, place);
      return;
    }
    try {
      const bytes = Buffer.alloc(size);
      const length = readSync(file, bytes, 0, size, 0);
      writeFileSync(place, bytes.subarray(0, length), { mode: 0o400 });
    } finally {
      files.filesystem.closeFile(file);
    }
  }
}

/** What helps where temporary files cannot be written. */
const OTHER_TEMPORARY = 'name another directory for temporary files in TMPDIR';

/**
 * The directory for temporary files. In the user namespace of --userns the owner of /tmp is nobody, as for every file of the host's root: its
 * safety was checked by the run outside, which sees the true owner.
 *
 * @throws GitError for a directory in which other users could replace dlrootfs's own files
 */
export function temporaryDirectory(environment: Environment): string {
  const named = environment['TMPDIR'];
  const directory = named !== undefined && path.isAbsolute(named) ? named : '/tmp';
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) {
    throw new GitError(`cannot write ${printable(directory)}: it is not a directory`, {
      code: 'ENOENT',
      hint: OTHER_TEMPORARY,
    });
  }
  const isOurs = stat.uid === 0 || stat.uid === geteuid?.() || isInUserNamespace(environment);
  const isSticky = (stat.mode & 0o1000) !== 0;
  if (isOurs && (isSticky || (stat.mode & 0o022) === 0)) return directory;
  throw new GitError(
    `cannot use ${printable(directory)} for temporary files: other users may replace files in it`,
    { code: 'EACCES', hint: `${OTHER_TEMPORARY} that only you can write` },
  );
}
