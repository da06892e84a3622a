import { GitError, printable } from '../errors.ts';
import { CommitWriter, BlobNames, type Came, LayerDraft, storeContents } from './layer-commit.ts';
import { copyRepository, initRepository, markCheckout, recordCheckout, unmarkCheckout } from './dot-git.ts';
import { asGitError, ELSEWHERE, PULL_AGAIN } from './git-error.ts';
import { type GitOptions, type GitProgram, findGit } from './git-program.ts';
import { type LayerRecord, chainOf, loadState, readHistory, readRecords } from './history.ts';
import { type Inode, plain } from './inodes.ts';
import { type LayerIdentity, branchName, commitTime } from './refs.ts';
import { ObjectStore } from './object-store.ts';
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
  /** `objects/pack` through a descriptor, so that another directory of this name is not written to. */
  readonly packDirectory: string;
  readonly #objects: ObjectStore;
  #names: BlobNames | undefined;
  readonly #commits: CommitWriter;
  readonly #yielder: Yielder;
  readonly #state: RootfsState;
  readonly #branches: string[];
  /** For a rootfs of an earlier run, whose directories may need other metadata. Undefined for a new one. */
  readonly #directory: string | undefined;
  #draft: LayerDraft;
  /** Fulfilled when git sees the blobs that are named by `takeBlobs`; undefined: there are none. */
  #packed: Promise<void> | undefined;
  /** The work on the layer before, while its trees are made; rejected with the reason if that fails. */
  #keeping: Promise<void> | undefined;
  /** The work of `settle`; rejected with the reason if it fails. */
  #settling: Promise<void> | undefined;
  /** Changes of the next layer that came in the meantime. */
  #waiting: Uint8Array[] = [];
  /** The error of `note`. */
  #failure: unknown;

  private constructor(files: RootfsFiles, program: GitProgram, options: GitOptions, base?: Base) {
    this.#program = program;
    this.#options = options;
    this.#files = files;
    this.#state = base?.state ?? new RootfsState();
    this.#draft = new LayerDraft(this.#state, undefined);
    this.#branches = base?.chain.map(({ branch }) => branch) ?? [];
    this.#directory = base?.directory;
    this.#yielder = openYielder(options.signal);
    this.packDirectory = files.keepOpen('.git/objects/pack');
    this.#objects = new ObjectStore(this.packDirectory, () => this.#yielder.pause());
    this.#commits = new CommitWriter(this.#objects, this.#yielder, base?.chain.at(-1), (...place) =>
      this.#see(...place),
    );
  }

  /**
   * Makes the repository in an empty directory.
   *
   * @throws GitError when git is missing or too old
   */
  static async open(directory: string, options: GitOptions): Promise<GitLayers> {
    const program = await findGit(options.environment);
    const files = openDirectory(directory);
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
      const state = await loadState(repository, await readRecords(repository, chain), chain);
      await restoreState(repository, directory, state, { verified: new Map() });
      return new GitLayers(files, repository.program, options, { state, chain, directory });
    } catch (error) {
      files[Symbol.dispose]();
      throw explained(error, options, `cannot continue from ${base.branch} of ${printable(from)}`);
    }
  }

  /**
   * Announces, before the first layer, that another thread makes the blobs of all files and symlinks. `takeBlobs` will then get their
   * names. Without this call, `commit` reads all contents from the disk.
   *
   * @param packed fulfilled when git sees them all
   */
  expectBlobs(packed: Promise<void>): void {
    this.#packed = packed;
    const names = new BlobNames(this.#state);
    this.#names = names;
    this.#draft = new LayerDraft(this.#state, names);
    packed.catch((error: unknown) => names.fail(error));
  }

  /** Names of blobs, 20 bytes each: one for each file and symlink in the changes that are noted and committed, in the same order. */
  takeBlobs(ids: Uint8Array): void {
    this.#names?.take(ids);
  }

  /**
   * Takes the changes of the next layer so far, so that `commit` has less to do. `commit` takes the rest. Calling this is
   * optional.
   *
   * @param lines of `composeLine`; when they are not the changes of this rootfs, `commit` throws
   */
  note(lines: Uint8Array): void {
    if (this.#keeping) this.#waiting.push(lines);
    else this.#play(lines);
  }

  #play(lines: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      this.#draft.play(lines);
    } catch (error) {
      this.#failure = error;
    }
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
    await this.#kept();
    const branch = branchName(this.#branches.length, layer.id);
    try {
      for (const lines of changes) this.#play(lines);
      if (this.#failure !== undefined) throw this.#failure;
      await this.#store(this.#draft.filesToRead());
    } catch (error) {
      throw explained(error, this.#options, `cannot commit ${branch}`);
    }
    this.#keeping = this.#keep(branch, commitTime(layer));
    // An error reaches the caller that awaits it; when the pull fails first, no caller does.
    this.#keeping.catch(() => undefined);
  }

  #store(came: readonly Came[]): Promise<void> {
    return storeContents(came, this.#objects, this.#files, this.#yielder);
  }

  /** Waits until all layers that `commit` was called for are kept. */
  async #kept(): Promise<void> {
    await this.#keeping;
    this.#keeping = undefined;
  }

  async #keep(branch: string, time: number): Promise<void> {
    const draft = this.#draft;
    const state = this.#state;
    try {
      await this.#names?.allNamed();
      await this.#store(draft.symlinksToStore());
      await this.#commits.add({ branch, number: this.#branches.length, time, state, draft });
      this.#branches.push(branch);
      this.#draft = new LayerDraft(state, this.#names);
      for (let lines = this.#waiting.shift(); lines; lines = this.#waiting.shift()) {
        this.#play(lines);
        await this.#yielder.pause();
      }
      this.#keeping = undefined;
    } catch (error) {
      throw explained(error, this.#options, `cannot commit ${branch}`);
    }
  }

  /** Reads the status of a file on disk. Only a new or a removed name of the file changes it later. */
  #see(directory: string, name: string, inode: Inode): void {
    if (inode.linked || inode.hasStat) return;
    inode.setStat(this.#files.statIn(directory, name));
  }

  /**
   * Begins with what `finish` does, while directories may still get their modes and times: all files must be complete. `finish` throws
   * its errors. Calling this is optional.
   */
  settle(): void {
    // Its files may change until `finish`.
    if (this.#directory !== undefined) return;
    this.#settling ??= this.#settle();
    // An error reaches the caller of `finish`; when the pull fails first, there is none.
    this.#settling.catch(() => undefined);
  }

  async #settle(): Promise<void> {
    await this.#kept();
    const last = this.#branches.at(-1);
    if (last === undefined) return;
    const completed = this.#objects.complete();
    if (this.#directory !== undefined)
      await restoreTree(this.#directory, this.#state, noContents, this.#yielder.pause);
    await recordCheckout(this.#files, this.#state, last, this.#yielder);
    await completed;
  }

  /**
   * Makes commits and branches of all that was kept, the last one checked out, as the rootfs is already: `git status` is clean. To be
   * called when the rootfs is complete; only its name may change afterwards. Without this call the repository counts as incomplete.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    try {
      await (this.#settling ?? this.#settle());
      await this.#packed;
      await this.#makeRefs();
      unmarkCheckout(this.#files);
    } catch (error) {
      throw explained(error, this.#options, 'git could not make the branches');
    }
    this.#files[Symbol.dispose]();
  }

  async #makeRefs(): Promise<void> {
    const files = this.#files;
    const { refs } = this.#commits;
    if (refs.size === 0) return;
    // git checks that the commits exist, before refs name them.
    await using repository = new Repository(files, this.#program, this.#options);
    const commands = [...refs].map(([name, id]) => `create ${name} ${id}\n`).join('');
    // git answers to `start` and `commit`: simple-git waits 50 ms after the end of a command that has written nothing.
    await repository.run(['update-ref', '--stdin'], Buffer.from(`start\n${commands}commit\n`));
    for (const [name, id] of refs) {
      files.makeDirectory(`.git/${parentPath(name)}`);
      files.replace(`.git/${name}`, Buffer.from(`${id}\n`));
    }
  }

  /** Closes what is open. To be called instead of `finish`. */
  async discard(): Promise<void> {
    await this.#keeping?.catch(() => undefined);
    await this.#settling?.catch(() => undefined);
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

function openDirectory(directory: string): RootfsFiles {
  const files = RootfsFiles.open(directory);
  if (files) return files;
  throw new GitError(`${printable(directory)} is not there any more`);
}

function explained(error: unknown, { signal }: GitOptions, what: string): unknown {
  return signal?.aborted === true ? signal.reason : asGitError(error, what, ELSEWHERE);
}
