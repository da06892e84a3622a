import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { git, snapshot } from '../git/git.ts';
import { dir, file, tar, whiteout } from '../support/archive.ts';
import type { FakeImage } from '../support/fake-image.ts';
import type { RunningProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { Setting, noInjection, noise, threeLayers } from './setting.ts';

/** The result of a round of `killRounds`. */
export interface KillRound {
  /** Milliseconds from the first request to the program's death. */
  readonly after: number;
  /** True if the pull had ended by then. */
  readonly finished: boolean;
  /** Number of layers that the next run found in the store, complete or partial. */
  readonly reused: number;
}

/** A kind of pull, and the states that are allowed after its death. */
interface KillKind {
  readonly image: FakeImage;
  /** Bytes per second of each connection, so few that most of a run is the download, as on a real link. */
  readonly rate: number;
  readonly flags: readonly string[];
  /** Name of the pull's result in the directory of the setting. */
  readonly name: string;
  /** Reads the result as text, and checks it as far as possible without another one. */
  readonly read: (setting: Setting) => string;
  /** An image of an earlier tag, which every second round pulls before. */
  readonly earlier?: FakeImage;
  /**
   * System calls near the end of such a round, with a range of their numbers in a thread. If strace can do
   * that, every second round is killed at one of them. A random moment is nearly always in the download.
   */
  readonly lastCalls?: readonly (readonly [name: string, first: number, last: number])[];
  /**
   * True if a resumed run requests each layer from the end of its stored part on. With several connections
   * per layer, it does not.
   */
  readonly inOrder?: boolean;
}

const many = Array.from({ length: 400 }, (_, n) => file(`usr/f${n}`, `${n}\n`));
const base = [
  { tar: tar(dir('etc'), file('etc/motd', 'old\n'), file('etc/gone', 'x'), noise('base', 2 ** 20)) },
  { tar: tar(dir('usr'), ...many, whiteout('etc/gone')) },
];
const top = { tar: tar(file('etc/motd', 'new\n'), noise('usr/big', 2 ** 20), whiteout('usr/f7')) };

function readRepository(setting: Setting): string {
  const directory = setting.scratch.join('out');
  assert.equal(git(directory, 'fsck', '--strict', '--full', '--no-dangling'), '');
  assert.equal(git(directory, 'status', '--porcelain'), '');
  const branches = git(directory, 'branch', '--format=%(refname:short)').trim().split('\n');
  const lines = snapshot(directory).filter((line) => !/ (json|layersize|\.\/)$/.test(line));
  return [`${branches.length} branches`, ...lines].join('\n');
}

function readArchive(setting: Setting): string {
  return createHash('sha256')
    .update(readFileSync(setting.scratch.join('out.tar')))
    .digest('hex');
}

export const killKinds = {
  'a directory': {
    image: threeLayers(),
    rate: 3 * 2 ** 20,
    flags: ['-d', 'out'],
    name: 'out',
    read: (setting) => setting.tree(),
    inOrder: true,
  },
  '-g': {
    image: { layers: [...base, top] },
    rate: 4 * 2 ** 20,
    flags: ['-d', 'out', '-g', '--replace'],
    name: 'out',
    read: readRepository,
    earlier: { layers: base },
  },
  '-o': {
    image: threeLayers(),
    rate: 3 * 2 ** 20,
    flags: ['-o', 'out.tar'],
    name: 'out.tar',
    read: readArchive,
    inOrder: true,
  },
  '--replace': {
    image: threeLayers(),
    rate: 2 ** 20,
    flags: ['-d', 'out', '--replace=always'],
    name: 'out',
    read: (setting) => setting.tree(),
    lastCalls: [
      // The first calls remove files that the image's own layers replace.
      ['unlinkat', 20, 300],
      ['renameat2', 1, 1],
    ],
    // This tree has many files, so that some rounds are killed between the exchange and the end of the
    // removal.
    earlier: {
      layers: [{ tar: tar(dir('old'), ...Array.from({ length: 1500 }, (_, n) => file(`old/${n}`, 'x'))) }],
    },
  },
  'several connections': {
    image: { layers: [{ tar: tar(noise('big', 24 * 2 ** 20), file('last', 'x')) }] },
    rate: 8 * 2 ** 20,
    flags: ['-d', 'out', '-j', '4'],
    name: 'out',
    read: (setting) => setting.tree(),
  },
} as const satisfies Readonly<Record<string, KillKind>>;

/** Rounds at the same time: they mostly wait for a slow link. */
const SIDE_BY_SIDE = 3;

/**
 * Kills a pull at a random moment, one in each part of a run's time, checks that its result is missing or
 * complete, and runs the same command again. There are `rounds` rounds, each with an empty store and no
 * rootfs, or after a pull of an earlier tag. `told` is called after every round.
 */
export async function killRounds(
  name: keyof typeof killKinds,
  rounds: number,
  told: (round: KillRound) => void,
): Promise<void> {
  const kind: KillKind = killKinds[name];
  const model = await modelOf(kind);
  let round = 0;
  const worker = async () => {
    for (; round < rounds;) {
      const withEarlier = kind.earlier !== undefined && round % 2 === 1;
      const after = ((round + Math.random()) / rounds) * model.milliseconds;
      const call =
        withEarlier && round % 4 === 3 ? kind.lastCalls?.[(round >> 2) % kind.lastCalls.length] : undefined;
      round += 1;
      const isLast = round === rounds;
      await using setting = await open(kind);
      if (withEarlier) await pullEarlier(setting, kind);
      const under = call && noInjection === false ? killedAt(...call) : undefined;
      told(await killOnce(setting, kind, model, { after, withEarlier, isLast, under }));
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
}

/** The results of undisturbed runs, and their time from the first request on, in milliseconds. */
interface Model {
  readonly earlier: string | undefined;
  readonly whole: string;
  readonly milliseconds: number;
}

async function open({ image, earlier, rate }: KillKind): Promise<Setting> {
  const setting = await Setting.open(image, { faults: [{ path: /\/blobs\//, rate, times: 1e9 }] });
  if (earlier !== undefined) setting.registry.push('lib/img', 'earlier', earlier);
  return setting;
}

async function pullEarlier(setting: Setting, { flags }: KillKind): Promise<void> {
  const reference = setting.registry.reference('lib/img', 'earlier');
  const { exitCode, stderr } = await setting.start(flags, {}, reference).result;
  assert.equal(exitCode, 0, stderr);
  setting.registry.requests.length = 0;
}

async function modelOf(kind: KillKind): Promise<Model> {
  await using setting = await open(kind);
  if (kind.earlier !== undefined) await pullEarlier(setting, kind);
  const earlier = kind.earlier === undefined ? undefined : kind.read(setting);
  rmSync(setting.scratch.join(kind.name), { recursive: true, force: true });
  rmSync(setting.store, { recursive: true, force: true });
  await setting.pullWell(kind.flags);
  return {
    earlier,
    whole: kind.read(setting),
    milliseconds: performance.now() - setting.registry.requests[0]!.time,
  };
}

/**
 * Returns a command that kills the program at its nth call of a system call, before the system executes it.
 */
function killedAt(call: string, first: number, last: number): readonly string[] {
  const nth = first + Math.floor(Math.random() * (last - first + 1));
  const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=SIGKILL:when=${nth}`];
  return ['strace', '-f', '-qq', '-o', '/dev/null', ...inject];
}

/** @param options.under a command that kills the run; undefined: it is killed after `after` milliseconds */
async function killOnce(
  setting: Setting,
  kind: KillKind,
  model: Model,
  {
    after,
    withEarlier,
    isLast,
    under,
  }: {
    readonly after: number;
    readonly withEarlier: boolean;
    readonly isLast: boolean;
    readonly under: readonly string[] | undefined;
  },
): Promise<KillRound> {
  const { registry, image } = setting;
  const run = setting.start(kind.flags, under && { under });
  const watch = withEarlier ? undefined : watchFor(setting, kind, model);
  await until('the first request', () => registry.requests.length > 0 || run.isOver);
  assert.ok(registry.requests.length > 0, run.stderr);
  if (under) {
    assert.equal((await run.result).exitCode, 137, 'it came to the call');
  } else {
    await sleep(after);
    // The machine may be busier than during the measurement, so that `after` is too early. At least one round
    // must leave some bytes.
    if (isLast) await until('a part of a layer', () => run.isOver || inStore(setting).some(Boolean));
    await kill(run);
  }
  watch?.end();
  const state = stateOf(setting, kind);
  assert.ok(state === model.whole || state === (withEarlier ? model.earlier : undefined), state);

  const left = inStore(setting);
  registry.requests.length = 0;
  const finished = state === model.whole;
  if (finished) rmSync(setting.scratch.join(kind.name), { recursive: true });
  const again = withEarlier || finished ? undefined : watchFor(setting, kind, model);
  await setting.pullWell(kind.flags);
  again?.end();
  assert.equal(stateOf(setting, kind), model.whole);
  assert.deepEqual(setting.names, [kind.name], 'nothing is left beside it');
  for (const [n, found] of left.entries()) {
    // A complete partial file is not requested. On a busy machine a connection may break: the next request
    // starts there.
    if (found === image.layers[n]!.size || kind.inOrder !== true) continue;
    const asked = setting.asked(n);
    const message = 'what the store has is not fetched again';
    if (found === 'whole') assert.deepEqual(asked, [], message);
    else
      assert.ok(asked[0] === found && asked.every((start) => start >= found), `${message}: ${asked.join()}`);
  }
  return { after, finished, reused: left.filter((found) => found !== 0).length };
}

/** Returns the number of bytes that the store has of each layer. */
function inStore(setting: Setting): readonly (number | 'whole')[] {
  return setting.image.layers.map(({ digest }, n) =>
    existsSync(setting.blob(digest)) ? 'whole' : (setting.partial(n) ?? 0),
  );
}

async function kill(run: RunningProgram): Promise<void> {
  run.kill('SIGKILL');
  await run.result;
}

/** Returns the result of the pull; undefined if it does not exist. */
function stateOf(setting: Setting, { name, read }: KillKind): string | undefined {
  return readdirSync(setting.scratch.path).includes(name) ? read(setting) : undefined;
}

/** Watches for the result of the pull; when it appears, it must be complete. */
function watchFor(setting: Setting, kind: KillKind, { whole }: Model): { end: () => void } {
  let seen = false;
  let failure: unknown;
  const look = () => {
    if (seen || !existsSync(setting.scratch.join(kind.name))) return;
    seen = true;
    try {
      assert.equal(kind.read(setting), whole, 'it was seen half made');
    } catch (error) {
      failure = error;
    }
  };
  const timer = setInterval(look, 5);
  return {
    end: () => {
      clearInterval(timer);
      look();
      if (failure !== undefined) throw failure;
    },
  };
}
