import { GitError, printable } from '../errors.ts';
import { CommitWriter, LayerDraft, storeContents } from './layer-commit.ts';
import { copyRepository, initRepository, markCheckout, recordCheckout, unmarkCheckout } from './dot-git.ts';
import { asGitError, ELSEWHERE, PULL_AGAIN } from './git-error.ts';
import { type GitOptions, type GitProgram, findGit } from './git-program.ts';
import { type LayerRecord, chainOf, loadState, readHistory, readRecords } from './history.ts';
import { plain } from './inodes.ts';
import { type LayerIdentity, branchName, commitTime } from './refs.ts';
import { ObjectStore } from './object-store.ts';
import { Packer } from './packer.ts';
import { Repository } from './repository.ts';
import { restoreState } from './checkout.ts';
import { RootfsFiles } from './rootfs-files.ts';
import { RootfsState } from './rootfs-state.ts';
import { type Yielder, openYielder } from '../sys/yielder.ts';
import { parentPath } from '../rootfs/directories.ts';
import { restoreTree } from '../rootfs/work-tree.ts';
import { composeLine } from '../tar/mtree.ts';

/** The layers of an earlier run that this one continues. */
interface Base {
  readonly state: RootfsState;
  readonly chain: readonly LayerRecord[];
  readonly directory: string;
}

/**
 * The layers of a rootfs as branches of a repository in it, `.git`: `layer<n>_<id>`, each on top of the one before.
 *
 * What a commit cannot hold (owners, exact modes, times, attributes, hard links, devices, empty directories, nested repositories)
 * is kept in one record per layer. The ref `refs/dlrootfs/<branch>` names a commit with `record.mtree` in its tree. Its parents are
 * the record of the layer below, if any, and last the layer's own commit.
 */
export class GitLayers {
  readonly #program: GitProgram;
  readonly #options: GitOptions;
  readonly #files: RootfsFiles;
  readonly #objects: ObjectStore;
  readonly #packer: Packer;
  readonly #commits: CommitWriter;
  readonly #yielder: Yielder;
  readonly #state: RootfsState;
  /** For a rootfs of an earlier run, whose directories may need other metadata. Undefined for a new one. */
  readonly #directory: string | undefined;
  /** How many layers were committed, and the branch of the last one. */
  #count: number;
  #last: string | undefined;
  #draft: LayerDraft;
  /** All work so far, one step after the other; rejected with the first error. */
  #work: Promise<void> = Promise.resolve();
  /** The work of `settle`. */
  #settled: Promise<void> | undefined;

  private constructor(files: RootfsFiles, program: GitProgram, options: GitOptions, base?: Base) {
    this.#program = program;
    this.#options = options;
    this.#files = files;
    this.#state = base?.state ?? new RootfsState();
    this.#count = base?.chain.length ?? 0;
    this.#last = base?.chain.at(-1)?.branch;
    this.#directory = base?.directory;
    this.#yielder = openYielder(options.signal);
    // Through a descriptor, so that another directory of this name is not written to.
    const packs = files.keepOpen('.git/objects/pack');
    this.#objects = new ObjectStore(packs, () => this.#yielder.pause());
    this.#commits = new CommitWriter(this.#objects, files, this.#yielder, base?.chain.at(-1));
    this.#packer = new Packer(packs, this.#state);
    this.#draft = new LayerDraft(this.#state, this.#packer);
  }

  /**
   * Makes the repository in an empty directory.
   *
   * @param shown its name in messages
   * @throws GitError when git is missing or too old
   */
  static async open(directory: string, options: GitOptions, shown = directory): Promise<GitLayers> {
    const program = await findGit(options.environment);
    const files = openDirectory(directory, shown);
    try {
      initRepository(files);
      markCheckout(files);
      return new GitLayers(files, program, options);
    } catch (error) {
      files[Symbol.dispose]();
      throw asGitError(error, 'git could not make its repository', ELSEWHERE);
    }
  }

  /**
   * Fills an empty directory with the rootfs and the repository of another one, as of its layer `base`. The next layer continues there.
   *
   * @throws GitError
   */
  static async resume(
    directory: string,
    from: string,
    base: LayerRecord,
    options: GitOptions,
  ): Promise<GitLayers> {
    const files = openDirectory(directory);
    try {
      await using repository = await Repository.open(from, options);
      if (!repository) throw new GitError(`${printable(from)} has no repository any more`);
      await copyRepository(repository.files, files, repository.yielder);
      markCheckout(files);
      const chain = chainOf(await readHistory(repository), base);
      await readRecords(repository, chain);
      const state = await loadState(repository, chain);
      await restoreState(repository, directory, state, undefined);
      return new GitLayers(files, repository.program, options, { state, chain, directory });
    } catch (error) {
      files[Symbol.dispose]();
      throw explained(error, options, `cannot continue from ${base.branch} of ${printable(from)}`);
    }
  }

  /** For `RootfsOptions.contents`: gets the contents of all files and symlinks in the changes that are noted and committed, in their order. */
  get contents(): SharedArrayBuffer {
    return this.#packer.ring;
  }

  /** The cause of an error of the rootfs: that of the thread which takes its contents, if it has failed. */
  async explainFailure(error: unknown): Promise<unknown> {
    return this.#packer.explainFailure(error);
  }

  /**
   * Takes the changes of the next layer so far, so that `commit` has less to do. `commit` takes the rest. Calling this is
   * optional.
   *
   * @param lines of `composeLine`; when they are not the changes of this rootfs, `commit` throws
   */
  note(lines: Uint8Array): void {
    void this.#then(`cannot commit layer ${this.#count}`, async () => {
      this.#draft.play(lines);
      await this.#yielder.pause();
    });
  }

  /** Adds a step to the work. @param what the step is when it fails, a sentence */
  #then(what: string, step: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(() =>
      step().catch((error: unknown) => {
        throw explained(error, this.#options, what);
      }),
    );
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.#work.catch(() => undefined);
    return this.#work;
  }

  /** Files at the root that `describeFile` described, also in an earlier run, and that no layer replaced since. */
  ownFiles(): string[] {
    return [...this.#state.root.children!].flatMap(([name, number]) =>
      this.#state.get(number).own ? [name] : [],
    );
  }

  /** The change for dlrootfs's own file at the root, which no layer has: lines for `commit`. */
  describeFile(name: string): Uint8Array {
    const stat = this.#files.stat(name);
    if (stat?.type !== 'file') {
      throw new GitError(`cannot find ${printable(name)}, which was just written`, { hint: PULL_AGAIN });
    }
    const line = composeLine({ ...plain, ...stat, type: 'file', path: name, own: true });
    return Buffer.from(line, 'latin1');
  }

  /**
   * Keeps the layer as it is on disk now. The cost depends only on the layer's changes. git sees the layer after `finish`. When the promise
   * is fulfilled, the caller may change the rootfs, while trees and commit are still written. The next call, or `finish`, throws their
   * errors.
   *
   * @param changes lines of `composeLine`: with those of `note`, all that was done to the rootfs since the layer before
   * @throws GitError, or the reason of the signal
   */
  async commit(layer: LayerIdentity, changes: readonly Uint8Array[]): Promise<void> {
    const number = this.#count;
    const branch = branchName(number, layer.id);
    const what = `cannot commit ${branch}`;
    this.#count += 1;
    this.#last = branch;
    const stored = this.#then(what, async () => {
      for (const lines of changes) this.#draft.play(lines);
      await storeContents(this.#draft.filesToRead(), this.#objects, this.#files, this.#yielder);
    });
    void this.#then(what, async () => {
      const [state, draft] = [this.#state, this.#draft];
      await this.#packer.allNamed();
      await this.#commits.add(branch, number, commitTime(layer), state, draft);
      this.#draft = new LayerDraft(state, this.#packer);
    });
    await stored;
  }

  /**
   * Begins with what `finish` does, while directories may still get their modes and times: all files must be complete. `finish` throws
   * its errors. Calling this is optional.
   */
  settle(): void {
    // Its files may change until `finish`.
    if (this.#directory === undefined) this.#settled = this.#settle();
  }

  #settle(): Promise<void> {
    return this.#then('git could not make the branches', async () => {
      if (this.#last === undefined) return;
      if (this.#directory !== undefined)
        await restoreTree(this.#directory, this.#state, noContents, this.#yielder.pause);
      // Both are waited for: they use the files, which are closed after a failure.
      const both = await Promise.allSettled([
        recordCheckout(this.#files, this.#state, this.#last, this.#yielder),
        this.#checkCommits(),
      ]);
      for (const one of both) if (one.status === 'rejected') throw one.reason;
    });
  }

  /**
   * Makes commits and branches of all that was kept, the last one checked out, as the rootfs is already: `git status` is clean. To be
   * called when the rootfs is complete; only its name may change afterwards. Without this call the repository counts as incomplete.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    await (this.#settled ?? this.#settle());
    await this.#then('git could not make the branches', async () => {
      await this.#packer.finished;
      this.#makeRefs();
      unmarkCheckout(this.#files);
    });
    this.#files[Symbol.dispose]();
    await this.#packer.discard();
  }

  /** Completes all packs. Then git checks that the commits exist, before refs name them. */
  async #checkCommits(): Promise<void> {
    await Promise.all([this.#objects.complete(), this.#packer.finished]);
    const { refs } = this.#commits;
    if (refs.size === 0) return;
    await using repository = new Repository(this.#files, this.#program, this.#options);
    const commands = [...refs].map(([name, id]) => `create ${name} ${id}\n`).join('');
    // git answers to `start` and `commit`: simple-git waits 50 ms after the end of a command that has written nothing.
    await repository.run(['update-ref', '--stdin'], Buffer.from(`start\n${commands}commit\n`));
  }

  #makeRefs(): void {
    const files = this.#files;
    for (const [name, id] of this.#commits.refs) {
      files.makeDirectory(`.git/${parentPath(name)}`);
      files.replace(`.git/${name}`, Buffer.from(`${id}\n`));
    }
  }

  /** Closes what is open. To be called instead of `finish`. */
  async discard(): Promise<void> {
    await this.#packer.discard();
    await this.#work.catch(() => undefined);
    await this.#objects.discard();
    this.#files[Symbol.dispose]();
  }
}

const noContents = {
  has: () => false,
  async *read(): AsyncGenerator<Uint8Array, void, void> {
    // Everything is on disk.
  },
};

function openDirectory(directory: string, shown = directory): RootfsFiles {
  const files = RootfsFiles.open(directory, shown);
  if (files) return files;
  throw new GitError(`${printable(shown)} is not there any more`);
}

function explained(error: unknown, { signal }: GitOptions, what: string): unknown {
  return signal?.aborted === true ? signal.reason : asGitError(error, what, ELSEWHERE);
}
