import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { GitLayers, type LayerIdentity } from '../../src/git/git-layers.ts';
import { findGit } from '../../src/git/git-program.ts';
import { ChangeLog } from '../../src/rootfs/changes.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import { printTree } from '../support/tree.ts';
import { Stage } from './stage.ts';

export const environment = { PATH: process.env['PATH'] };

/** Returns the id of the nth layer of an image. */
export function idOf(number: number, image = 'a'): string {
  return `${image}${number}`.padStart(64, '0');
}

export function branchOf(number: number, image = 'a'): string {
  return `layer${number}_${idOf(number, image)}`;
}

/** Makes a directory that is removed after the test. */
export function scratch(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'dlrootfs-git-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Runs git as a user does, without a user's configuration. */
export function git(directory: string, ...command: string[]): string {
  return execFileSync('git', ['-C', directory, ...command], {
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environment, HOME: '/nonexistent', GIT_CONFIG_NOSYSTEM: '1' },
  });
}

/** The error of `git rev-parse --verify HEAD` in a repository without a commit. */
export const noCommit = /fatal: Needed a single revision/;

export type BuildLayer = (stage: Stage) => unknown;

/**
 * The branches of a rootfs that a `Stage` makes. Changes and contents are passed on as by the writing thread.
 */
export class StageLayers {
  readonly layers: GitLayers;
  readonly #contents: ContentWriter;
  readonly #changes: ChangeLog;

  constructor(directory: string, signal?: AbortSignal) {
    this.layers = GitLayers.open(findGit(process.env), directory, signal);
    this.#contents = new ContentWriter(this.layers.contents);
    this.#changes = new ChangeLog(this.#contents, (records) => this.layers.note(records));
  }

  /** Commits the changes of the stage since the last call. */
  async commit(layer: LayerIdentity, stage: Stage): Promise<void> {
    stage.tell(this.#changes);
    await this.layers.commit(layer);
  }

  async finish(): Promise<void> {
    this.#contents.end();
    await this.layers.finish();
  }
}

/** Makes a rootfs with a branch for each layer, as a pull does. `after` is called after each layer. */
export async function pullLayers(
  directory: string,
  layers: readonly BuildLayer[],
  options: { readonly after?: (stage: Stage) => void; readonly image?: string } = {},
): Promise<Stage> {
  const stage = new Stage(directory);
  const layersOfGit = new StageLayers(directory);
  for (const [number, build] of layers.entries()) {
    build(stage);
    await layersOfGit.commit(
      { id: idOf(number, options.image), created: `2020-01-0${number + 1}T00:00:00Z` },
      stage,
    );
    options.after?.(stage.settle());
  }
  stage.settle();
  await layersOfGit.finish();
  return stage;
}

/** Prints a rootfs without `.git`, one line per path. */
export function snapshot(root: string): string[] {
  return printTree(root, { without: ['.git'], root: true }).split('\n');
}
