import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PassThrough } from 'node:stream';
import { text as contentOf } from 'node:stream/consumers';
import type { CliContext } from '../../src/command-line/context.ts';
import { runCommand } from '../../src/command-line/execute.ts';
import { describeFailure } from '../../src/command-line/failure.ts';
import { Secrets } from '../../src/sys/secrets.ts';
import { Setting } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { noOtherUser } from '../support/other-user.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { until } from '../support/until.ts';

// Tests of the process: its limits, working directory, descriptors and signals.

const small = { layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }] };

const fromSources = new URL('../support/from-sources.ts', import.meta.url).pathname;

/**
 * Runs a shell command line; `$PROGRAM` is the program. The registry runs in this process, so this must not
 * block.
 */
async function inShell(
  line: string,
  cwd: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const program = programCommand.map((word) => `'${word}'`).join(' ');
  const env = { PATH: process.env['PATH'], HOME: '/nonexistent', ...environment };
  return await new Promise((resolve) => {
    execFile(
      'bash',
      ['-c', line.replaceAll('$PROGRAM', program)],
      { cwd, env, timeout: 60_000 },
      (error, stdout, stderr) => resolve({ exitCode: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

function assertError(result: { exitCode: number; stderr: string }, exitCode: number, says: RegExp): void {
  assert.equal(result.exitCode, exitCode, result.stderr);
  assert.match(result.stderr, says);
  assert.match(result.stderr, /^error: .*\nhint: .*\n$/m);
  assert.doesNotMatch(result.stderr, /^\s+at |this is a bug/m);
}

for (const [what, limit, says] of [
  ['open files', '-n 40', /^error: cannot run: the limit of open files is below 64\nhint: .*ulimit -n/m],
  ['stack', '-s 256', /^error: cannot run: the limit of the stack is below 1 MiB\nhint: .*ulimit -s/m],
  [
    'addresses',
    '-v 2000000',
    /^error: cannot run: the limit of address space is below 4 GiB\nhint: .*ulimit -v/m,
  ],
  ['data', '-d 2000000', /^error: cannot run: the limit of data is below 3 GiB\nhint: .*ulimit -d/m],
] as const) {
  test(`too low a limit of ${what} is an error`, async () => {
    await using setting = await Setting.open(small);
    for (const flags of ['', '-g']) {
      const line = `ulimit ${limit}; exec $PROGRAM ${setting.reference} -d out --no-cache ${flags}`;
      assertError(await inShell(line, setting.scratch.path), 7, says);
    }
    assert.deepEqual(setting.names, []);
  });
}

/** A user without processes, another one for each run of these tests. */
const lonelyUser = 40_000 + (process.pid % 20_000);
const lonely = (line: string): string =>
  `setpriv --reuid ${lonelyUser} --regid ${lonelyUser} --clear-groups bash -c '${line}'`;

test('too few free processes of the user are an error', { skip: noOtherUser }, async () => {
  await using setting = await Setting.open(small);
  chmodSync(setting.scratch.path, 0o777);
  const says =
    /^error: cannot run: the limit of (10|18) processes leaves \d; 8 are needed\nhint: raise the limit: ulimit -u/m;
  const run = (limit: number, others: string, flags: string) =>
    inShell(
      lonely(
        `ulimit -u ${limit}; ${others} $PROGRAM ${setting.reference} --no-cache ${flags}; code=$?; jobs -p | xargs -r kill; wait; exit $code`,
      ),
      setting.scratch.path,
    );
  for (const flags of ['-d out', '-d out -g', '-o out.tar']) assertError(await run(10, '', flags), 7, says);
  const others = 'for n in 1 2 3 4 5; do sleep 20 & done;';
  assertError(await run(18, others, '-d out'), 7, says);
  assert.deepEqual(setting.names, []);
  // The limit is for bash, Node's own seven or eight threads (more with the sources), and eight others.
  const enough = await run(programCommand.length === 1 ? 18 : 24, '', '-d out -g');
  assert.equal(enough.exitCode, 0, enough.stderr);
});

/** The directory of control groups that limit processes, in version 1 or 2. */
const pidsGroups = ['/sys/fs/cgroup/pids', '/sys/fs/cgroup'].find((directory) =>
  existsSync(`${directory}/cgroup.procs`),
);

test(
  'too few free processes of the control group are an error',
  {
    skip:
      process.getuid?.() !== 0 || pidsGroups === undefined
        ? 'needs root and the pids controller of control groups'
        : false,
  },
  async () => {
    await using setting = await Setting.open(small);
    const group = `${pidsGroups}/${setting.scratch.path.split('/').at(-1)}`;
    mkdirSync(group);
    try {
      writeFileSync(`${group}/pids.max`, '12');
      const line = `echo $$ > ${group}/cgroup.procs; exec $PROGRAM ${setting.reference} -d out --no-cache`;
      assertError(
        await inShell(line, setting.scratch.path),
        7,
        /^error: cannot run: the control group's limit of 12 processes leaves [0-7]; 8 are needed\nhint: raise pids\.max/m,
      );
      assert.deepEqual(setting.names, []);
    } finally {
      rmdirSync(group);
    }
  },
);

test('a thread that the system refuses is explained', () => {
  // Node throws this error if pthread_create(3) fails.
  const error = Object.assign(new Error('EAGAIN'), { code: 'ERR_WORKER_INIT_FAILED' });
  const { exitCode, text } = describeFailure(error);
  assert.equal(exitCode, 7);
  assert.match(
    text,
    /^error: cannot start a thread: resource temporarily unavailable \(EAGAIN\)\nhint: raise /,
  );
  const line = JSON.parse(describeFailure(error, true).text) as Record<string, unknown>;
  assert.deepEqual([line['type'], line['exitCode'], line['code']], ['error', 7, 'LIMIT']);
});

test('64 open files are enough, with -g too', async () => {
  await using setting = await Setting.open();
  for (const flags of ['-d a', '-d b -g', '-o c.tar']) {
    const line = `ulimit -n 64; exec $PROGRAM ${setting.reference} ${flags}`;
    const { exitCode, stderr } = await inShell(line, setting.scratch.path);
    assert.equal(exitCode, 0, stderr);
  }
});

test('a working directory that was removed is an error for commands that need one', async () => {
  await using setting = await Setting.open(small);
  const { path } = setting.scratch;
  const gone = (words: string) => inShell(`mkdir gone; cd gone; rmdir ../gone; exec $PROGRAM ${words}`, path);
  const { reference } = setting;
  for (const words of [
    reference,
    `${reference} -d ${path}/out`,
    `${reference} --for runc`,
    `${reference} -o x.tar`,
    `inspect ${reference}`,
    `tags ${reference.replace(/:1$/, '')}`,
    'cache',
  ])
    assertError(await gone(words), 7, /^error: the working directory does not exist any more$/m);
  for (const words of ['version', '--help', 'completion bash', 'help git'])
    assert.equal((await gone(words)).exitCode, 0);
});

test('empty values are errors, but those of credentials that are not set', async () => {
  await using setting = await Setting.open(small);
  for (const flag of [
    '-d',
    '-o',
    '--platform',
    '--for',
    '--mirror',
    '--cache-dir',
    '--authfile',
    '--ca-file',
    '-j',
  ])
    assertError(
      await runProgram([setting.reference, `${flag}=`]),
      2,
      new RegExp(`^error: ${flag} has an empty value$`, 'm'),
    );
  await setting.pullWell(['-u', '', '--registry-token', '']);
});

test('--for below a directory that may not be read is an error', { skip: noOtherUser }, async () => {
  await using setting = await Setting.open(small);
  const locked = setting.scratch.join('locked');
  mkdirSync(`${locked}/in`, { recursive: true });
  chmodSync(locked, 0o700);
  chmodSync(setting.scratch.path, 0o777);
  const options = { cwd: setting.scratch.path, uid: 4711 };
  const pull = [setting.reference, '--no-cache', '-d', 'locked/in/rootfs', '--for', 'runc'];
  assertError(await runProgram(pull, options), 7, /^error: .*locked\/in.*permission denied/m);
});

test('a cache that is no directory, or may not be read, is an error', { skip: noOtherUser }, async () => {
  using scratch = new Scratch();
  chmodSync(scratch.path, 0o755);
  writeFileSync(scratch.join('file'), '');
  mkdirSync(scratch.join('locked'), { mode: 0o700 });
  for (const what of ['size', 'prune']) {
    const cache = (directory: string) =>
      runProgram(['cache', what, '--cache-dir', directory], { cwd: scratch.path, uid: 4711 });
    assertError(await cache('file'), 7, /^error: cannot use the cache .*: not a directory /m);
    assertError(await cache('file/below'), 7, /^error: cannot use the cache .*: not a directory /m);
    assertError(
      await cache('locked'),
      7,
      /^error: cannot use the cache .*: \S+locked belongs to user 0, not/m,
    );
    assertError(await cache('locked/below'), 7, /^error: cannot use the cache .*: permission denied /m);
    assert.equal((await cache('missing')).exitCode, 0);
  }
});

test('an image from a standard input that is closed or empty is an error', async () => {
  using scratch = new Scratch();
  const pull = (redirection: string) => inShell(`exec $PROGRAM - -d out ${redirection}`, scratch.path);
  for (const redirection of ['<&-', '</dev/null', '<>/dev/null'])
    assertError(await pull(redirection), 3, /^error: the archive on standard input is empty$/m);
  assert.deepEqual(readdirSync(scratch.path), []);
});

test('if standard output and error are one file, no two lines are mixed', async () => {
  await using setting = await Setting.open(small);
  const line = `$PROGRAM ${setting.reference} -d out -v --no-cache >log 2>&1`;
  const { exitCode } = await inShell(line, setting.scratch.path);
  const lines = readFileSync(setting.scratch.join('log'), 'utf8').split('\n');
  assert.equal(exitCode, 0);
  assert.ok(lines.some((each) => each.startsWith('debug: ')));
  assert.deepEqual(
    lines
      .filter((each) => each.endsWith(' ... done'))
      .map((each) => /^\t[0-9a-f]{12} \.\.\. done$/.test(each)),
    [true],
  );
});

test('an archive is not read from a terminal', { skip: missing('python3') }, async () => {
  using scratch = new Scratch();
  const spawned = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)';
  const { exitCode, stdout } = await inShell(`python3 -c '${spawned}' $PROGRAM -`, scratch.path);
  assert.equal(exitCode, 2, stdout);
  assert.match(
    stdout,
    /^error: cannot read the archive from a terminal\r?\nhint: pipe it in, as in docker save /m,
  );
});

test('SIGUSR1 opens no debugger', async () => {
  await using setting = await Setting.open(undefined, {
    faults: [{ path: /\/blobs\//, skip: 1, rate: 2 ** 20, times: 99 }],
  });
  const running = setting.start(['--no-cache', '--progress', 'none']);
  await until('the pull', () => running.stdout.includes('Pulling'));
  running.kill('SIGUSR1');
  const { exitCode, stderr } = await running.result;
  assert.deepEqual([exitCode, stderr], [0, '']);
});

test('a signal ends the program while the reader of its output is stuck', async () => {
  await using setting = await Setting.open();
  const [program, ...words] = programCommand;
  const child = spawn(program!, [...words, setting.reference, '--no-cache', '-o', '-'], {
    cwd: setting.scratch.path,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await once(child.stdout, 'readable');
  await sleep(1000);
  child.kill('SIGTERM');
  const [exitCode] = (await once(child, 'exit')) as [number | null];
  assert.equal(exitCode, 143);
  child.stdout.destroy();
});

test('a fault that nobody caught: exit code 1, the stack, and that it is a bug', async () => {
  using scratch = new Scratch();
  writeFileSync(
    scratch.join('plant.mjs'),
    `process.on('newListener', (name) => {
      if (name === 'beforeExit') process.nextTick(() => { throw new RangeError('planted'); });
    });`,
  );
  const program = [process.execPath, '--import', scratch.join('plant.mjs'), fromSources];
  const { exitCode, stderr } = await runProgram(['inspect', '127.0.0.1:1/x', '--retry', '0'], { program });
  assert.equal(exitCode, 1, stderr);
  assert.match(stderr, /RangeError: planted\n\s+at /);
  assert.match(stderr, /^error: this is a bug in dlrootfs\nhint: please report it with the lines above\n/m);
});

test('a terminal that is dumb gets plain lines: no bars, no escapes', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('team/app', 'latest', { layers: [Buffer.alloc(1024)] });
  for (const [TERM, hasEscapes] of [
    ['dumb', false],
    ['xterm', true],
  ] as const) {
    registry.fault({ path: /blobs/, skip: 1, delay: 500 });
    const stderr = Object.assign(new PassThrough(), { isTTY: true, columns: 80, rows: 24 });
    const text = contentOf(stderr);
    await runCommand(
      ['cat', registry.reference('team/app'), '/x', '--no-cache'],
      contextOf(stderr, TERM),
    ).catch(() => undefined);
    stderr.end();
    assert.equal((await text).includes('\u001b['), hasEscapes, TERM);
  }
});

function contextOf(stderr: PassThrough, TERM: string): CliContext {
  return {
    environment: { TERM, HOME: '/nonexistent' },
    stdin: new PassThrough(),
    stdout: new PassThrough().resume(),
    stderr,
    isSharedOutput: () => false,
    workingDirectoryExists: () => true,
    secrets: new Secrets(),
    signal: new AbortController().signal,
  };
}
