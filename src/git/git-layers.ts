import path from 'node:path';
import { printable } from '../errors.ts';
import { openBreath, type Breath } from './breath.ts';
import { BlobNames } from './blob-names.ts';
import { CommitWriter } from './commit-writer.ts';
import { readyContents } from './contents.ts';
import { copyRepository } from './copy.ts';
import { asGitError } from './git-error.ts';
import { findGit, type GitOptions } from './git-program.ts';
import { chainOf, readHistory, type LayerRecord } from './history.ts';
import { initRepository } from './init.ts';
import { LayerDraft } from './layer-draft.ts';
import { LayerReader } from './layer-reader.ts';
import { mark, unmark } from './marker.ts';
import { branchName, branchRef, commitTime, type LayerIdentity } from './names.ts';
import { ObjectStore } from './object-store.ts';
import { describeFile } from './own-file.ts';
import { loadState, readRecords } from './record.ts';
import { Repository } from './repository.ts';
import { RootfsState, attributeNames } from './rootfs-state.ts';
import { settle, writeWhole } from './settle.ts';
import { TreeFiles } from './tree-files.ts';
import type { OpenWorkTree, WorkTree } from './work-tree.ts';

/** What an earlier run has left to go on from. */
interface Base {
  readonly state: RootfsState;
  readonly chain: readonly LayerRecord[];
  readonly workTree: WorkTree;
}

/**
 * The layers of a rootfs as branches of a repository in it, `.git`: `layer<n>_<id>`, each on top of the one before.
 *
 * What a commit cannot hold (owners, exact modes, times, attributes, hard links, devices, empty directories, nested repositories)
 * stands in a record a layer: the ref `refs/dlrootfs/<branch>`, a commit with `record.mtree` in its tree, whose parents are the
 * record of the layer below, where there is one, and last the layer's own commit.
 */
export class GitLayers {
  readonly #repository: Repository;
  readonly #files: TreeFiles;
  readonly #reader: LayerReader;
  readonly #objects: ObjectStore;
  readonly #names = new BlobNames();
  readonly #commits: CommitWriter;
  readonly #breath: Breath;
  readonly #state: RootfsState;
  readonly #branches: string[];
  /** Where an earlier run wrote directories: what it gave them may have to be given, or taken, once more. */
  readonly #workTree: WorkTree | undefined;
  /** Names of extended attributes that it may have given. */
  readonly #attributes: ReadonlySet<string>;
  #draft: LayerDraft;
  /** Fulfilled when git sees the blobs that are named by `takeBlobs`; undefined: there are none. */
  #packed: Promise<void> | undefined;
  /** What `note` met. */
  #failure: unknown;

  private constructor(repository: Repository, base?: Base) {
    this.#repository = repository;
    this.#state = base?.state ?? new RootfsState();
    this.#draft = new LayerDraft(this.#state);
    this.#branches = base?.chain.map(({ branch }) => branch) ?? [];
    this.#workTree = base?.workTree;
    this.#attributes = base ? attributeNames(base.state) : new Set();
    this.#files = new TreeFiles(repository.directory);
    this.#breath = openBreath(repository.signal);
    const packs = path.join(repository.gitDirectory, 'objects/pack');
    this.#objects = new ObjectStore(packs, () => this.#breath.take());
    this.#reader = new LayerReader(this.#objects, this.#files, this.#breath);
    this.#commits = new CommitWriter(this.#objects, this.#breath, base?.chain.at(-1));
  }

  /**
   * Makes the repository in a directory that is empty still.
   *
   * @throws GitError when git is missing, too old, or refuses
   */
  static async open(directory: string, options: GitOptions): Promise<GitLayers> {
    const program = await findGit(options.environment);
    await initRepository(program, options, directory);
    const repository = new Repository(directory, program, options);
    mark(repository.gitDirectory);
    return new GitLayers(repository);
  }

  /**
   * Makes an empty directory what another one was after its layer `base`, repository and all, to go on from there.
   *
   * @throws GitError
   */
  static async resume(
    directory: string,
    from: string,
    base: LayerRecord,
    options: GitOptions & { readonly openWorkTree: OpenWorkTree },
  ): Promise<GitLayers> {
    const repository = new Repository(directory, await findGit(options.environment), options);
    try {
      copyRepository(path.join(from, '.git'), repository.gitDirectory);
      mark(repository.gitDirectory);
      const chain = chainOf(await readHistory(repository), base);
      const state = await loadState(repository, await readRecords(repository, chain), chain);
      await repository.run(['checkout', '--force', '--detach', base.commit, '--']);
      const contents = await readyContents(repository, state, new TreeFiles(directory));
      const workTree = options.openWorkTree(directory);
      workTree.restore(state, contents.files, new Set());
      contents.discard();
      return new GitLayers(repository, { state, chain, workTree });
    } catch (error) {
      throw explained(error, repository, `cannot go on from ${base.branch} of ${printable(from)}`);
    }
  }

  /**
   * Says, before the first layer, that blobs are made elsewhere of what its files and symlinks hold, and of those of all later layers,
   * and that `takeBlobs` will be told how they are named. Where this is never called, `commit` reads all from the disk.
   *
   * @param packed fulfilled when git sees them all
   */
  expectBlobs(packed: Promise<void>): void {
    this.#packed = packed;
    packed.catch((error: unknown) => this.#names.fail(error));
  }

  /** Names of blobs, 20 bytes each: one for each file and symlink in the changes that are noted and committed, in the same order. */
  takeBlobs(ids: Uint8Array): void {
    this.#names.take(ids);
  }

  /**
   * Tells what has been done to the rootfs for the next layer so far, so that there is less to do at its end. The rest comes with
   * `commit`; nothing need come before it.
   *
   * @param lines of `composeLine`; when they are not the changes of this rootfs, `commit` throws
   */
  note(lines: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      this.#play(lines);
    } catch (error) {
      this.#failure = error;
    }
  }

  /** Files at the root that `describeFile` described, also in an earlier run, and that no layer replaced since. */
  ownFiles(): string[] {
    return [...this.#state.root()].flatMap(([name, { inode }]) => (inode.own === true ? [name] : []));
  }

  /** The change that a file at the root is which we wrote ourselves, and no layer: lines for `commit`. */
  describeFile(name: string): Uint8Array {
    return describeFile(this.#files, name);
  }

  /**
   * Keeps the layer as it is on disk now. Costs no more than what the layer changed; git sees it once `finish` is done.
   *
   * @param changes lines of `composeLine`: with those of `note`, all that was done to the rootfs since the layer before
   * @throws GitError, or the reason of the signal
   */
  async commit(layer: LayerIdentity, changes: readonly Uint8Array[]): Promise<void> {
    const number = this.#branches.length;
    const branch = branchName(number, layer.id);
    const draft = this.#draft;
    try {
      if (this.#failure !== undefined) throw this.#failure;
      for (const lines of changes) this.#play(lines);
      await this.#names.settled();
      await this.#reader.readAll(draft);
      await this.#commits.add({ branch, number, time: commitTime(layer), state: this.#state, draft });
      this.#branches.push(branch);
      this.#draft = new LayerDraft(this.#state);
    } catch (error) {
      throw explained(error, this.#repository, `cannot commit ${branch}`);
    }
  }

  /**
   * Makes commits and branches of all that was kept, the last one checked out, as the rootfs is already: `git status` is clean. To be
   * called when the rootfs is complete; nothing but its name may change afterwards. What was never finished is not taken for a whole one.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    const { gitDirectory } = this.#repository;
    const last = this.#branches.at(-1);
    if (last === undefined) return unmark(gitDirectory);
    try {
      const completed = this.#objects.complete();
      this.#workTree?.restore(this.#state, new Map(), this.#attributes);
      await settle(gitDirectory, this.#state, this.#files, this.#breath);
      await completed;
      await this.#packed;
      await this.#repository.run(['update-ref', '--stdin'], Buffer.from(this.#commits.refs));
      writeWhole(path.join(gitDirectory, 'HEAD'), Buffer.from(`ref: ${branchRef(last)}\n`));
      unmark(gitDirectory);
    } catch (error) {
      throw explained(error, this.#repository, 'git could not make the branches');
    }
  }

  /** Lets go of what is open, where `finish` is not going to be called. */
  async discard(): Promise<void> {
    await this.#objects.discard();
  }

  #play(lines: Uint8Array): void {
    this.#draft.play(lines);
    const written = this.#draft.takeWritten();
    if (this.#packed) this.#names.expect(written);
  }
}

function explained(error: unknown, { signal }: Repository, what: string): unknown {
  return signal?.aborted === true ? signal.reason : asGitError(error, what);
}
