import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { diskKinds } from '../support/disk.ts';
import type { ProgramResult } from '../support/program.ts';
import { until } from '../support/until.ts';
import { Setting, noise } from './setting.ts';
import { noOtherUser } from '../support/other-user.ts';

/** Mounts a disk of this size; undefined if that is not allowed. */
function mountDisk(t: TestContext, directory: string, size: string, more = ''): Disposable | undefined {
  mkdirSync(directory, { recursive: true });
  const argv = ['-t', 'tmpfs', '-o', `size=${size},mode=700${more}`, 'tmpfs', directory];
  if (spawnSync('mount', argv, { stdio: 'ignore' }).status !== 0) {
    t.skip('needs to mount');
    return undefined;
  }
  return { [Symbol.dispose]: () => void execFileSync('umount', ['-l', directory]) };
}

function assertFailed({ exitCode, stderr, stdout }: ProgramResult, says: RegExp): void {
  assert.equal(exitCode, 7, stderr);
  assert.match(stderr, says);
  assert.match(stderr, /^error: .*\nhint: .*\n$/m);
  assert.doesNotMatch(stderr, /^\s+at /m);
  assert.doesNotMatch(stdout, /^Rootfs of/m);
}

test(
  'the disk of DIR is full: exit 7, it is named, and nothing is left',
  { skip: missing('root') },
  async (t) => {
    // The blob is small, so only the tree does not fit.
    await using setting = await Setting.open({
      layers: [{ tar: tar(file('zeros', Buffer.alloc(8 * 2 ** 20))) }],
    });
    const disk = setting.scratch.join('disk');
    using mounted = mountDisk(t, disk, '4m');
    if (!mounted) return;
    for (const flags of [[], ['--no-cache']]) {
      assertFailed(
        await setting.pull(['-d', `${disk}/out`, ...flags]),
        /disk\/.*(?:no space|full)|(?:no space|full).*disk/i,
      );
      assert.deepEqual(readdirSync(disk), []);
    }
  },
);

/** Each format of -o, the program that it needs, and flags. */
const formats = [
  ['tar', undefined, []],
  ['tar.gz', undefined, []],
  ['tar.zst', undefined, []],
  ...diskKinds,
] as const;

for (const [what, items, says] of [
  ['', [noise('big', 6 * 2 ** 20)], String.raw`the disk of DISK is full: `],
  // A temporary file keeps contents that are read before their place in the file is reached.
  [
    ', while a temporary file is written',
    [noise('z', 6 * 2 ** 20), noise('a', 2 ** 18)],
    String.raw`(?:cannot keep contents of files in DISK: |the disk of DISK is full: )`,
  ],
] as const)
  for (const [format, program, flags] of formats)
    test(
      `the disk of x.${[format, ...flags].join(' ')} is full${what}: file and disk are named, and nothing is left`,
      { skip: missing('root', ...(program === undefined ? [] : [program])) },
      async (t) => {
        await using setting = await Setting.open({ layers: [{ tar: tar(...items) }] });
        const disk = setting.scratch.join('disk');
        using mounted = mountDisk(t, disk, '4m');
        if (!mounted) return;
        const place = String.raw`cannot write ${disk}/x\.${format}: ${says.replaceAll('DISK', disk)}`;
        const hint = String.raw`hint: free some space, or (?:name another file|choose another place with -d or -o), on another disk`;
        assertFailed(
          await setting.pull(['-o', `${disk}/x.${format}`, ...flags]),
          new RegExp(String.raw`^error: ${place}no space left on device \(ENOSPC\)\n${hint}`, 'm'),
        );
        assert.deepEqual(readdirSync(disk), []);
        assertFailed(
          await setting.pull(['-o', `${disk}/x.${format}`, '--no-cache', ...flags]),
          new RegExp(`^error: cannot write ${disk}/x.${format}: .*${disk}.*: no space left on device`, 'm'),
        );
        assert.deepEqual(readdirSync(disk), []);
      },
    );

test('DIR is a full disk itself: exit 7, and it is empty again', { skip: missing('root') }, async (t) => {
  await using setting = await Setting.open({
    layers: [{ tar: tar(file('a'), file('zeros', Buffer.alloc(8 * 2 ** 20))) }],
  });
  using mounted = mountDisk(t, setting.scratch.join('out'), '4m');
  if (!mounted) return;
  assertFailed(await setting.pull(), /no space|full/i);
  assert.deepEqual(readdirSync(setting.scratch.join('out')), []);
});

test(
  'the disk of DIR has room for the files, and not for their contents in git: exit 7, and nothing is left',
  { skip: missing('root') || missing('git') },
  async (t) => {
    await using setting = await Setting.open({
      layers: [
        { tar: tar(file('a', randomBytes(8 * 2 ** 20))) },
        { tar: tar(file('b', randomBytes(8 * 2 ** 20))) },
      ],
    });
    const disk = setting.scratch.join('disk');
    for (const size of ['12m', '20m', '28m']) {
      using mounted = mountDisk(t, disk, size);
      if (!mounted) return;
      assertFailed(await setting.pull(['-d', `${disk}/out`, '-g', '--no-cache']), /disk.* full|no space/i);
      assert.deepEqual(readdirSync(disk), []);
    }
  },
);

test(
  'the disk of DIR has no inodes left: exit 7, it is named, and nothing is left',
  { skip: missing('root') },
  async (t) => {
    await using setting = await Setting.open();
    const disk = setting.scratch.join('disk');
    using mounted = mountDisk(t, disk, '64m', ',nr_inodes=40');
    if (!mounted) return;
    for (const flags of [[], ['--no-cache'], ['-g']]) {
      assertFailed(await setting.pull(['-d', `${disk}/out`, ...flags]), /disk.* full/);
      assert.deepEqual(readdirSync(disk), []);
    }
  },
);

test(
  'the disk of the cache has no inodes left: said once, and the run goes on without',
  { skip: missing('root') },
  async (t) => {
    await using setting = await Setting.open();
    using mounted = mountDisk(t, setting.store, '64m', ',nr_inodes=9');
    if (!mounted) return;
    const { stderr } = await setting.pullWell();
    assert.equal(stderr.match(/^notice: .*(?:ENOSPC|no space)/gm)?.length, 1, stderr);
    assert.match(setting.tree(), /etc\/motd/);
  },
);

test(
  'a mount that is read-only: below it or itself as DIR exit 7, as the cache a notice',
  { skip: missing('root') },
  async (t) => {
    await using setting = await Setting.open();
    const disk = setting.scratch.join('disk');
    using mounted = mountDisk(t, disk, '1m', ',ro');
    if (!mounted) return;
    for (const destination of ['disk/out', 'disk/a/b', 'disk']) {
      for (const flags of [[], ['--no-cache'], ['-g']]) {
        assertFailed(await setting.pull(['-d', destination, ...flags]), /^error: .*read-only/m);
        assert.deepEqual([setting.names, readdirSync(disk)], [['disk'], []]);
      }
    }
    const { stderr } = await setting.pullWell(['--cache-dir', disk]);
    assert.match(stderr, /^notice: continuing without the cache: .*EROFS/m);
  },
);

test(
  'the disk of the cache is full: said once, and the run goes on without',
  { skip: missing('root') },
  async (t) => {
    await using setting = await Setting.open({ layers: [{ tar: tar(noise('noise', 3 * 2 ** 20)) }] });
    using mounted = mountDisk(t, setting.store, '1m');
    if (!mounted) return;
    const { stderr } = await setting.pullWell();
    assert.deepEqual(stderr.match(/^notice: .*/gm), [
      `notice: nothing is added to the cache: cannot keep blobs in ${setting.store}: no space left on device (ENOSPC)`,
    ]);
    assert.equal(statSync(setting.scratch.join('out/noise')).size, 3 * 2 ** 20);
    assert.deepEqual(readdirSync(`${setting.store}/partial`), []);
    assert.deepEqual(setting.names, ['out']);
  },
);

test(
  'the disk of the cache has no room for the smallest file: said once, and the run goes on without',
  { skip: missing('root') },
  async (t) => {
    await using setting = await Setting.open({ layers: [{ tar: tar(file('small', 'x')) }] });
    using mounted = mountDisk(t, setting.store, '64k');
    if (!mounted) return;
    writeFileSync(`${setting.store}/.dlrootfs-0123456789abcdef01234567`, Buffer.alloc(65_536 - 4096));
    const { stderr } = await setting.pullWell();
    assert.match(stderr, /^notice: .*cache.*no space left on device \(ENOSPC\)$/m);
    assert.deepEqual(setting.names, ['out']);
  },
);

test('DIR cannot be written by this user: exit 7, and nothing is left', { skip: noOtherUser }, async () => {
  await using setting = await Setting.open();
  chmodSync(setting.scratch.path, 0o755);
  mkdirSync(setting.scratch.join('mine'), { mode: 0o755 });
  const as = { uid: 65534, environment: { TMPDIR: '/tmp' } };
  for (const destination of ['out', 'mine/out', 'mine']) {
    const result = await setting.pull(['-d', destination, '--no-cache'], as);
    assertFailed(result, /error: .*(?:no right to write|permission denied)/);
    assert.deepEqual([setting.names, readdirSync(setting.scratch.join('mine'))], [['mine'], []]);
  }
});

test('--no-cache leaves no file anywhere, during the run and after', async () => {
  await using setting = await Setting.open(undefined, {
    faults: [{ path: /\/blobs\//, skip: 1, rate: 2 ** 20, times: 1e9 }],
  });
  const places = ['tmp', 'home', 'cache', 'run'].map((name) => setting.scratch.join(name));
  for (const place of places) mkdirSync(place);
  const [TMPDIR, HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR] = places as [string, string, string, string];
  const environment = { TMPDIR, HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR };
  const found = new Set<string>();
  const look = () => {
    for (const place of places) for (const name of readdirSync(place)) found.add(name);
  };
  const timer = setInterval(look, 5);
  await setting.pullWell(['--no-cache'], { environment });
  clearInterval(timer);
  look();
  assert.deepEqual([...found], []);
  assert.ok(!existsSync(setting.store));
  assert.deepEqual(setting.names, ['cache', 'home', 'out', 'run', 'tmp']);
});

test('a run with --no-cache that is killed leaves its stage alone, and the next one removes it', async () => {
  await using setting = await Setting.open(undefined, {
    faults: [{ path: /\/blobs\//, skip: 1, stallAfter: 300_000, times: 3 }],
  });
  const run = setting.start(['--no-cache']);
  await until('the layers', () => setting.registry.log(/\/blobs\//).length === 4);
  run.kill('SIGKILL');
  await run.result;
  assert.ok(
    setting.names.every((name) => /^\.out\.dlrootfs-\d+-[0-9a-f]{12}$/.test(name)),
    setting.names.join(),
  );
  await setting.pullWell(['--no-cache']);
  assert.deepEqual(setting.names, ['out']);
});
