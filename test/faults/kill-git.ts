import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { dir, file, tar, whiteout } from '../support/archive.ts';
import { git, snapshot } from '../git/git.ts';
import { startProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { Setting, noise } from './setting.ts';

/** What a round of `killGitRounds` was like. */
export interface KilledGit {
  /** Milliseconds from the first request to the program's death. */
  readonly after: number;
  /** How many layers DIR had by then. */
  readonly layers: number;
}

/** As many entries as take git some time, and bytes enough for a slow link. */
const many = Array.from({ length: 400 }, (_, n) => file(`usr/f${n}`, `${n}\n`));
const base = [
  { tar: tar(dir('etc'), file('etc/motd', 'old\n'), file('etc/gone', 'x'), noise('base', 2 ** 20)) },
  { tar: tar(dir('usr'), ...many, whiteout('etc/gone')) },
];
const top = { tar: tar(file('etc/motd', 'new\n'), noise('usr/big', 2 ** 20), whiteout('usr/f7')) };
/** Rounds that run side by side: they mostly wait for a slow link. */
const SIDE_BY_SIDE = 3;
/** How many layers each tag has. */
const tags = { '1': 2, '2': 3 } as const;

async function open(): Promise<Setting> {
  const setting = await Setting.open(
    { layers: base },
    { faults: [{ path: /\/blobs\//, rate: 4 * 2 ** 20, times: 1e9 }] },
  );
  setting.registry.push('lib/img', '2', { layers: [...base, top] });
  return setting;
}

/**
 * Kills a pull with -g at a random moment, of a new DIR and of one that has the first layers already; so many times. Each time DIR is
 * not there or, to its last file and object, what some pull left; and the same command then makes it whole. `told` hears of each.
 */
export async function killGitRounds(rounds: number, told: (round: KilledGit) => void): Promise<void> {
  await using first = await open();
  const trees = new Map<number, string>();
  const durations: number[] = [];
  for (const tag of ['1', '2'] as const) {
    first.registry.requests.length = 0;
    const { exitCode, stderr } = await start(first, tag).result;
    assert.equal(exitCode, 0, stderr);
    durations.push(performance.now() - first.registry.requests[0]!.time);
    trees.set(tags[tag], treeOf(first));
  }
  let round = 0;
  const worker = async () => {
    for (; round < rounds;) {
      const resumed = round % 2 === 1;
      round += 1;
      await using setting = await open();
      if (resumed) assert.equal((await start(setting, '1').result).exitCode, 0);
      const duration = resumed ? durations[1]! : durations[0]! + durations[1]!;
      told(await killOnce(setting, Math.random() * duration, resumed ? 2 : 0, trees));
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
}

async function killOnce(
  setting: Setting,
  after: number,
  before: number,
  trees: ReadonlyMap<number, string>,
): Promise<KilledGit> {
  const { registry } = setting;
  registry.requests.length = 0;
  const run = start(setting, '2');
  await until('the first request', () => registry.requests.length > 0);
  await sleep(after);
  run.kill('SIGKILL');
  await run.result;
  const layers = wholeLayers(setting, trees);
  assert.ok(layers === before || layers === 3, `DIR had ${before} layers and has ${layers}`);
  const again = await start(setting, '2').result;
  assert.equal(again.exitCode, 0, again.stderr);
  assert.equal(wholeLayers(setting, trees), 3);
  assert.deepEqual(setting.names, ['out'], 'nothing is left beside DIR');
  return { after, layers };
}

function start(setting: Setting, tag: string) {
  const argv = ['-d', 'out', '-g', '--cache-dir', setting.store, '--retry-delay', '5ms'];
  return startProgram([setting.registry.reference('lib/img', tag), ...argv], { cwd: setting.scratch.path });
}

/** How many layers DIR has, 0 where it is not there; it must be whole. */
function wholeLayers(setting: Setting, trees: ReadonlyMap<number, string>): number {
  const directory = setting.scratch.join('out');
  if (!existsSync(directory)) return 0;
  assert.equal(git(directory, 'fsck', '--strict', '--full', '--no-dangling'), '');
  assert.equal(git(directory, 'status', '--porcelain'), '');
  const branches = git(directory, 'branch', '--format=%(refname:short)').trim().split('\n');
  assert.equal(treeOf(setting), trees.get(branches.length), branches.join());
  return branches.length;
}

function treeOf(setting: Setting): string {
  return snapshot(setting.scratch.join('out'))
    .filter((line) => !/ (json|layersize|\.\/)$/.test(line))
    .join('\n');
}
