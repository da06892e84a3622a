import { closeSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { GitError, printable } from '../errors.ts';
import { composeCommit, type TreeFile } from './fast-import.ts';
import { asGitError, findGit, openGit, type Environment, type GitProgram } from './git-program.ts';
import { composeIndex, type IndexedFile } from './index-file.ts';
import { LayerDraft, type Came } from './layer-draft.ts';
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
import { PackWriter } from './pack-writer.ts';
import { closeToOthers, initRepository } from './repository.ts';
import { RootfsState } from './rootfs-state.ts';
import { SizeMismatch, TreeFiles, contentIn, contentOf } from './tree-files.ts';
import { treeFiles } from './tree.ts';

export interface GitOptions {
  readonly environment: Environment;
  readonly signal?: AbortSignal | undefined;
}

/** From this size on a pack is completed in the background and another one begun. */
const packSize = 64 * 2 ** 20;
/** How long the event loop may have to wait for us, in milliseconds. */
const longestTurn = 8;

/**
 * The layers of a rootfs as branches of a repository in it, `.git`: `layer<n>_<id>`, each on top of the one before.
 *
 * What a commit cannot hold (owners, exact modes, times, attributes, hard links, devices, empty directories, nested repositories)
 * stands in a record a layer: the ref `refs/dlrootfs/<branch>`, a commit with `record.mtree` in its tree, whose parents are the
 * record of the layer below, where there is one, and last the layer's own commit.
 */
export class GitLayers {
  readonly #directory: string;
  readonly #gitDirectory: string;
  readonly #program: GitProgram;
  readonly #options: GitOptions;
  readonly #files: TreeFiles;
  readonly #state = new RootfsState();
  readonly #known = new Map<ObjectID, number>();
  readonly #branches: string[] = [];
  /** For `git fast-import`. */
  readonly #commands: Buffer[] = [];
  readonly #closing: Promise<void>[] = [];
  #pack: PackWriter | undefined;
  /** Commits of the layer before, as `git fast-import` calls them. */
  #tip: { readonly commit: string; readonly record: string } | undefined;
  #marks = 0;
  #turnEnds = 0;

  private constructor(directory: string, program: GitProgram, options: GitOptions) {
    this.#directory = directory;
    this.#gitDirectory = path.join(directory, '.git');
    this.#program = program;
    this.#options = options;
    this.#files = new TreeFiles(directory);
  }

  /**
   * Whether git is there and can do it; to be asked before anything is fetched.
   *
   * @throws GitError when it is missing or too old
   */
  static async check(environment: Environment): Promise<void> {
    await findGit(environment);
  }

  /**
   * Makes the repository in a directory that is empty still.
   *
   * @throws GitError
   */
  static async open(directory: string, options: GitOptions): Promise<GitLayers> {
    const program = await findGit(options.environment);
    await initRepository(program, options.environment, directory);
    return new GitLayers(directory, program, options);
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
      for (const came of draft.unstored()) came.inode.id = await this.#store(came);
      const record = Buffer.from(draft.record(), 'latin1');
      const id = await this.#openPack().add(record.length, contentIn(record));
      this.#addCommands(branch, commitTime(layer), draft, { path: recordPath, mode: '100644', id });
      this.#branches.push(branch);
      if (this.#openPack().size >= packSize) this.#closePack();
    } catch (error) {
      throw this.#explain(error, `cannot commit ${branch}`);
    }
  }

  /**
   * Makes commits and branches of all that was kept, the last one checked out, as the rootfs is already: `git status` is clean. From the
   * last `commit` to the end of this no file may change; modes and times of directories may, later too.
   *
   * @throws GitError, or the reason of the signal
   */
  async finish(): Promise<void> {
    const last = this.#branches.at(-1);
    if (last === undefined) return;
    try {
      this.#closePack();
      await Promise.all(this.#closing);
      await this.#import();
      await this.#git().raw(['symbolic-ref', 'HEAD', branchRef(last)]);
      await this.#writeIndex();
      closeToOthers(this.#gitDirectory);
    } catch (error) {
      throw this.#explain(error, 'git could not make the branches');
    }
  }

  /** Lets go of what is open when `finish` is not going to be called. */
  async discard(): Promise<void> {
    this.#pack?.discard();
    this.#pack = undefined;
    await Promise.allSettled(this.#closing);
  }

  #git(input?: () => Buffer) {
    const place = { gitDirectory: this.#gitDirectory, workTree: this.#directory };
    return openGit(this.#program, this.#options.environment, place, {
      signal: this.#options.signal,
      ...(input === undefined ? {} : { input }),
    });
  }

  async #store({ path: name, inode }: Came): Promise<ObjectID> {
    if (inode.type === 'symlink') {
      const target = Buffer.from(inode.linkPath, 'latin1');
      return this.#openPack().add(target.length, contentIn(target));
    }
    if (performance.now() > this.#turnEnds) await this.#breathe();
    const file = this.#files.open(name);
    try {
      return await this.#openPack().add(inode.size, contentOf(file));
    } catch (error) {
      if (!(error instanceof SizeMismatch)) throw error;
      throw new GitError(`${printable(name)} changed while it was read`, { code: 'GIT_CHANGED' });
    } finally {
      closeSync(file);
    }
  }

  #addCommands(branch: string, time: number, draft: LayerDraft, record: TreeFile): void {
    const [commitMark, recordMark] = [`:${++this.#marks}`, `:${++this.#marks}`];
    const commit = composeCommit({
      ref: branchRef(branch),
      mark: commitMark,
      message: `adding layer ${this.#branches.length}`,
      time,
      parents: this.#tip ? [this.#tip.commit] : [],
      deletions: draft.deletions,
      files: draft.files(),
    });
    const side = composeCommit({
      ref: recordRef(branch),
      mark: recordMark,
      message: `what git cannot hold of ${branch}`,
      time,
      parents: this.#tip ? [this.#tip.record, commitMark] : [commitMark],
      fresh: true,
      deletions: [],
      files: [record, ...draft.keptFiles()],
    });
    this.#tip = { commit: commitMark, record: recordMark };
    this.#commands.push(Buffer.from([...commit, ...side].join(''), 'latin1'));
  }

  async #import(): Promise<void> {
    const stream = Buffer.concat([...this.#commands, Buffer.from('done\n')]);
    this.#commands.length = 0;
    await this.#git(() => stream).raw(['fast-import', '--quiet', '--done', '--date-format=raw']);
  }

  async #writeIndex(): Promise<void> {
    const files: IndexedFile[] = [];
    for (const file of treeFiles(this.#state)) {
      files.push({ ...file, stat: this.#files.stat(file.path) });
      if (performance.now() > this.#turnEnds) await this.#breathe();
    }
    const name = path.join(this.#gitDirectory, 'index');
    writeFileSync(`${name}.lock`, composeIndex(files), { flag: 'wx', mode: 0o644 });
    renameSync(`${name}.lock`, name);
  }

  #openPack(): PackWriter {
    this.#pack ??= new PackWriter(path.join(this.#gitDirectory, 'objects/pack'), this.#known, () =>
      this.#breathe(),
    );
    return this.#pack;
  }

  /** Completes the pack without making anyone wait. */
  #closePack(): void {
    if (!this.#pack) return;
    const closing = this.#pack.close();
    // Whoever waits for it gets the error; nobody does when the pull fails first.
    closing.catch(() => undefined);
    this.#closing.push(closing);
    this.#pack = undefined;
  }

  async #breathe(): Promise<void> {
    if (performance.now() > this.#turnEnds) {
      await setImmediate();
      this.#turnEnds = performance.now() + longestTurn;
    }
    this.#options.signal?.throwIfAborted();
  }

  #explain(error: unknown, what: string): unknown {
    return this.#options.signal?.aborted === true ? this.#options.signal.reason : asGitError(error, what);
  }
}
