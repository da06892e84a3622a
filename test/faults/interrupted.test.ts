import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import type { FakeImage } from '../support/fake-image.ts';
import type { FakeRegistryOptions } from '../support/fake-registry.ts';
import { missing } from '../support/debian.ts';
import { startProgram, type RunningProgram } from '../support/program.ts';
import { runs } from '../support/runs.ts';
import { until } from '../support/until.ts';
import { killRounds, type killKinds, type KillRound } from './kill.ts';
import { noInjection, Setting, threeLayers } from './setting.ts';

const signals = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const;

/**
 * Limit in milliseconds. An end takes a second on an idle machine. A slow disk with thousands of files may
 * take longer; a hang never ends.
 */
const SOON = 15_000;

/** Sends the signal and checks the end. Returns false if the run ended before the signal came. */
async function interrupt(
  run: RunningProgram,
  signal: NodeJS.Signals,
  exitCode: number,
  within = SOON,
): Promise<boolean> {
  const begin = performance.now();
  run.kill(signal);
  const result = await run.result;
  const took = performance.now() - begin;
  if (result.exitCode === 0) return false;
  assert.equal(result.exitCode, exitCode, result.stderr);
  assert.ok(took < within || took < within * slowness(), `ended after ${took.toFixed(0)} ms`);
  assert.match(result.stderr, new RegExp(`error: interrupted by ${signal}\n`));
  assert.doesNotMatch(result.stderr, /^\s+at /m);
  assert.doesNotMatch(result.stdout, /^Rootfs of/m);
  return true;
}

/** Milliseconds that an empty script takes on an idle machine. */
const EMPTY_SCRIPT = 50;

/** Returns the time of an empty script now, divided by its time on an idle machine. */
function slowness(): number {
  const begin = performance.now();
  spawnSync(process.execPath, ['-e', '']);
  return (performance.now() - begin) / EMPTY_SCRIPT;
}

/**
 * Repeats `attempt` while it returns false. On a busy machine a run may end before the test has seen its
 * phase.
 */
async function inTime(attempt: () => Promise<boolean>): Promise<void> {
  for (let attempts = 1; !(await attempt()); attempts += 1)
    assert.ok(attempts < 10, 'each run was done before the signal came');
}

interface Phase {
  readonly sentence: string;
  readonly signals?: readonly (typeof signals)[number][];
  readonly image?: FakeImage;
  readonly options?: FakeRegistryOptions;
  readonly flags?: readonly string[];
  /** Prepares the run; returns variables for its environment. */
  readonly prepare?: (setting: Setting) => Record<string, string> | undefined;
  /** True if the phase has begun. */
  readonly begun: (setting: Setting, run: RunningProgram) => boolean;
  /** Milliseconds until the end at most; default: `SOON`. */
  readonly within?: number;
  /** Checks the state after the end. */
  readonly ended?: (setting: Setting) => Promise<void>;
}

const asked = (path: RegExp) => (setting: Setting) => setting.registry.log(path).length > 0;

/** Many entries in few bytes: the run spends its time with files, not with the download. */
function manyFiles(): FakeImage {
  const names = Array.from({ length: 30 }, (__, d) => [
    dir(`d${d}`),
    ...Array.from({ length: 250 }, (_, n) => file(`d${d}/f${n}`, 'x')),
  ]);
  return { layers: [{ tar: tar(...names.flat()) }] };
}

/** True if the stage has more names than `count`. */
const unpacked = (count: number) => (setting: Setting) => {
  const stage = setting.names.find((name) => name.startsWith('.out.dlrootfs-'));
  return stage !== undefined && readdirSync(setting.scratch.join(stage)).length > count;
};

const phases: readonly Phase[] = [
  {
    sentence: 'while the registry does not answer',
    options: { faults: [{ path: /\/v2\/$/, before: 'silent', times: 9 }] },
    begun: asked(/\/v2\/$/),
  },
  {
    sentence: 'while the token server does not answer',
    options: { auth: { type: 'bearer' }, faults: [{ path: /^\/token/, before: 'silent', times: 9 }] },
    begun: asked(/^\/token/),
  },
  {
    sentence: 'while a credential helper does not answer',
    options: { auth: { type: 'basic', users: { me: 'x' } } },
    prepare: (setting) => {
      writeFileSync(setting.scratch.join('docker-credential-slow'), '#!/bin/sh\n: >started\nexec sleep 60\n');
      chmodSync(setting.scratch.join('docker-credential-slow'), 0o755);
      writeFileSync(setting.scratch.join('config.json'), '{"credsStore":"slow"}');
      const path = `${setting.scratch.path}:${process.env['PATH']}`;
      return { PATH: path, DOCKER_CONFIG: setting.scratch.path };
    },
    begun: (setting) => setting.names.includes('started'),
  },
  {
    sentence: 'while the manifest does not come',
    options: { faults: [{ path: /\/manifests\//, before: 'silent', times: 9 }] },
    begun: asked(/\/manifests\//),
  },
  {
    sentence: 'while it waits to retry',
    options: { faults: [{ path: /\/manifests\//, status: 503, headers: { 'retry-after': '20' }, times: 9 }] },
    begun: (_, run) => /20\.0 s|20 s/.test(run.stderr),
  },
  {
    sentence: 'while the config does not come',
    options: { faults: [{ path: /\/blobs\//, stallAfter: 3, times: 9 }] },
    begun: asked(/\/blobs\//),
  },
  {
    sentence: 'while a layer does not come',
    signals,
    within: 2500,
    flags: ['--no-cache'],
    options: { faults: [{ path: /\/blobs\//, skip: 1, stallAfter: 5, times: 1000 }] },
    begun: (setting) => setting.registry.log(/\/blobs\//).length > 1,
  },
  {
    sentence: 'while layers come: the store keeps what has come, and the next run resumes it',
    signals,
    prepare: ({ image, registry }) => {
      for (const { digest } of image.layers)
        registry.fault({ path: new RegExp(digest), stallAfter: 200_000 });
      return undefined;
    },
    begun: (setting) => setting.partial(0) === 200_000 && setting.partial(2) === 200_000,
    ended: async (setting) => {
      assert.deepEqual([setting.partial(0), setting.partial(2)], [200_000, 200_000]);
      setting.registry.requests.length = 0;
      await setting.pullWell();
      assert.deepEqual([setting.asked(0), setting.asked(2)], [[200_000], [200_000]]);
      assert.match(setting.tree(), /etc\/motd/);
    },
  },
  {
    sentence: 'while a layer with thousands of files is unpacked',
    signals: [signals[1]],
    image: manyFiles(),
    begun: unpacked(3),
  },
  {
    sentence: 'while -g commits',
    signals: [signals[0]],
    image: manyFiles(),
    flags: ['-g'],
    begun: unpacked(12),
  },
  {
    sentence: 'while -o writes',
    signals: [signals[1]],
    flags: ['-o', 'out.tar'],
    options: { faults: [{ path: /\/blobs\//, skip: 2, stallAfter: 900_000, times: 9 }] },
    begun: (setting) => setting.registry.log(/\/blobs\//).length > 2,
  },
];

for (const [n, phase] of phases.entries()) {
  const { sentence, image, options, flags, prepare, begun, within, ended } = phase;
  for (const [signal, exitCode] of phase.signals ?? [signals[n % signals.length]!]) {
    test(`${signal} ${sentence}: exit ${exitCode}, soon, and no stage`, { skip: missing('git') }, () =>
      inTime(async () => {
        await using setting = await Setting.open(image, options);
        const environment = prepare?.(setting);
        const before = setting.names;
        const run = setting.start(flags, environment && { environment });
        await until('the phase', () => begun(setting, run) || run.isOver);
        if (!(await interrupt(run, signal, exitCode, within))) return false;
        assert.deepEqual(
          setting.names.filter((name) => name !== 'started'),
          before,
        );
        await ended?.(setting);
        return true;
      }),
    );
  }
}

test('SIGINT while a connection is not taken: exit 130, soon', async () => {
  // The server does not accept: its queue of connections is full, and then the kernel drops further ones.
  const script = `const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    require('node:fs').writeSync(1, String(server.address().port));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });`;
  const server = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const sockets: Socket[] = [];
  try {
    const [port] = (await once(server.stdout, 'data')) as [Buffer];
    for (let n = 0; n < 4; n += 1) {
      sockets.push(connect(Number(port.toString()), '127.0.0.1').on('error', () => undefined));
    }
    await using setting = await Setting.open();
    const argv = [`127.0.0.1:${port.toString()}/lib/img`, '-d', 'out', '--no-cache'];
    const run = startProgram(argv, { cwd: setting.scratch.path });
    await until('the start', () => run.stdout.includes('Opening a session'));
    assert.ok(await interrupt(run, 'SIGINT', 130));
    assert.deepEqual(setting.names, []);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.kill('SIGKILL');
  }
});

test('a second signal ends at once, and the next run removes what that left', () =>
  inTime(async () => {
    await using setting = await Setting.open(manyFiles());
    const run = setting.start();
    await until('many files', () => unpacked(12)(setting) || run.isOver);
    run.kill('SIGINT');
    const begin = performance.now();
    const timer = setInterval(() => run.kill('SIGINT'), 1);
    const { exitCode, stderr } = await run.result;
    clearInterval(timer);
    const took = performance.now() - begin;
    // All files were unpacked, or removed, before the second signal came.
    if (exitCode === 0 || /^error: interrupted by SIGINT$/m.test(stderr)) return false;
    assert.equal(exitCode, 130);
    assert.match(
      stderr,
      /^error: interrupted by SIGINT before all was removed\nhint: run it again: that removes what this run left beside DIR or FILE\n$/m,
    );
    assert.ok(took < SOON || took < SOON * slowness());
    await setting.pullWell();
    assert.deepEqual(setting.names, ['out']);
    return true;
  }));

test('SIGINT while another run has the blob: exit 130, soon, and the other one goes on', async () => {
  const released = new AbortController();
  await using setting = await Setting.open(threeLayers(), {
    faults: [{ path: /\/blobs\//, skip: 1, rate: 10_000, hurry: released.signal, times: 1000 }],
  });
  const first = setting.start();
  await until('the first layer', () => (setting.partial(0) ?? 0) > 0);
  const second = setting.start(['-d', 'second']);
  await until('the wait', () => second.stderr.includes('another run is downloading it'));
  assert.ok(await interrupt(second, 'SIGINT', 130));
  released.abort();
  const { exitCode, stderr } = await first.result;
  assert.equal(exitCode, 0, stderr);
  assert.deepEqual(setting.names, ['out']);
});

/** The number of rounds here; `make soak` makes more. */
const rounds: Readonly<Record<keyof typeof killKinds, number>> = {
  'a directory': runs(8, 20),
  '-g': runs(4, 8),
  '-o': runs(4, 6),
  '--replace': runs(4, 10),
  'several connections': runs(3, 4),
};

for (const [name, count] of Object.entries(rounds) as [keyof typeof killKinds, number][]) {
  const sentence = `${name}: killed at ${count} random moments, it is not there, what it was, or whole, and the same command then succeeds`;
  test(sentence, { skip: missing('git') }, async (t) => {
    const all: KillRound[] = [];
    await killRounds(name, count, (round) => all.push(round));
    t.diagnostic(all.map(({ after, reused }) => `${after.toFixed(0)} ms: ${reused}`).join(', '));
    assert.equal(all.length, count);
    assert.ok(
      all.some(({ finished }) => !finished),
      'some were killed before they were done',
    );
    assert.ok(
      all.some(({ reused }) => reused > 0),
      'some of what a killed run left was gone on with',
    );
    if (name === '--replace' && noInjection === false)
      assert.ok(
        all.some(({ finished }) => finished),
        'some were killed after the exchange',
      );
  });
}

test(
  'with -g --replace, what a killed run left beside DIR goes also where nothing else is to be done',
  { skip: missing('git') },
  async () => {
    await using setting = await Setting.open();
    const flags = ['-d', 'out', '-g', '--replace'];
    await setting.pullWell(flags);
    // No process has a number like that: pid_max is at most 2^22.
    mkdirSync(setting.scratch.join('.out.dlrootfs-99999999-0123456789ab/usr'), { recursive: true });
    const { stderr } = await setting.pullWell(flags);
    assert.match(stderr, /nothing was done/);
    assert.deepEqual(setting.names, ['out']);
  },
);
