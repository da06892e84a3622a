import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { dir, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import type { FakeImage } from '../support/fake-image.ts';
import { until } from '../support/until.ts';
import { Setting, assertOriginalLines, noInjection, noise } from './setting.ts';

/**
 * Runs the following command with these system calls failing, as on a broken disk; with `path` only those on
 * that file.
 */
function failing(
  calls: string,
  error: string,
  { when = '1+', path, threads = true }: { when?: string; path?: string; threads?: boolean } = {},
) {
  const only = path === undefined ? ['--seccomp-bpf'] : ['-P', path];
  const inject = `inject=${calls}:error=${error}:when=${when}`;
  return [
    'strace',
    ...(threads ? ['-f'] : []),
    '-qq',
    '-o',
    '/dev/null',
    ...only,
    '-e',
    `trace=${calls}`,
    '-e',
    inject,
  ];
}

const tree: FakeImage = {
  layers: [
    {
      tar: tar(dir('etc'), file('etc/motd', 'hello\n'), file('etc/gone', 'x'), dir('shut', { mode: 0o500 })),
    },
    { tar: tar(whiteout('etc/gone'), symlink('lib', 'usr/lib')) },
  ],
};

interface Refused {
  readonly calls: string;
  readonly error: string;
  readonly when?: string;
  readonly flags?: readonly string[];
  readonly says: RegExp;
  /** Number of stages that cannot be removed, since the same call fails again; the program reports them. */
  readonly left?: number;
}

const dead =
  /^error: the disk of out fails: .*i\/o error \(EIO\)\nhint: .*dmesg.*another directory with -d, on another disk$/m;

const destination: readonly Refused[] = [
  { calls: 'pwrite64', error: 'EIO', says: dead },
  { calls: 'mkdirat', error: 'EIO', when: '3+', says: dead },
  { calls: 'symlinkat', error: 'EIO', says: dead },
  { calls: 'utimensat', error: 'EIO', says: dead },
  // The first two calls remove the program's test files. After a failure of the first one, the removal of the
  // stage fails, too.
  { calls: 'unlinkat', error: 'EIO', when: '1', says: dead, left: 1 },
  { calls: 'unlinkat', error: 'EIO', when: '2', says: dead },
  { calls: 'unlinkat', error: 'EIO', when: '3', says: dead },
  { calls: 'fchmod', error: 'EIO', says: dead },
  {
    calls: 'mkdir',
    error: 'EIO',
    says: /^error: cannot write out: the disk fails: i\/o error \(EIO\)\nhint: .*dmesg/m,
  },
  {
    calls: 'rename',
    error: 'EIO',
    says: /^error: cannot write .*out: the disk fails: i\/o error \(EIO\)\nhint: .*dmesg/m,
  },
  { calls: 'mkdir', error: 'EROFS', says: /^error: \/.*out cannot be made: \/.* is read-only\nhint: /m },
  { calls: 'pwrite64', error: 'EROFS', says: /^error: .*read-only file system \(EROFS\)\nhint: /m },
  {
    calls: 'pwrite64',
    error: 'EDQUOT',
    says: /^error: the disk of out is full: .*\(EDQUOT\)\nhint: free some space/m,
  },
  {
    calls: 'pwrite64',
    error: 'EIO',
    flags: ['-g'],
    says: /^error: the disk fails: .*cannot write .*out.*HEAD: i\/o error \(EIO\)\nhint: .*dmesg.*with -d, on another disk$/m,
  },
];

for (const { calls, error, when, flags = [], says, left = 0 } of destination) {
  const name = `DIR: ${calls} fails with ${error}${when ? ` (${when})` : ''}${flags.join()}: exit 7, said, nothing is left`;
  test(name, { skip: noInjection || (flags.includes('-g') && missing('git')) }, async () => {
    await using setting = await Setting.open(tree);
    const under = failing(calls, error, when === undefined ? {} : { when });
    // From the cache, pwrite64 writes only the tree.
    const fromCache = calls === 'pwrite64';
    if (fromCache) {
      await setting.pullWell();
      rmSync(setting.scratch.join('out'), { recursive: true });
    }
    const source = fromCache ? [] : ['--no-cache'];
    const { exitCode, stdout, stderr } = await setting.pull([...source, ...flags], { under });
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, says);
    assert.doesNotMatch(stderr, /^\s+at /m);
    assert.doesNotMatch(stdout, /^Rootfs of/m);
    assert.equal(setting.names.length, left, setting.names.join());
    assert.equal(/^notice: cannot clean up beside out: .*EIO/m.test(stderr), left > 0, stderr);
    await setting.pullWell(['--no-cache']);
    assert.deepEqual(setting.names, ['out']);
  });
}

const inStore = (setting: Setting, layer: number, where: 'blobs' | 'partial') => {
  const { digest } = setting.image.layers[layer]!;
  return where === 'blobs' ? setting.blob(digest) : `${setting.store}/partial/${digest.replace(':', '-')}`;
};

for (const [error, said] of [
  ['EIO', 'the disk fails: i/o error (EIO)'],
  ['EDQUOT', 'disk quota exceeded (EDQUOT)'],
  ['ENOSPC', 'no space left on device (ENOSPC)'],
] as const) {
  test(
    `the store: writing a blob fails with ${error}: said once, and the run goes on without`,
    { skip: noInjection },
    async () => {
      await using setting = await Setting.open();
      const calls = 'write,writev,pwrite64,pwritev';
      const under = failing(calls, error, { path: inStore(setting, 0, 'partial') });
      const { stderr } = await setting.pullWell([], { under });
      assert.deepEqual(stderr.match(/^notice: .*/gm), [
        `notice: nothing is added to the cache: cannot keep blobs in ${setting.store}: ${said}`,
      ]);
      assert.equal(existsSync(inStore(setting, 0, 'partial')), false);
      await setting.pullWell(['--replace']);
    },
  );
}

test(
  'the stage cannot be removed: that is said, and the error is the one before it',
  { skip: noInjection },
  async () => {
    await using setting = await Setting.open(tree);
    const under = failing('unlinkat', 'EIO', { when: '3+' });
    const { exitCode, stderr } = await setting.pull(['--no-cache'], { under });
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^notice: cannot clean up beside out: .*EIO.*\nerror: .*cannot remove etc\/gone: /m);
  },
);

test(
  'what is kept aside for links cannot be removed: the error is what is wrong with the layer',
  { skip: noInjection },
  async () => {
    const broken = tar(
      file('.wh..wh.plnk/1', 'shared'),
      hardlink('a', '.wh..wh.plnk/1'),
      hardlink('b', 'nowhere'),
    );
    await using setting = await Setting.open({ layers: [{ tar: broken }] });
    const under = failing('unlinkat', 'EIO', { when: '3+' });
    const { exitCode, stderr } = await setting.pull(['--no-cache'], { under });
    assert.equal(exitCode, 6, stderr);
    assert.match(stderr, /^error: .*link to nowhere/m);
  },
);

for (const [what, calls] of [
  ['read', 'read,pread64,readv,preadv'],
  ['looked at', 'statx,fstat,newfstatat'],
  ['opened', 'openat'],
] as const) {
  for (const when of ['1', '2']) {
    test(
      `the store: a blob cannot be ${what} (${when}): fetched anew, the right tree, every line once`,
      { skip: noInjection },
      async () => {
        await using setting = await Setting.open();
        await setting.pullWell(['-d', 'first']);
        const under = failing(calls, 'EIO', { when, path: inStore(setting, 2, 'blobs') });
        // strace counts the calls of each thread, so one thread must do all of them.
        const { stdout } = await setting.pullWell([], { under, environment: { UV_THREADPOOL_SIZE: '1' } });
        assertOriginalLines(stdout, setting.image);
        assert.equal(setting.tree(), setting.tree('first'));
        setting.registry.requests.length = 0;
        await setting.pullWell(['-d', 'third']);
        assert.deepEqual(setting.registry.log(/\/blobs\//), []);
      },
    );
  }
}

test(
  'the store: what an earlier run left of a blob cannot be read: fetched anew',
  { skip: noInjection },
  async () => {
    await using setting = await Setting.open({ layers: [{ tar: tar(noise('big', 600_000)) }] });
    setting.registry.fault({ path: new RegExp(setting.image.layers[0]!.digest), stallAfter: 200_000 });
    const killed = setting.start();
    await until('200,000 bytes', () => setting.partial(0) === 200_000);
    killed.kill('SIGKILL');
    await killed.result;
    // Only the main thread reads the file to compute its digest.
    const path = inStore(setting, 0, 'partial');
    const under = failing('pread64', 'EIO', { when: '1', path, threads: false });
    const { stdout, stderr } = await setting.pullWell([], { under });
    assertOriginalLines(stdout, setting.image);
    assert.match(
      stderr,
      /^notice: .*cannot read what an earlier run downloaded of it: .*\(EIO\); starting the pull again without it$/m,
    );
  },
);

test(
  '--no-cache: layers cannot be written to the disk of DIR: exit 7, it is named, nothing is left',
  { skip: noInjection },
  async () => {
    await using setting = await Setting.open();
    // The main thread writes the blobs, another one writes the files.
    const under = failing('pwrite64', 'EIO', { threads: false });
    const { exitCode, stderr } = await setting.pull(['--no-cache'], { under });
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^error: cannot keep blobs in \/.*: the disk fails: i\/o error \(EIO\)\nhint: /m);
    assert.deepEqual(setting.names, []);
  },
);

test(
  '--no-cache: files that wait there have no name at any moment, where the disk knows how',
  { skip: noInjection },
  async () => {
    await using setting = await Setting.open();
    await setting.pullWell(['--no-cache'], { under: failing('unlink', 'EIO') });
    assert.deepEqual(setting.names, ['out']);
  },
);

test(
  'git cannot look at its directory: exit 7, no bug',
  { skip: noInjection || missing('git') },
  async () => {
    await using setting = await Setting.open(tree);
    for (const when of ['1', '2', '3']) {
      const under = failing('statx', 'EIO', { when, path: '/' });
      const { exitCode, stderr } = await setting.pull(['-g', '--no-cache'], { under });
      assert.ok(exitCode === 7 || exitCode === 0, stderr);
      assert.doesNotMatch(stderr, /^\s+at /m);
      assert.deepEqual(setting.names, exitCode === 0 ? ['out'] : []);
      rmSync(setting.scratch.join('out'), { recursive: true, force: true });
    }
  },
);

test('as few open files as 64, and far too few: done, or exit 7 with the limit named', async () => {
  await using setting = await Setting.open();
  for (const [limit, flags] of [
    [64, []],
    [64, ['--no-cache']],
    [26, []],
    [28, ['--no-cache']],
    [30, []],
  ] as const) {
    const under = ['sh', '-c', `ulimit -n ${limit}; exec "$0" "$@"`];
    const { exitCode, stderr } = await setting.pull(flags, { under });
    assert.doesNotMatch(stderr, /^\s+at /m);
    if (limit === 64) assert.equal(exitCode, 0, stderr);
    if (exitCode !== 0)
      assert.match(
        stderr,
        /EMFILE|too many open files|limit of open files is below 64/,
        `${limit}: ${exitCode}`,
      );
    assert.deepEqual(setting.names, exitCode === 0 ? ['out'] : []);
    rmSync(setting.scratch.join('out'), { recursive: true, force: true });
    rmSync(setting.store, { recursive: true, force: true });
  }
});
