import { GitError } from '../errors.ts';
import { asGitError } from './git-error.ts';
import {
  type GitObject,
  type GitOptions,
  type GitProgram,
  findGit,
  readObjects,
  runGit,
} from './git-program.ts';
import type { ObjectID } from './objects.ts';
import { OTHER_TEMPORARY, PrivateGitDir } from './private-git-dir.ts';
import { readHead, readRefs } from './refs.ts';
import { RootfsFiles } from './rootfs-files.ts';
import { SyscallError } from '../sys/os-error.ts';
import { type Yielder, openYielder } from '../sys/yielder.ts';

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
   * The repository in a directory, undefined where `.git` is no directory.
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
   * Runs a command of git's.
   *
   * @param input what it reads from stdin
   * @returns what it wrote to stdout
   * @throws GitError, or the reason of the signal
   */
  async run(command: readonly string[], input?: Buffer): Promise<string> {
    const { path } = await this.#prepare();
    try {
      return await runGit(this.program, this.#options, path, command, input);
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
    const { path } = await this.#prepare();
    try {
      yield* readObjects(this.program, this.#options, path, names);
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
      made.init();
      made.setRefs(this.refs);
      await made.addObjects(this.files, this.yielder);
      return made;
    } catch (error) {
      made.close();
      // The repository cannot be read.
      if (error instanceof SyscallError) throw error;
      throw asGitError(error, 'git cannot be given the repository', OTHER_TEMPORARY);
    }
  }
}
