import { GitError, printable } from '../errors.ts';
import { readChanges } from '../rootfs/changes.ts';
import { type Yielder, openYielder } from '../sys/yielder.ts';
import { CommitWriter, commitTime } from './commit-writer.ts';
import { branchRef, initRepository, recordCheckout } from './dot-git.ts';
import { FileTree } from './file-tree.ts';
import { makeBranches } from './git-program.ts';
import { asGitError, outOfStep } from './git-error.ts';
import { ObjectStore } from './object-store.ts';
import { Packer } from './packer.ts';
import { RepositoryFiles } from './repository-files.ts';
import type { ObjectID } from './trees.ts';

/** The name and the date of a layer's branch. */
export interface LayerIdentity {
  /** 64 hex digits. */
  readonly id: string;
  /** The date of the layer (RFC 3339), if the image has one. */
  readonly created?: string | undefined;
}

/**
 * Makes a new repository `.git` in a rootfs, with a branch per layer: `layer<n>_<id>`, the original's names,
 * each on top of the previous one. git makes the branches; all objects are written here.
 */
export class GitLayers {
  readonly #program: string;
  readonly #signal: AbortSignal | undefined;
  readonly #files: RepositoryFiles;
  readonly #objects: ObjectStore;
  readonly #packer: Packer;
  readonly #commits: CommitWriter;
  readonly #yielder: Yielder;
  readonly #tree = new FileTree();
  /** The branches' commits. */
  readonly #branches = new Map<string, ObjectID>();
  /** The number of layers so far. */
  #count = 0;
  /** All work so far, in order; rejected with the first error. */
  #work: Promise<void> = Promise.resolve();
  /** The work of `settle`. */
  #settled: Promise<void> | undefined;

  private constructor(program: string, files: RepositoryFiles, signal: AbortSignal | undefined) {
    this.#program = program;
    this.#files = files;
    this.#signal = signal;
    this.#yielder = openYielder(signal);
    // Through a descriptor, so that another directory of this name is not written to.
    const packs = files.keepOpen('.git/objects/pack');
    this.#objects = new ObjectStore(packs, () => this.#yielder.pause());
    this.#commits = new CommitWriter(this.#objects, files, this.#yielder);
    this.#packer = new Packer(packs, this.#tree.records);
  }

  /**
   * Makes the repository in an empty directory.
   *
   * @param program the git that `findGit` returned
   * @param shown the directory's name in messages
   * @throws GitError, also if the umask would deny this process its own files
   */
  static open(program: string, directory: string, signal?: AbortSignal, shown = directory): GitLayers {
    let files: RepositoryFiles | undefined;
    try {
      files = new RepositoryFiles(directory, shown);
      initRepository(files);
      return new GitLayers(program, files, signal);
    } catch (error) {
      files?.[Symbol.dispose]();
      throw asGitError(error, `cannot make a git repository in ${printable(shown)}`);
    }
  }

  /**
   * For `RootfsOptions.contents`: receives the contents of all files and symlinks in the noted changes, in
   * order.
   */
  get contents(): SharedArrayBuffer {
    return this.#packer.ring;
  }

  /** Returns the cause of an error of the rootfs: the error of the packer's thread, if that failed. */
  async explainFailure(error: unknown): Promise<unknown> {
    return this.#packer.explainFailure(error);
  }

  /**
   * Receives the next changes of the rootfs, for `RootfsOptions.onChanges`.
   *
   * @param records of a ChangeLog; if they are not the changes of this rootfs, `commit` throws
   */
  note(records: Uint8Array): void {
    void this.#then(`cannot commit layer ${this.#count}`, async () => {
      this.#apply(records);
      await this.#yielder.pause();
    });
  }

  #apply(records: Uint8Array): void {
    for (const change of readChanges(records)) {
      try {
        this.#tree.apply(change);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        const place = printable(change.path);
        throw new GitError(`the changes of the layer do not fit together at ${place}: ${error.message}`, {
          code: 'GIT_CHANGES',
          hint: 'pull it without -g, and report this with the name of the image',
          cause: error,
        });
      }
    }
  }

  /**
   * Appends a step to the work.
   *
   * @param what the error says if the step fails, a sentence
   */
  #then(what: string, step: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(() =>
      step().catch((error: unknown) => {
        throw this.#signal?.aborted === true ? this.#signal.reason : asGitError(error, what);
      }),
    );
    // The caller that awaits it gets the error; if the pull fails first, nobody awaits it.
    this.#work.catch(() => undefined);
    return this.#work;
  }

  /**
   * Commits the layer as it is on disk: all changes noted since the previous layer. The cost depends only on
   * these changes. When the promise is fulfilled, the caller may change the rootfs, while trees and commit
   * are still written. The next call, or `finish`, throws their errors.
   *
   * @throws GitError, or the reason of the signal
   */
  async commit({ id, created }: LayerIdentity): Promise<void> {
    const number = this.#count;
    const branch = `layer${number}_${id}`;
    const before = this.#work;
    this.#count += 1;
    void this.#then(`cannot commit ${branch}`, async () => {
      await this.#packer.named(this.#tree.count);
      this.#branches.set(branch, await this.#commits.add(number, commitTime(created), this.#tree));
    });
    await before;
  }

  /**
   * Starts the work of `finish` early, while directories may still get their modes and times. All files must
   * be complete. `finish` throws the errors. Calling this is optional.
   */
  settle(): void {
    this.#settled = this.#settle();
  }

  #settle(): Promise<void> {
    return this.#then('cannot make the branches', async () => {
      const last = [...this.#branches.keys()].at(-1);
      if (last === undefined) return;
      // Wait for both: they use files, which are closed after a failure.
      const both = await Promise.allSettled([
        recordCheckout(this.#files, this.#tree, last, this.#yielder),
        this.#objects.complete(),
      ]);
      for (const one of both) if (one.status === 'rejected') throw one.reason;
    });
  }

  /**
   * Makes the branches, the last one checked out, as the rootfs is: `git status` is clean. Call it when the
   * rootfs is complete; only its name may change afterwards.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    await (this.#settled ?? this.#settle());
    await this.#then('cannot make the branches', async () => {
      await this.#packer.finished;
      if (this.#packer.count !== this.#tree.count) throw outOfStep(this.#packer.count, this.#tree.count);
      const directory = this.#files.keepOpen('.git');
      const branches = new Map([...this.#branches].map(([name, id]) => [branchRef(name), id]));
      await makeBranches(this.#program, directory, branches, this.#signal);
    });
    this.#files[Symbol.dispose]();
    await this.#packer.discard();
  }

  /** Closes the files and ends the thread. Call it instead of `finish`. */
  async discard(): Promise<void> {
    await this.#packer.discard();
    await this.#work.catch(() => undefined);
    await this.#objects.discard();
    this.#files[Symbol.dispose]();
  }
}
