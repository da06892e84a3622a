import { closeSync } from 'node:fs';
import path from 'node:path';
import { GitError, printable } from '../errors.ts';
import { composeLine } from '../tar/mtree.ts';
import { BlobStore } from './blob-store.ts';
import { breath } from './breath.ts';
import { readyContents } from './contents.ts';
import { copyRepository } from './copy.ts';
import { composeCommit, type TreeFile } from './fast-import.ts';
import { asGitError, findGit, type GitOptions } from './git-program.ts';
import { chainOf, readHistory, type LayerRecord } from './history.ts';
import { initRepository } from './init.ts';
import { secondsAndRest } from './index-file.ts';
import { LayerDraft, type Came } from './layer-draft.ts';
import { mark, unmark } from './marker.ts';
import {
  branchName,
  branchRef,
  commitTime,
  composeTitle,
  recordPath,
  recordRef,
  type LayerIdentity,
} from './names.ts';
import type { ObjectID } from './object-id.ts';
import { loadState, readRecords } from './record.ts';
import { Repository } from './repository.ts';
import { RootfsState } from './rootfs-state.ts';
import { settle, writeWhole } from './settle.ts';
import { SizeMismatch, TreeFiles, contentIn, contentOf } from './tree-files.ts';
import type { OpenWorkTree, WorkTree } from './work-tree.ts';

/** Commits that the next layer's are put upon, as `git fast-import` calls them. */
interface Tip {
  readonly commit: string;
  readonly record: string;
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
  readonly #blobs: BlobStore;
  readonly #breathe: () => Promise<void>;
  readonly #state: RootfsState;
  readonly #branches: string[] = [];
  /** For `git fast-import`. */
  readonly #commands: Buffer[] = [];
  #tip: Tip | undefined;
  #marks = 0;
  /** Where an earlier run wrote directories: what it gave them may have to be given, or taken, once more. */
  #workTree: WorkTree | undefined;
  /** Names of the extended attributes that it may have given. */
  readonly #attributes = new Set<string>();

  private constructor(repository: Repository, state: RootfsState) {
    this.#repository = repository;
    this.#state = state;
    this.#files = new TreeFiles(repository.directory);
    this.#breathe = breath(repository.signal);
    this.#blobs = new BlobStore(path.join(repository.gitDirectory, 'objects/pack'), this.#breathe);
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
    return new GitLayers(repository, new RootfsState());
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
    const program = await findGit(options.environment);
    const repository = new Repository(directory, program, options);
    try {
      copyRepository(path.join(from, '.git'), repository.gitDirectory);
      mark(repository.gitDirectory);
      const chain = chainOf(await readHistory(repository), base);
      const state = await loadState(repository, await readRecords(repository, chain), chain);
      await repository.run(['checkout', '--force', '--detach', base.commit, '--']);
      const layers = new GitLayers(repository, state);
      const contents = await readyContents(repository, state, layers.#files);
      layers.#workTree = options.openWorkTree(directory);
      layers.#workTree.restore(state, contents.files, new Set());
      contents.discard();
      for (const [, { inode }] of state) {
        for (const name of inode.xattrs?.keys() ?? []) layers.#attributes.add(name);
      }
      layers.#branches.push(...chain.map(({ branch }) => branch));
      layers.#tip = { commit: base.commit, record: base.id };
      return layers;
    } catch (error) {
      throw explained(error, repository, `cannot go on from ${base.branch} of ${printable(from)}`);
    }
  }

  /** The change that a file at the root is which we wrote ourselves, and no layer: lines for `commit`. */
  describeFile(name: string): Uint8Array {
    const stat = this.#files.stat(name);
    const [seconds, nanoseconds] = secondsAndRest(stat.mtimeNs);
    const line = composeLine({
      type: 'file',
      path: name,
      linkPath: '',
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      size: Number(stat.size),
      mtimeSeconds: Number(seconds),
      mtimeNanoseconds: Number(nanoseconds),
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: undefined,
    });
    return Buffer.from(line, 'latin1');
  }

  /**
   * Keeps the next layer as it is on disk now. Costs no more than what the layer changed; git sees it once `finish` is done.
   *
   * @param changes lines of `composeLine` for all that was done to the rootfs since the layer before
   * @throws GitError, or the reason of the signal
   */
  async commit(layer: LayerIdentity, changes: readonly Uint8Array[]): Promise<void> {
    const branch = branchName(this.#branches.length, layer.id);
    try {
      const draft = new LayerDraft(this.#state, composeTitle(branch));
      for (const lines of changes) {
        draft.play(Buffer.from(lines.buffer, lines.byteOffset, lines.length).toString('latin1'));
      }
      for (const came of draft.unstored()) {
        came.inode.id = await this.#store(came);
        await this.#breathe();
      }
      const record = Buffer.from(draft.record(), 'latin1');
      const id = await this.#blobs.add(record.length, contentIn(record));
      this.#addCommands(branch, commitTime(layer), draft, { path: recordPath, mode: '100644', id });
      this.#branches.push(branch);
      this.#blobs.rollOver();
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
    const last = this.#branches.at(-1);
    if (last === undefined) return unmark(this.#repository.gitDirectory);
    try {
      await this.#blobs.close();
      const stream = Buffer.concat([...this.#commands, Buffer.from('progress imported\ndone\n')]);
      await this.#repository.run(['fast-import', '--quiet', '--done', '--date-format=raw'], stream);
      this.#workTree?.restore(this.#state, new Map(), this.#attributes);
      await settle(this.#repository.gitDirectory, this.#state, this.#files, this.#breathe);
      writeWhole(path.join(this.#repository.gitDirectory, 'HEAD'), Buffer.from(`ref: ${branchRef(last)}\n`));
      unmark(this.#repository.gitDirectory);
    } catch (error) {
      throw explained(error, this.#repository, 'git could not make the branches');
    }
  }

  /** Lets go of what is open, where `finish` is not going to be called. */
  discard(): Promise<void> {
    return this.#blobs.discard();
  }

  async #store({ path: name, inode }: Came): Promise<ObjectID> {
    if (inode.type === 'symlink') {
      const target = Buffer.from(inode.linkPath, 'latin1');
      return this.#blobs.add(target.length, contentIn(target));
    }
    const file = this.#files.open(name);
    try {
      return await this.#blobs.add(inode.size, contentOf(file));
    } catch (error) {
      if (!(error instanceof SizeMismatch)) throw error;
      throw new GitError(`${printable(name)} changed while it was read`, { code: 'GIT_CHANGED' });
    } finally {
      closeSync(file);
    }
  }

  #addCommands(branch: string, time: number, draft: LayerDraft, record: TreeFile): void {
    const next: Tip = { commit: `:${++this.#marks}`, record: `:${++this.#marks}` };
    const before = this.#tip;
    const commit = composeCommit({
      ref: branchRef(branch),
      mark: next.commit,
      message: `adding layer ${this.#branches.length}`,
      time,
      parents: before ? [before.commit] : [],
      deletions: draft.deletions,
      files: draft.files(),
    });
    const side = composeCommit({
      ref: recordRef(branch),
      mark: next.record,
      message: `what git cannot hold of ${branch}`,
      time,
      parents: before ? [before.record, next.commit] : [next.commit],
      fresh: true,
      deletions: [],
      files: [record, ...draft.keptFiles()],
    });
    this.#tip = next;
    this.#commands.push(Buffer.from([...commit, ...side].join(''), 'latin1'));
  }
}

function explained(error: unknown, { signal }: Repository, what: string): unknown {
  return signal?.aborted === true ? signal.reason : asGitError(error, what);
}
