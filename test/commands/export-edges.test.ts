import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { Setting, noInjection, noise } from '../faults/setting.ts';
import { dir, file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { noOtherUser } from '../support/other-user.ts';
import { type ProgramOptions, type ProgramResult, programCommand, runProgram } from '../support/program.ts';
import { until } from '../support/until.ts';

const small = { layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }] };

function assertRefused({ exitCode, stdout, stderr }: ProgramResult, says: RegExp): void {
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, says);
  assert.match(stderr, /^error: .*\nhint: .*\n(?:kept: .*\n)?$/m);
  assert.doesNotMatch(stderr, /^\s+at |this is a bug/m);
  assert.doesNotMatch(stdout, /^Rootfs of/m);
}

/** Runs a shell command line. The registry runs in this process, so this must not block. */
async function inShell(setting: Setting, line: string): Promise<{ status: number; stderr: string }> {
  return await new Promise((resolve) => {
    const options = { cwd: setting.scratch.path, timeout: 60_000 };
    execFile('bash', ['-c', line], options, (error, _stdout, stderr) =>
      resolve({ status: Number(error?.code ?? 0), stderr }),
    );
  });
}

/** Runs `dlrootfs IMAGE -o OUTPUT` beside the registry's image. */
async function exported(
  setting: Setting,
  output: string,
  flags: readonly string[] = [],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const argv = [
    setting.reference,
    '-o',
    output,
    '--cache-dir',
    setting.store,
    '--retry-delay',
    '5ms',
    ...flags,
  ];
  return await runProgram(argv, { cwd: setting.scratch.path, ...options });
}

async function exportedWell(setting: Setting, output: string): Promise<ProgramResult> {
  const result = await exported(setting, output);
  assert.equal(result.exitCode, 0, result.stderr);
  return result;
}

const shown = (setting: Setting, archive: string) =>
  execFileSync('tar', ['-tf', setting.scratch.join(archive)], { encoding: 'utf8' });

const words = (setting: Setting, ...more: readonly string[]) =>
  [...programCommand, setting.reference, '--no-cache', ...more].map((word) => `'${word}'`).join(' ');

test('-o: a file that exists is replaced whole, and keeps its permissions', async () => {
  await using setting = await Setting.open(small);
  writeFileSync(setting.scratch.join('out.tar'), 'old', { mode: 0o600 });
  const { stdout } = await exportedWell(setting, 'out.tar');
  assert.match(stdout, /\nRootfs of .* in out\.tar\n$/);
  assert.equal(shown(setting, 'out.tar'), 'etc/\netc/motd\n');
  assert.equal(statSync(setting.scratch.join('out.tar')).mode & 0o777, 0o600);
  assert.deepEqual(setting.names, ['out.tar']);
});

test('-o: an archive that fails leaves the file that was there', async () => {
  await using setting = await Setting.open(small);
  writeFileSync(setting.scratch.join('out.tar'), 'old');
  setting.registry.fault({ path: /\/blobs\//, skip: 1, times: 1000, corruptAt: 20 });
  const { exitCode } = await exported(setting, 'out.tar', ['--no-cache', '--retry', '1']);
  assert.equal(exitCode, 6);
  assert.equal(readFileSync(setting.scratch.join('out.tar'), 'utf8'), 'old');
  assert.deepEqual(setting.names, ['out.tar']);
});

test('-o: a symlink stays, and the file that it leads to is replaced', async () => {
  await using setting = await Setting.open(small);
  mkdirSync(setting.scratch.join('there'));
  writeFileSync(setting.scratch.join('there/real.tar'), 'old');
  symlinkSync('there/real.tar', setting.scratch.join('out.tar'));
  await exportedWell(setting, 'out.tar');
  assert.ok(lstatSync(setting.scratch.join('out.tar')).isSymbolicLink());
  assert.equal(shown(setting, 'there/real.tar'), 'etc/\netc/motd\n');
});

test('-o: a directory is refused before anything is fetched', async () => {
  await using setting = await Setting.open(small);
  mkdirSync(setting.scratch.join('out.tar'));
  assertRefused(await exported(setting, 'out.tar'), /^error: cannot write out\.tar: it is a directory$/m);
  assert.equal(setting.registry.requests.length, 0);
  assertRefused(await exported(setting, 'missing/out.tar'), /cannot write missing\/out\.tar: no such file/);
  assert.equal(setting.registry.requests.length, 0);
});

test('-o: a file that the user may not write to is refused', { skip: noOtherUser }, async () => {
  await using setting = await Setting.open(small);
  writeFileSync(setting.scratch.join('out.tar'), 'mine', { mode: 0o644 });
  chmodSync(setting.scratch.path, 0o777);
  assertRefused(await exported(setting, 'out.tar', [], { uid: 4711 }), /cannot write out\.tar: permission/);
  assert.equal(readFileSync(setting.scratch.join('out.tar'), 'utf8'), 'mine');
});

test('-o: a FIFO and /dev/fd of a shell take the tar as it comes', async () => {
  await using setting = await Setting.open();
  execFileSync('mkfifo', [setting.scratch.join('pipe')]);
  const { status, stderr } = await inShell(
    setting,
    `tar -t <pipe >names & ${words(setting, '-o', 'pipe')}; status=$?; wait; exit $status`,
  );
  assert.equal(status, 0, stderr);
  assert.match(readFileSync(setting.scratch.join('names'), 'utf8'), /^etc\/motd$/m);
  const substituted = await inShell(setting, `${words(setting, '-o')} >(cat >copy.tar); wait $!`);
  assert.equal(substituted.status, 0, substituted.stderr);
  assert.match(shown(setting, 'copy.tar'), /^usr\/big$/m);
  assert.ok(lstatSync(setting.scratch.join('pipe')).isFIFO());
});

test('-o /dev/stdout is standard output: no lines beside the archive', async () => {
  await using setting = await Setting.open(small);
  for (const name of ['/dev/stdout', '/dev/fd/1', '/proc/self/fd/1']) {
    for (const line of [
      `${words(setting, '-o', name)} >out.tar`,
      `${words(setting, '-o', name)} | cat >out.tar`,
    ]) {
      const { status, stderr } = await inShell(setting, line);
      assert.equal(status, 0, stderr);
      assert.equal(shown(setting, 'out.tar'), 'etc/\netc/motd\n');
    }
  }
});

test('-o: a socket cannot be opened by its name', async () => {
  await using setting = await Setting.open(small);
  // Node's pipes to a child are sockets.
  const { exitCode, stderr } = await exported(setting, '/dev/stderr');
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /^error: cannot write \/dev\/stderr: no such device or address \(ENXIO\)$/m);
  assert.match(stderr, /^hint: name a file, or -o - for standard output$/m);
});

const swapped = '-o: a FIFO that becomes a symlink while it has no reader is not written';
test(swapped, { skip: noInjection }, async () => {
  await using setting = await Setting.open(small);
  const { scratch } = setting;
  for (const name of ['pipe', 'another']) execFileSync('mkfifo', [scratch.join(name)]);
  const reader = openSync(scratch.join('another'), constants.O_RDONLY | constants.O_NONBLOCK);
  const trace = scratch.join('trace');
  writeFileSync(trace, '');
  const under = ['strace', '-f', '-qq', '-o', trace, '-e', 'trace=openat,open'];
  const running = setting.start(['-o', 'pipe'], { under });
  const waits = (): boolean => /\/pipe".*ENXIO/.test(readFileSync(trace, 'latin1'));
  await until('the wait for a reader', () => running.isOver || waits());
  unlinkSync(scratch.join('pipe'));
  symlinkSync('another', scratch.join('pipe'));
  const { exitCode, stderr } = await running.result;
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, /^error: cannot write pipe: another process has replaced it$/m);
  assert.equal(readSync(reader, Buffer.alloc(1)), 0);
  closeSync(reader);
});

test('-o: a FIFO without a reader, or whose reader is stuck, does not outlive a signal', async () => {
  await using setting = await Setting.open();
  execFileSync('mkfifo', [setting.scratch.join('pipe')]);
  for (const reader of [undefined, 'exec 3<>pipe; exec sleep 60']) {
    const stuck =
      reader === undefined ? undefined : spawn('sh', ['-c', reader], { cwd: setting.scratch.path });
    const { exitCode, stderr } = await exported(setting, 'pipe', ['--no-cache'], {
      signalAfter: ['SIGTERM', 2500],
    });
    stuck?.kill();
    assert.equal(exitCode, 143, stderr);
  }
});

test('-o: a reader of a FIFO that goes away is an error', async () => {
  await using setting = await Setting.open();
  execFileSync('mkfifo', [setting.scratch.join('pipe')]);
  const { status, stderr } = await inShell(
    setting,
    `head -c 1 <pipe >/dev/null & ${words(setting, '-o', 'pipe')}; status=$?; wait; exit $status`,
  );
  assert.equal(status, 7, stderr);
  assert.match(stderr, /^error: cannot write pipe: broken pipe \(EPIPE\)\nhint: see why the reader/m);
});

test('-o to a device that is full: an error that says so', { skip: !existsSync('/dev/full') }, async () => {
  await using setting = await Setting.open();
  assertRefused(
    await exported(setting, '/dev/full', ['--no-cache']),
    /^error: cannot write \/dev\/full: no space left on device \(ENOSPC\)\nhint: free some space/m,
  );
});

// Node opens /dev/null in place of an output that is closed: as other programs do for one that is to be
// ignored.
test('-o - and cat with an output that is ignored or closed are no errors', async () => {
  await using setting = await Setting.open(small);
  const cat = [...programCommand, 'cat', setting.reference, 'etc/motd', '--no-cache'];
  for (const output of ['>/dev/null', '1<>/dev/null', '>&-', '<&- >&-', '>&- 2>&-']) {
    for (const line of [words(setting, '-o', '-'), cat.map((word) => `'${word}'`).join(' ')]) {
      const { status, stderr } = await inShell(setting, `${line} ${output}`);
      assert.equal(status, 0, `${line} ${output}: ${stderr}`);
    }
  }
});

for (const [what, size, code] of [
  ['full', '1m', 'ENOSPC'],
  ['read-only', '8m', 'EROFS'],
] as const) {
  test(
    `-o on a disk that is ${what}: exit 7, it is named, and nothing is left`,
    { skip: missing('root') },
    async (t) => {
      await using setting = await Setting.open({ layers: [{ tar: tar(noise('big', 2 * 2 ** 20)) }] });
      const disk = setting.scratch.join('disk');
      mkdirSync(disk);
      try {
        execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', disk], { stdio: 'ignore' });
      } catch {
        t.skip('needs to mount');
        return;
      }
      try {
        if (code === 'EROFS') execFileSync('mount', ['-o', 'remount,ro', disk]);
        for (const name of ['a.tar', 'a.tar.gz', 'a.tar.zst']) {
          const result = await exported(setting, `disk/${name}`);
          assertRefused(result, new RegExp(`^error: cannot write disk/${name}: .*\\(${code}\\)$`, 'm'));
          assert.deepEqual(readdirSync(disk), []);
        }
      } finally {
        execFileSync('umount', ['-l', disk]);
      }
    },
  );
}

for (const code of ['EDQUOT', 'EIO'] as const) {
  test(`-o: ${code} is named, with what to do`, { skip: missing('strace') }, async () => {
    await using setting = await Setting.open({ layers: [{ tar: tar(noise('big', 2 ** 20)) }] });
    const inject = `inject=write,pwrite64,writev,pwritev:error=${code}:when=1+`;
    const under = [
      'strace',
      '-qq',
      '-f',
      '-o',
      '/dev/null',
      '-P',
      setting.scratch.join('pipe'),
      '-e',
      inject,
    ];
    // The archive's own name is random: a FIFO has the name that it was given.
    execFileSync('mkfifo', [setting.scratch.join('pipe')]);
    const reader = spawn('cat', [setting.scratch.join('pipe')], { stdio: 'ignore' });
    const result = await exported(setting, setting.scratch.join('pipe'), ['--no-cache'], { under });
    reader.kill();
    assertRefused(result, new RegExp(`^error: cannot write .*/pipe: .*\\(${code}\\)$`, 'm'));
  });
}
