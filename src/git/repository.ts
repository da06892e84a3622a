import { lstatSync } from 'node:fs';
import path from 'node:path';
import { findGit, runGit, type GitOptions, type GitPlace, type GitProgram } from './git-program.ts';

/** A rootfs with a repository in it, `.git`. */
export class Repository {
  readonly directory: string;
  readonly gitDirectory: string;
  readonly #program: GitProgram;
  readonly #options: GitOptions;

  constructor(directory: string, program: GitProgram, options: GitOptions) {
    this.directory = path.resolve(directory);
    this.gitDirectory = path.join(this.directory, '.git');
    this.#program = program;
    this.#options = options;
  }

  /**
   * The repository in a directory, undefined where `.git` is no directory.
   *
   * @throws GitError when git is missing or too old
   */
  static async open(directory: string, options: GitOptions): Promise<Repository | undefined> {
    const repository = new Repository(directory, await findGit(options.environment), options);
    const stat = lstatSync(repository.gitDirectory, { throwIfNoEntry: false });
    return stat?.isDirectory() === true ? repository : undefined;
  }

  get signal(): AbortSignal | undefined {
    return this.#options.signal;
  }

  /**
   * Runs a command of git's.
   *
   * @param input what it reads from stdin
   * @param place instead of this work tree and its index
   * @returns what it wrote to stdout
   */
  run(command: readonly string[], input?: Buffer, place?: Partial<GitPlace>): Promise<string> {
    const { gitDirectory, directory } = this;
    return runGit(
      this.#program,
      this.#options,
      { gitDirectory, workTree: directory, ...place },
      command,
      input,
    );
  }

  /** The commit that a name means. */
  async commitOf(name: string): Promise<string> {
    return (await this.run(['rev-parse', '--verify', `${name}^0`])).trim();
  }
}
