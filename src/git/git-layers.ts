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

/** What a branch is named and dated by. */
export interface LayerIdentity {
  /** 64 hex digits. */
  readonly id: string;
  /** When the layer was made (RFC 3339), where the image says so. */
  readonly created?: string | undefined;
}

/**
 * The layers of a rootfs as branches of a new repository in it, `.git`: `layer<n>_<id>`, as the original named them, each on top of the one
 * before. git makes the branches; all they lead to is written here.
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
  /** Layers so far. */
  #count = 0;
  /** All work so far, one step after the other; rejected with the first error. */
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
   * @param program the git of `findGit`
   * @param shown its name in messages
   * @throws GitError, also where the umask would deny this process its own files
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

  /** For `RootfsOptions.contents`: gets the contents of all files and symlinks in the changes that are noted, in their order. */
  get contents(): SharedArrayBuffer {
    return this.#packer.ring;
  }

  /** The cause of an error of the rootfs: that of the thread which takes its contents, if it has failed. */
  async explainFailure(error: unknown): Promise<unknown> {
    return this.#packer.explainFailure(error);
  }

  /**
   * Takes the next changes of the rootfs: for `RootfsOptions.onChanges`.
   *
   * @param records of a ChangeLog; when they are not the changes of this rootfs, `commit` throws
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

  /** Adds a step to the work. @param what the step is when it fails, a sentence */
  #then(what: string, step: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(() =>
      step().catch((error: unknown) => {
        throw this.#signal?.aborted === true ? this.#signal.reason : asGitError(error, what);
      }),
    );
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.#work.catch(() => undefined);
    return this.#work;
  }

  /**
   * Keeps the layer as it is on disk now: all that `note` got since the layer before. The cost depends only on the layer's changes. When the
   * promise is fulfilled, the caller may change the rootfs, while trees and commit are still written. The next call, or `finish`, throws
   * their errors.
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
   * Begins with what `finish` does, while directories may still get their modes and times: all files must be complete. `finish` throws
   * its errors. Calling this is optional.
   */
  settle(): void {
    this.#settled = this.#settle();
  }

  #settle(): Promise<void> {
    return this.#then('git could not make the branches', async () => {
      const last = [...this.#branches.keys()].at(-1);
      if (last === undefined) return;
      // Both are waited for: they use the files, which are closed after a failure.
      const both = await Promise.allSettled([
        recordCheckout(this.#files, this.#tree, last, this.#yielder),
        this.#objects.complete(),
      ]);
      for (const one of both) if (one.status === 'rejected') throw one.reason;
    });
  }

  /**
   * Makes branches of all that was kept, the last one checked out, as the rootfs is already: `git status` is clean. To be called when the
   * rootfs is complete; only its name may change afterwards.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    await (this.#settled ?? this.#settle());
    await this.#then('git could not make the branches', async () => {
      await this.#packer.finished;
      if (this.#packer.count !== this.#tree.count) throw outOfStep(this.#packer.count, this.#tree.count);
      const directory = this.#files.keepOpen('.git');
      const branches = new Map([...this.#branches].map(([name, id]) => [branchRef(name), id]));
      await makeBranches(this.#program, directory, branches, this.#signal);
    });
    this.#files[Symbol.dispose]();
    await this.#packer.discard();
  }

  /** Closes what is open. To be called instead of `finish`. */
  async discard(): Promise<void> {
    await this.#packer.discard();
    await this.#work.catch(() => undefined);
    await this.#objects.discard();
    this.#files[Symbol.dispose]();
  }
}
