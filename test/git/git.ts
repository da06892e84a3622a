import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { checkout } from '../../src/git/checkout.ts';
import { GitLayers } from '../../src/git/git-layers.ts';
import type { GitOptions } from '../../src/git/git-program.ts';
import type { LayerIdentity } from '../../src/git/refs.ts';
import { ContentWriter } from '../../src/rootfs/contents.ts';
import { printTree } from '../support/tree.ts';
import { Stage } from './stage.ts';

export const environment = { PATH: process.env['PATH'] };

/** The id of the nth layer of an image. */
export function idOf(number: number, image = 'a'): string {
  return `${image}${number}`.padStart(64, '0');
}

export function branchOf(number: number, image = 'a'): string {
  return `layer${number}_${idOf(number, image)}`;
}

/** A directory that is gone after the test. */
export function scratch(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'dlrootfs-git-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** git as a user would call it, without a user's configuration. */
export function git(directory: string, ...command: string[]): string {
  return execFileSync('git', ['-C', directory, ...command], {
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environment, HOME: '/nonexistent', GIT_CONFIG_NOSYSTEM: '1' },
  });
}

export type BuildLayer = (stage: Stage) => unknown;

/** The branches of a rootfs that a `Stage` makes: hands contents over as the thread that writes does. */
export class StageLayers {
  readonly layers: GitLayers;
  readonly #writer: ContentWriter;

  constructor(layers: GitLayers) {
    this.layers = layers;
    this.#writer = new ContentWriter(layers.contents);
  }

  static async open(directory: string, options: GitOptions = { environment }): Promise<StageLayers> {
    return new StageLayers(await GitLayers.open(directory, options));
  }

  /** Commits what was done in the stage since the last call. */
  async commit(layer: LayerIdentity, stage: Stage): Promise<void> {
    this.write(stage);
    await this.layers.commit(layer, stage.changes());
  }

  /** Hands over the contents of what was done in the stage. */
  write(stage: Pick<Stage, 'contents'>): void {
    for (const bytes of stage.contents()) this.#writer.write(bytes);
    this.#writer.requestAnswer();
  }

  async finish(): Promise<void> {
    this.#writer.end();
    await this.layers.finish();
  }
}

/** A rootfs with a branch for each layer, as a pull leaves it. `after` sees the stage after each. */
export async function pullLayers(
  directory: string,
  layers: readonly BuildLayer[],
  options: { readonly after?: (stage: Stage) => void; readonly image?: string } = {},
): Promise<Stage> {
  const stage = new Stage(directory);
  const layersOfGit = await StageLayers.open(directory);
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

export async function checkOut(directory: string, wanted: string, force = false): Promise<string> {
  const { branch } = await checkout(directory, wanted, { environment, force });
  return branch;
}

/** A rootfs as lines, one a path, `.git` aside. */
export function snapshot(root: string): string[] {
  return printTree(root, { without: ['.git'], root: true }).split('\n');
}
