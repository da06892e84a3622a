import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { noInjection, Setting } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { noOtherUser } from '../support/other-user.ts';
import type { RunningProgram } from '../support/program.ts';
import { until } from '../support/until.ts';

const skip = noOtherUser || noInjection;
const USER = 65_534;

/** Names and numbers of system calls on x64 and on arm64, which has only those with directory descriptors. */
const CALLS = {
  renameat2: { names: ['renameat2', 'renameat2'], numbers: [316, 276] },
  rename: { names: ['rename', 'renameat'], numbers: [82, 38] },
  link: { names: ['link', 'linkat'], numbers: [86, 37] },
} as const;
type Call = keyof typeof CALLS;

const image = { layers: [{ tar: tar(dir('bin'), file('bin/sh', 'the image')) }] };

/** Lists a directory with the attributes that show a change. A rename changes the directory itself. */
function listing(directory: string): string {
  const format = '%P %y %i %n %u:%g %m %s %T@ %C@ %l\n';
  return spawnSync('find', [directory, '-mindepth', '1', '-printf', format], { encoding: 'utf8' }).stdout;
}

/** A home of another user with a directory `box`, and beside it a directory of root's with the same names. */
class Stage implements AsyncDisposable {
  readonly setting: Setting;
  readonly box: string;
  readonly decoy: string;
  #before = '';

  private constructor(setting: Setting) {
    this.setting = setting;
    this.box = setting.scratch.join('home/box');
    this.decoy = setting.scratch.join('decoy');
  }

  static async open(): Promise<Stage> {
    const setting = await Setting.open(image);
    const stage = new Stage(setting);
    chmodSync(setting.scratch.path, 0o755);
    stage.asUser(`mkdir -p box/out && echo mine > box/out/mine`, setting.scratch.join('home'));
    fill(path.join(stage.decoy, 'out'));
    fill(path.join(stage.decoy, 'in/deep'));
    for (const name of ['x.tar', 'config.json', 'out.nspawn'])
      writeFileSync(path.join(stage.decoy, name), name);
    stage.#before = listing(stage.decoy);
    return stage;
  }

  /** Runs a shell command line as the other user, in the home. */
  asUser(line: string, home = this.setting.scratch.join('home')): void {
    if (!existsSync(home)) {
      mkdirSync(home);
      chownSync(home, USER, USER);
    }
    const done = spawnSync('sh', ['-ec', line], { cwd: home, uid: USER, gid: USER, encoding: 'utf8' });
    assert.equal(done.status, 0, done.stderr);
  }

  /** Starts the program as root; the user acts when it is about to make a system call. */
  async run(argv: readonly string[], call: Call, act: string): Promise<RunningProgram> {
    const { names, numbers } = CALLS[call];
    const at = process.arch === 'x64' ? 0 : 1;
    const inject = `inject=${names[at]}:delay_enter=5s:when=1`;
    const under = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${names[at]}`, '-e', inject];
    const running = this.setting.start([...argv, '--no-cache'], { under });
    const number = numbers[at];
    await until(`the call ${call}`, () => running.isOver || isCalling(running.pid, number));
    assert.ok(!running.isOver, running.stderr);
    this.asUser(act);
    return running;
  }

  assertDecoyUntouched(): void {
    assert.equal(listing(this.decoy), this.#before);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.setting[Symbol.asyncDispose]();
  }
}

function fill(directory: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'precious'), 'of root');
}

/**
 * True if a thread of the program that strace runs is at the start of a system call (proc_pid_syscall(5)).
 */
function isCalling(tracer: number, number: number): boolean {
  const children = read(`/proc/${tracer}/task/${tracer}/children`).trim().split(' ');
  return children.some((child) =>
    namesIn(`/proc/${child}/task`).some((thread) =>
      read(`/proc/${child}/task/${thread}/syscall`).startsWith(`${number} `),
    ),
  );
}

function read(name: string): string {
  try {
    return readFileSync(name, 'latin1');
  } catch {
    return '';
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

const SWAP = 'mv box elsewhere && ln -s ../decoy box';

test('races: --replace stays in the directory that it has opened', { skip }, async () => {
  await using stage = await Stage.open();
  const running = await stage.run(['-d', 'home/box/out', '--replace'], 'renameat2', SWAP);
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 0, stderr);
  stage.assertDecoyUntouched();
  const elsewhere = stage.setting.scratch.join('home/elsewhere');
  assert.deepEqual(readdirSync(elsewhere), ['out']);
  assert.equal(readFileSync(path.join(elsewhere, 'out/bin/sh'), 'utf8'), 'the image');
});

test('races: --replace removes nothing but the directory that it has checked', { skip }, async () => {
  await using stage = await Stage.open();
  const box = stage.box;
  // Root has made this directory: the user may rename it, but not remove it.
  fill(path.join(box, 'roots'));
  const before = listing(path.join(box, 'roots'));
  const act = 'cd box && mv out mine && mv roots out';
  const running = await stage.run(['-d', 'home/box/out', '--replace'], 'renameat2', act);
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /^error: .*home\/box\/out was replaced by another process$/m);
  assert.match(stderr, /^hint: /m);
  assert.equal(listing(path.join(box, 'out')), before);
  assert.deepEqual(readdirSync(box).toSorted(), ['mine', 'out']);
  assert.equal(readFileSync(path.join(box, 'mine/mine'), 'utf8'), 'mine\n');
});

test('races: --replace of a directory that is gone renames nothing', { skip }, async () => {
  await using stage = await Stage.open();
  const act = 'mv box/out box/mine && mv box elsewhere && ln -s ../decoy box';
  const running = await stage.run(['-d', 'home/box/out', '--replace'], 'renameat2', act);
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 7, stderr);
  stage.assertDecoyUntouched();
  assert.equal(readFileSync(stage.setting.scratch.join('home/elsewhere/mine/mine'), 'utf8'), 'mine\n');
  assert.deepEqual(readdirSync(stage.setting.scratch.join('home/elsewhere')), ['mine']);
});

test('races: a first pull gets its name in the directory that it has opened', { skip }, async () => {
  await using stage = await Stage.open();
  const act = 'mv box elsewhere && ln -s ../decoy/in box';
  const running = await stage.run(['-d', 'home/box/new'], 'rename', act);
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 0, stderr);
  stage.assertDecoyUntouched();
  assert.ok(existsSync(stage.setting.scratch.join('home/elsewhere/new/bin/sh')));
});

test('races: a file of -o replaces nothing in another directory', { skip }, async () => {
  await using stage = await Stage.open();
  const running = await stage.run(['-o', 'home/box/x.tar'], 'rename', SWAP);
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 0, stderr);
  stage.assertDecoyUntouched();
  const made = stage.setting.scratch.join('home/elsewhere');
  assert.deepEqual(readdirSync(made).toSorted(), ['out', 'x.tar']);
});

test(
  'races: a configuration of --for is written beside the rootfs that was made, or nowhere',
  { skip },
  async () => {
    const rows = [
      // The user acts before the directory is opened for the configuration, and after it.
      ['rename', ['-d', 'home/box/new'], SWAP, 7],
      ['rename', ['-d', 'home/box/new'], 'mv box elsewhere && mkdir -p box/new', 7],
      ['link', ['-d', 'home/box/out', '--replace'], SWAP, 0],
      ['rename', ['-d', 'home/box/out', '--replace', '--force'], SWAP, 0],
    ] as const;
    for (const [call, flags, act, exitCode] of rows) {
      await using stage = await Stage.open();
      const running = await stage.run([...flags, '--for', 'runc,nspawn'], call, act);
      const { exitCode: found, stderr } = await running.result;
      assert.equal(found, exitCode, stderr);
      stage.assertDecoyUntouched();
      const { scratch } = stage.setting;
      assert.equal(existsSync(scratch.join('home/elsewhere/config.json')), exitCode === 0);
      if (act === SWAP) continue;
      assert.deepEqual(readdirSync(scratch.join('home/box')), ['new']);
      assert.match(stderr, /^error: home\/box\/new was complete, and then replaced/m);
    }
  },
);

test('races: a link of the user that leads to what is of root is not followed', { skip }, async () => {
  await using stage = await Stage.open();
  stage.asUser(
    'mv box elsewhere && ln -s ../decoy box && ln -s ../decoy/x.tar x.tar && ln -s elsewhere mine',
  );
  for (const place of [
    ['-d', 'home/box/out', '--replace'],
    ['-d', 'home/box/new'],
    ['-o', 'home/x.tar'],
  ]) {
    const { exitCode, stderr } = await stage.setting.pull(place);
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /is a symlink of user 65534 to what belongs to another user\nhint: /);
  }
  stage.assertDecoyUntouched();
  await stage.setting.pullWell(['-d', 'home/mine/new']);
});

test('races: a directory with the name of a stage is not removed as one', { skip }, async () => {
  await using stage = await Stage.open();
  const { box, setting } = stage;
  fill(path.join(box, 'roots'));
  const before = listing(path.join(box, 'roots'));
  for (const ending of ['', '-old']) {
    const name = `.out.dlrootfs-999999998-0123456789ab${ending}`;
    stage.asUser(`cd box && mv roots ${name}`);
    if (ending !== '') stage.asUser('mv box/out box/mine');
    await setting.pullWell(['-d', 'home/box/out', '--replace', '--no-cache']);
    assert.equal(listing(path.join(box, name)), before);
    assert.ok(lstatSync(path.join(box, 'out/bin')).isDirectory());
    stage.asUser(`cd box && mv ${name} roots`);
  }
});

/** System calls that open, make, remove, rename or change a path. */
const ACTS =
  /^(?:open|creat|mkdir|mknod|rmdir|unlink|rename|link|symlink|chmod|fchmod|chown|lchown|fchown|utime|utimensat|truncate|chdir)(?:at2?|2)?\(/;

/** Returns the calls in a trace that use a path below a directory instead of a descriptor. */
function callsByPath(trace: string, below: string): string[] {
  return trace
    .split('\n')
    .map((line) => line.replace(/^\d+ +/, ''))
    .filter((line) => ACTS.test(line) && line.includes(`"${below}/`));
}

test(
  'races: what is below a directory of another user is opened level by level, and then used by descriptor',
  { skip },
  async () => {
    await using stage = await Stage.open();
    const { box, setting } = stage;
    const log = setting.scratch.join('trace');
    const under = ['strace', '-f', '-qq', '-o', log, '-e', 'trace=file'];
    const home = path.dirname(box);
    stage.asUser('mkdir box/src && echo x > box/src/x');
    for (const flags of [
      ['-d', `${box}/new`],
      ['-d', `${box}/out`, '--replace'],
      ['-d', `${box}/out`, '--replace=always', '--for', 'runc,nspawn,lxc', '--force'],
      ['-d', `${box}/git`, '-g'],
      ['-d', `${box}/added`, '--add', `${box}/src:/opt`],
      ['-d', `${box}/new`, '--merge'],
      ['-o', `${box}/x.tar`],
      ['-o', `${box}/x.erofs`],
      ['-d', `${box}/cached`, '--cache-dir', `${box}/cache`],
    ]) {
      await setting.pullWell(['--no-cache', ...flags].slice(flags.includes('--cache-dir') ? 1 : 0), {
        under,
      });
      assert.deepEqual(callsByPath(readFileSync(log, 'latin1'), home), [], flags.join(' '));
    }
  },
);
