import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { Setting } from './faults/setting.ts';
import { git } from './git/git.ts';
import { dir, file, hardlink, symlink, tar, whiteout } from './support/archive.ts';
import { missing } from './support/debian.ts';
import { noOtherUser } from './support/other-user.ts';
import { runProgram } from './support/program.ts';
import { until } from './support/until.ts';

const image = {
  layers: [
    {
      tar: tar(
        dir('etc', { mode: 0o711 }),
        file('etc/motd', 'of the image\n'),
        file('etc/gone', 'x'),
        dir('usr/lib'),
        symlink('lib', 'usr/lib'),
      ),
    },
  ],
};

/** The files to add: a tree, a single file, an archive. */
async function open(): Promise<Setting> {
  const setting = await Setting.open(image);
  const { scratch } = setting;
  mkdirSync(scratch.join('tree/etc/deep'), { recursive: true });
  mkdirSync(scratch.join('tree/lib'));
  writeFileSync(scratch.join('tree/etc/motd'), 'added\n');
  writeFileSync(scratch.join('tree/etc/deep/x'), 'x');
  writeFileSync(scratch.join('tree/lib/agent.so'), 'agent');
  chmodSync(scratch.join('tree/lib/agent.so'), 0o755);
  symlinkSync('motd', scratch.join('tree/etc/link'));
  utimesSync(scratch.join('tree/etc/motd'), 1000, 1000);
  chmodSync(scratch.join('tree/etc'), 0o755);
  chmodSync(scratch.join('tree/etc/deep'), 0o750);
  writeFileSync(scratch.join('key'), 'secret', { mode: 0o600 });
  const archive = tar(
    file('./own', 'own', { uid: 7, gid: 42 }),
    hardlink('./same', './own'),
    whiteout('etc/gone'),
    file('../../out', 'inside'),
  );
  writeFileSync(scratch.join('more.tar'), archive);
  return setting;
}

const ADDED = ['--add', 'tree', '--add', 'key:/root/.ssh/', '--add', 'more.tar'];

test('add: a tree, a file and an archive are the last layer of the directory', async () => {
  await using setting = await open();
  const { scratch } = setting;
  const { stdout } = await setting.pullWell([...ADDED, '--json']);
  const summary = JSON.parse(stdout) as { added: string[]; layers: unknown[]; changed: boolean };
  assert.deepEqual(summary.added, ['tree', 'key:/root/.ssh/', 'more.tar']);
  assert.equal(summary.layers.length, 2);
  const at = (name: string) => scratch.join('out', name);
  assert.equal(readFileSync(at('etc/motd'), 'utf8'), 'added\n');
  assert.equal(statSync(at('etc/motd')).mtimeMs, 1_000_000);
  assert.equal(readlinkSync(at('etc/link')), 'motd');
  // An added directory does not replace an existing one: its mode, or its link to another directory, remains.
  assert.equal(statSync(at('etc')).mode & 0o7777, 0o711);
  assert.equal(readlinkSync(at('lib')), 'usr/lib');
  assert.equal(readFileSync(at('usr/lib/agent.so'), 'utf8'), 'agent');
  assert.equal(statSync(at('etc/deep')).mode & 0o7777, 0o750);
  assert.equal(statSync(at('lib/agent.so')).mode & 0o7777, 0o755);
  assert.equal(readFileSync(at('root/.ssh/key'), 'utf8'), 'secret');
  assert.equal(statSync(at('root/.ssh/key')).mode & 0o7777, 0o600);
  assert.equal(statSync(at('same')).ino, statSync(at('own')).ino);
  assert.ok(!existsSync(at('etc/gone')));
  assert.equal(readFileSync(at('out'), 'utf8'), 'inside');
  assert.ok(!existsSync(scratch.join('out.tmp')) && !existsSync(scratch.join('../out')));
});

test(
  'add: owners are root, those of an archive its own, or what --add-owner says',
  { skip: missing('root') },
  async () => {
    await using setting = await open();
    const owner = (name: string, place = 'out') => {
      const { uid, gid } = lstatSync(setting.scratch.join(place, name));
      return `${uid}:${gid}`;
    };
    execFileSync('chown', ['-hR', '1234:1234', setting.scratch.join('tree')]);
    await setting.pullWell(ADDED);
    assert.deepEqual(
      ['etc/motd', 'etc/link', 'etc/deep', 'root/.ssh/key', 'own'].map((name) => owner(name)),
      ['0:0', '0:0', '0:0', '0:0', '7:42'],
    );
    await setting.pullWell([...ADDED, '--add-owner', '5:6', '-d', 'five']);
    assert.deepEqual(
      ['etc/motd', 'etc/link', 'own'].map((name) => owner(name, 'five')),
      ['5:6', '5:6', '5:6'],
    );
    await setting.pullWell(['--add', 'tree:/home/me', '--add-owner', '5:6', '-d', 'home']);
    assert.deepEqual(
      ['home', 'home/me', 'home/me/lib', 'home/me/lib/agent.so'].map((name) => owner(name, 'home')),
      ['0:0', '5:6', '5:6', '5:6'],
    );
  },
);

test('add: the text names what was added, before the line of the rootfs', async () => {
  await using setting = await open();
  const { stdout } = await setting.pullWell(ADDED);
  // Five of the tree, the key, four of the archive.
  assert.match(
    stdout,
    /done\nAdded 10 paths: tree, key:\/root\/\.ssh\/, more\.tar\n\nRootfs of .* in out\n$/,
  );
  const one = await setting.pullWell(['--add', 'key:/etc/', '--replace']);
  assert.match(one.stdout, /^Added 1 path: key:\/etc\/\n\nRootfs of /m);
  const again = await setting.pullWell(['--add', 'key:/etc/', '--replace']);
  assert.doesNotMatch(again.stdout, /^Added/m);
  const quiet = await setting.pullWell(['--add', 'key:/etc/', '--replace=always', '-q']);
  assert.equal(quiet.stdout, 'out\n');
  const without = await setting.pullWell(['-d', 'plain']);
  assert.doesNotMatch(without.stdout, /^Added/m);
});

test('add: every output has it, and verify counts it as part of the image', async () => {
  await using setting = await open();
  const { scratch } = setting;
  await setting.pullWell(ADDED);
  const run = (...argv: readonly string[]) => setting.pull([...argv, '--progress', 'none']);
  await setting.pullWell([...ADDED, '-o', 'x.tar']);
  const list = execFileSync('tar', ['-tf', scratch.join('x.tar')], { encoding: 'utf8' }).split('\n');
  for (const name of ['etc/motd', 'root/.ssh/key', 'own', 'same', 'out'])
    assert.ok(list.includes(name), name);
  assert.ok(!list.includes('etc/gone'));
  // The same files make the same bytes.
  await setting.pullWell([...ADDED, '-o', 'y.tar']);
  assert.ok(readFileSync(scratch.join('x.tar')).equals(readFileSync(scratch.join('y.tar'))));
  await setting.pullWell([...ADDED, '-g', '-d', 'layers']);
  const branches = git(scratch.join('layers'), 'branch', '--list').split('\n').filter(Boolean);
  assert.equal(branches.length, 2);
  assert.match(branches[1]!, /^\* layer1_/);
  const verify = (...flags: readonly string[]) =>
    runProgram(
      [
        'verify',
        setting.reference,
        '-d',
        'out',
        '--cache-dir',
        setting.store,
        ...flags,
        '--contents',
        '--progress',
        'none',
      ],
      { cwd: scratch.path },
    );
  assert.deepEqual(await verify(...ADDED), { exitCode: 0, stdout: '', stderr: '' });
  const without = await verify();
  assert.equal(without.exitCode, 9);
  assert.match(without.stdout, /^extra \/own$/m);
  writeFileSync(scratch.join('out/root/.ssh/key'), 'Secret');
  assert.match((await verify(...ADDED)).stdout, /^changed \/root\/\.ssh\/key: /);
  // --replace recognises a DIR with the same added files, and one with others.
  await run(...ADDED, '--replace');
  assert.match((await run(...ADDED, '--replace')).stderr, /nothing was done/);
  assert.equal((await run(...ADDED, '--replace', '--dry-run')).exitCode, 0);
  writeFileSync(scratch.join('key'), 'other');
  assert.equal((await run(...ADDED, '--replace', '--dry-run')).exitCode, 9);
});

test('add: the cache keeps no added file, and no message has its content', async () => {
  await using setting = await open();
  const { stdout, stderr } = await setting.pullWell([...ADDED, '-v']);
  assert.doesNotMatch(stdout + stderr, /secret/);
  const found = spawnSync('grep', ['-rl', 'secret', setting.store], { encoding: 'utf8' });
  assert.deepEqual([found.status, found.stdout], [1, '']);
});

test('add: a file that cannot be added is named, and no DIR is made', async (t) => {
  await using setting = await open();
  const { scratch } = setting;
  execFileSync('mkfifo', [scratch.join('fifo')]);
  mkdirSync(scratch.join('white'));
  writeFileSync(scratch.join('white/.wh.etc'), '');
  writeFileSync(scratch.join('bad.tar'), 'x'.repeat(2048));
  writeFileSync(scratch.join('nowhere.tar'), tar(hardlink('h', '../../etc/nowhere')));
  const rows: readonly (readonly [flags: readonly string[], exitCode: number, stderr: RegExp])[] = [
    [
      ['--add', 'none'],
      7,
      /^error: cannot add none: no such file or directory.*\nhint: check the path behind --add/m,
    ],
    [
      ['--add', 'key=/etc/x'],
      7,
      /^error: cannot add key=\/etc\/x: no such file.*\nhint: write --add key:\/etc\/x$/m,
    ],
    [
      ['--add', './key:etc/x'],
      7,
      /^error: cannot add \.\/key:etc\/x: no such file.*\nhint: write --add \.\/key:\/etc\/x$/m,
    ],
    [['--add', 'a:b'], 7, /^error: cannot add a:b: no such file.*\nhint: check the path behind --add/m],
    [['--add', 'fifo'], 2, /^error: cannot add fifo: it is no file, directory or symlink\nhint: /m],
    [
      ['--add', 'white'],
      2,
      /^error: cannot add \S+white\/\.wh\.etc: such a name deletes files of the image\nhint: rename/m,
    ],
    [
      ['--add', 'bad.tar'],
      6,
      /^error: .*bad\.tar.*\nhint: bad\.tar is malformed or incomplete: make it again$/m,
    ],
    [
      ['--add', 'key:/.wh.etc'],
      2,
      /^error: cannot add \/\.wh\.etc: such a name deletes files of the image\nhint: rename/m,
    ],
    [
      ['--add', 'key:/etc'],
      2,
      /^error: cannot add key as \/etc: that is a directory\nhint: .*: key:\/etc\/$/m,
    ],
    [['--add', '.'], 2, /^error: cannot add \.: this run writes into it\nhint: choose another place/m],
    [['--add', '.', '-o', 'x.tar'], 2, /^error: cannot add \.: this run writes into it\n/m],
    [
      ['--add', 'tree', '--cache-dir', 'tree/etc/cache'],
      2,
      /^error: cannot add tree: the cache is in it\nhint: choose another place with --cache-dir/m,
    ],
    [
      ['--add', 'tree', '--cache-dir', 'tree', '-o', '-'],
      2,
      /^error: cannot add tree: the cache is in it\nhint: choose another place with --cache-dir/m,
    ],
    [
      ['--add', 'nowhere.tar'],
      6,
      /^error: layer [0-9a-f]{12}: h: .*\nhint: this layer is what --add names: check the archive$/m,
    ],
    [['--add', ':/x'], 2, /^error: --add :\/x names no file\nhint: write --add SRC/m],
    [
      ['--add', 'key', '--add-owner', 'me'],
      2,
      /^error: --add-owner takes numbers of a user and a group, not "me"\n/m,
    ],
  ];
  for (const [flags, exitCode, stderr] of rows) {
    await t.test(flags.join(' '), async () => {
      const result = await setting.pull([...flags, '--progress', 'none']);
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.match(result.stderr, stderr);
      assert.ok(!existsSync(scratch.join('out')));
    });
  }
});

test('add: a plain user adds what it may read', { skip: noOtherUser }, async () => {
  await using setting = await open();
  chmodSync(setting.scratch.path, 0o777);
  const as = { uid: 65_534 };
  const denied = await setting.pull(['--add', 'key', '--no-cache', '--progress', 'none'], as);
  assert.equal(denied.exitCode, 7);
  assert.match(denied.stderr, /^error: cannot add key: permission denied/m);
  const added = await setting.pull(['--add', 'tree/lib:/lib', '--no-cache', '--progress', 'none'], as);
  assert.equal(added.exitCode, 0, added.stderr);
});

test('add: the working directory can be added if the run writes nothing into it', async () => {
  await using setting = await open();
  const argv = [setting.reference, '-o', '-', '--add', '.', '--no-cache', '--progress', 'none'];
  const { exitCode, stderr } = await runProgram(argv, { cwd: setting.scratch.join('tree') });
  assert.equal(exitCode, 0, stderr);
});

test('add: a signal ends the reading of a large file at once', async () => {
  await using setting = await open();
  const { scratch } = setting;
  truncateSync(scratch.join('key'), 2 ** 33);
  const run = setting.start(['--add', 'key', '-v', '--progress', 'none']);
  await until('the request for the config', () => setting.registry.requests.length > 2);
  run.kill('SIGTERM');
  const { exitCode, stderr } = await run.result;
  assert.equal(exitCode, 143, stderr);
  assert.deepEqual(setting.names, ['key', 'more.tar', 'tree']);
});

test('add: a full disk is named', { skip: missing('root') }, async () => {
  await using setting = await open();
  const { scratch } = setting;
  mkdirSync(scratch.join('full'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', scratch.join('full')]);
  try {
    truncateSync(scratch.join('key'), 2 ** 21);
    const flags = ['--add', 'key', '-d', 'full/out', '--progress', 'none'];
    const { exitCode, stderr } = await setting.pull(flags);
    assert.equal(exitCode, 7);
    assert.match(
      stderr,
      /^error: cannot write the temporary file of --add in \S+full: no space left.*\nhint: .*-d/m,
    );
  } finally {
    execFileSync('umount', [scratch.join('full')]);
  }
});
